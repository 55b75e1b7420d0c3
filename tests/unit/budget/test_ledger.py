from __future__ import annotations

import asyncio
import pickle
from decimal import Decimal

import pytest
from msgspec.structs import replace

from llm_cost_middleware import CostPipeline
from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
from llm_cost_middleware.budget.model import MAX_NANOUSD, Budget
from llm_cost_middleware.errors import (
    BudgetExceededError,
    ConfigurationError,
    InvalidAmountError,
    InvalidScopeError,
    LedgerUnavailableError,
    ReservationConflictError,
    ReservationNotFoundError,
)
from llm_cost_middleware.lifecycle.commands import Reserve, Settle
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult
from llm_cost_middleware.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ledger(clock):
    with Ledger.open("memory://façade", clock=clock) as ledger:
        yield ledger


def test_a_call_is_reserved_and_settled_in_dollars(ledger):
    ledger.set_budget(Budget("user:42", "1.00", "month"))
    held = ledger.reserve("0.05", ["user:42"])
    assert (held.amount, held.scopes, held.state) == (Decimal("0.05"), ("global", "user:42"), "pending")
    receipt = ledger.settle(held.id, 0.07)
    assert (receipt.amount, receipt.overrun_nanousd) == (Decimal("0.07"), NanoUSD(20_000_000))
    balance = ledger.balance("user:42")
    assert (balance.limit, balance.settled, balance.pending, balance.available) == (
        1,
        Decimal("0.07"),
        0,
        Decimal("0.93"),
    )
    assert ledger.available(["user:42", "team:x"]) == NanoUSD(930_000_000)
    assert ledger.available() is None


def test_a_refusal_has_every_figure_and_survives_pickling(ledger):
    ledger.set_budget(Budget("global", "0.10", "day"))
    ledger.reserve("0.06")
    with pytest.raises(BudgetExceededError, match=r"\$0\.06 reserved by calls in flight") as caught:
        ledger.reserve("0.05")
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (error.scope, error.settled, error.pending) == ("global", 0, Decimal("0.06"))
    assert (error.requested, error.budget_limit) == (Decimal("0.05"), Decimal("0.10"))
    assert error.resets_at.isoformat() == "2026-01-16T00:00:00+00:00"


def test_balances_show_every_budget_and_the_rest_by_what_they_spent(ledger):
    ledger.set_budget(Budget("user:*", "1", "day"))
    ledger.set_budget(Budget("user:*", "5", "month"))
    ledger.set_budget(Budget("team:x", "2"))
    ledger.book("0.3", ["user:a", "site:s"])
    lines = [(line.scope, line.budget and line.budget.window, line.balance.settled) for line in ledger.balances()]
    spent = Decimal("0.3")
    assert lines == [
        ("global", None, spent), ("site:s", None, spent), ("team:x", "none", 0), ("user:a", "day", spent),
        ("user:a", "month", spent),
    ]  # fmt: skip
    assert [line.resets_at and line.resets_at.day for line in ledger.balances()] == [None, None, None, 16, 1]
    assert [budget.key for budget in ledger.budgets()] == [("team:x", "none"), ("user:*", "day"), ("user:*", "month")]


def test_a_balance_needs_the_window_only_where_there_are_several(ledger):
    ledger.set_budget(Budget("user:*", "1", "day"))
    ledger.set_budget(Budget("user:*", "5", "month"))
    assert ledger.balance("user:a", "month").limit == 5
    for window in (None, "week"):
        with pytest.raises(ConfigurationError):
            ledger.balance("user:a", window)
    assert ledger.balance("nobody:x").settled == 0


def test_every_way_out_of_a_hold_books_something(ledger):
    with ledger.hold("0.10") as hold:
        assert hold.settle("0.04").status == "exact"
    with ledger.hold("0.10") as hold:
        hold.void()
    with ledger.hold("0.10"):
        pass
    with pytest.raises(RuntimeError), ledger.hold("0.10"):
        raise RuntimeError
    with pytest.raises(KeyboardInterrupt), ledger.hold("0.10") as hold:
        hold.void()
        raise KeyboardInterrupt
    booked = [(row.kind, row.amount, row.status) for row in ledger.rows() if row.kind != "reserve"]
    held = Decimal("0.10")
    assert booked == [
        ("settle", Decimal("0.04"), "exact"), ("void", 0, "void"), ("settle", held, "unconfirmed"),
        ("settle", held, "unconfirmed"), ("void", 0, "void"),
    ]  # fmt: skip
    assert ledger.balance("global").pending == 0


def test_a_hold_that_cannot_be_settled_lets_the_first_error_through(ledger, monkeypatch):
    def lost(*_, **__):
        raise LedgerUnavailableError("memory://", "gone")

    with pytest.raises(ValueError, match="first") as caught, ledger.hold("0.10"):
        monkeypatch.setattr(ledger._backend, "resolve", lost)
        raise ValueError("first")
    assert "left to expire" in caught.value.__notes__[0]
    monkeypatch.undo()
    with pytest.raises(LedgerUnavailableError), ledger.hold("0.10"):
        monkeypatch.setattr(ledger._backend, "resolve", lost)


async def test_an_async_hold_that_is_cancelled_books_unconfirmed(ledger, clock):
    other = AsyncLedger.open("memory://façade", clock=clock)
    entered = asyncio.Event()

    async def call():
        async with other.hold("0.10", ["user:a"]):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(call())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ledger.balance("user:a").settled == Decimal("0.10")
    assert [row.status async for row in other.rows()] == ["reserved", "unconfirmed"]
    await other.aclose()


async def test_a_cancelled_reserve_gives_back_what_it_reserved(tmp_path, clock):
    url = f"sqlite:///{tmp_path}/l.db"
    async with AsyncLedger.open(url, clock=clock) as ledger:
        await ledger.set_budget(Budget("global", "1"))
        for _ in range(20):
            task = asyncio.create_task(ledger.reserve("0.5"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await ledger.balance("global")).pending == 0


async def test_both_faces_of_one_url_share_one_state(clock, tmp_path):
    for url in ("memory://shared", f"sqlite:///{tmp_path}/l.db"):
        with Ledger.open(url, clock=clock) as one:
            async with AsyncLedger.open(url, clock=clock) as other:
                one.set_budget(Budget("global", "0.10"))
                held = await other.reserve("0.08")
                with pytest.raises(BudgetExceededError):
                    one.reserve("0.03")
                one.settle(held.id, "0.01")
                assert (await other.balance("global")).settled == Decimal("0.01")
                assert await other.available() == one.available()
                assert await other.balances() == one.balances()
                assert await other.budgets() == one.budgets()


def test_a_memory_ledger_forgets_when_the_last_one_is_gone_and_tenants_share_nothing():
    ledger = Ledger.open("memory://short")
    ledger.book("1")
    assert Ledger.open("memory://short", tenant="other").balance("global").settled == 0
    assert Ledger.open("memory://short").balance("global").settled == 1
    del ledger
    assert Ledger.open("memory://short").balance("global").settled == 0


def test_leases_are_swept_along_the_way(clock):
    ledger = Ledger.open("memory://sweeping", clock=clock, hold_ttl_s=600)
    ledger.reserve("0.10")
    clock.advance(601)
    ledger.reserve("0.20")
    balance = ledger.balance("global")
    assert (balance.settled, balance.pending) == (Decimal("0.10"), Decimal("0.20"))


def test_released_leases_make_room_at_once(clock):
    ledger = Ledger.open("memory://releasing", clock=clock, hold_ttl_s=600, on_expiry="release")
    ledger.set_budget(Budget("global", "0.10"))
    ledger.reserve("0.10")
    clock.advance(601)
    ledger.reserve("0.10", id="mine")
    assert ledger.sweep() == 0


def test_a_sweep_takes_all(clock):
    ledger = Ledger.open("memory://many", clock=clock)
    for _ in range(600):
        ledger.reserve(NanoUSD(1), ttl=1)
    clock.advance(2)
    assert ledger.sweep() == 600


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda ledger: ledger.reserve("-1"), InvalidAmountError),
        (lambda ledger: ledger.reserve(float("nan")), InvalidAmountError),
        (lambda ledger: ledger.reserve(10**8), InvalidAmountError),
        (lambda ledger: ledger.reserve(True), InvalidAmountError),
        (lambda ledger: ledger.reserve("1", ["nokind"]), InvalidScopeError),
        (lambda ledger: ledger.reserve("1", ["user:*"]), InvalidScopeError),
        (lambda ledger: ledger.reserve("1", id=""), ConfigurationError),
        (lambda ledger: ledger.reserve("1", id="x" * 201), ConfigurationError),
        (lambda ledger: ledger.reserve("1", ttl=0), ConfigurationError),
        (lambda ledger: ledger.reserve("1", ttl=float("nan")), ConfigurationError),
        (lambda ledger: ledger.settle("unknown", "1"), ReservationNotFoundError),
        (lambda ledger: ledger.settle("held", "-1"), InvalidAmountError),
        (lambda ledger: ledger.settle("held", "1", status="maybe"), ConfigurationError),
        (lambda ledger: ledger.reconcile("held", "1"), ReservationConflictError),
        (lambda ledger: ledger.extend("held", -5), ConfigurationError),
        (lambda ledger: ledger.remove_budget("global", "fortnight"), ConfigurationError),
    ],
)
def test_bad_input_is_a_clear_error_and_changes_nothing(ledger, call, error):
    ledger.reserve("0.01", id="held")
    before = ledger.balances(), list(ledger.rows())
    with pytest.raises(error):
        call(ledger)
    assert (ledger.balances(), list(ledger.rows())) == before


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("mysql://x", {}), ("ledger", {}), ("sqlite://", {}), ("sqlite:///:memory:", {}),
        ("sqlite://relative", {}),
        ("memory://", {"tenant": "a b"}), ("memory://", {"durability": "some"}), ("memory://", {"on_expiry": "forget"}),
        ("memory://", {"hold_ttl_s": 0}),
    ],
)  # fmt: skip
def test_a_ledger_that_cannot_be_opened_gives_the_reason(url, options):
    with pytest.raises(ConfigurationError):
        Ledger.open(url, **options)


def test_a_forked_child_draws_other_ids():
    import os

    from llm_cost_middleware.budget.ledger import unique_id

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, unique_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode().partition("-")[0] != unique_id().partition("-")[0]
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("facade", [Ledger, AsyncLedger])
def test_open_takes_the_former_names_of_its_options_with_a_warning(facade, clock):
    with pytest.warns(DeprecationWarning, match="lease_s is now called hold_ttl_s") as caught:
        ledger = facade.open("memory://", clock=clock, lease_s=60)
    assert caught[0].filename == __file__, "it points at the caller"
    assert ledger._hold_ttl == 60_000
    with pytest.raises(ConfigurationError, match="former name"):
        facade.open("memory://", clock=clock, lease_s=60, hold_ttl_s=60)
    with pytest.raises(TypeError):
        facade.open("memory://", clock=clock, lapse=60)
    with pytest.raises(ConfigurationError, match="auto"):
        facade.open("memory://", clock=clock, lease=60)


@pytest.mark.parametrize("facade", [Ledger, AsyncLedger])
def test_what_a_call_reserves_and_settles_is_what_anybody_does(facade, clock):
    async def ask(told):
        return await told if facade is AsyncLedger else told

    async def run():
        ledger, amount = facade.open("memory://", clock=clock), NanoUSD(50_000_000)
        held = await ask(Reserve("a.1", amount, ("team:ü x",), 900.0, b"memo").apply(ledger))
        assert held == await ask(ledger.reserve(amount, ("team:ü x",), id="a.1", memo=b"memo"))
        assert held.scopes == ("global", "team:%C3%BC%20x")
        paid = await ask(Settle("a.1", NanoUSD(7), "estimated", b"", None).apply(ledger))
        assert await ask(ledger.settle("a.1", NanoUSD(7), status="estimated")) == replace(paid, repeated=True)
        most = NanoUSD(MAX_NANOUSD + 1)
        for command in (Reserve("b.1", most, (), 900.0, b""), Settle("b.1", most, "exact", b"", None)):
            with pytest.raises(InvalidAmountError, match="below"):
                await ask(command.apply(ledger))

    asyncio.run(run())


def test_a_call_goes_through_what_a_subclass_makes_of_a_verb(clock):
    told = []

    class Watched(Ledger):
        def reserve(self, *args, **kwargs):
            told.append("reserve")
            return super().reserve(*args, **kwargs)

        def settle(self, *args, **kwargs):
            told.append("settle")
            return super().settle(*args, **kwargs)

    with CostPipeline(ledger=Watched.open("memory://", clock=clock), clock=clock) as pipeline:
        provider = get_provider("openai")
        answer = {"model": "gpt-5-mini", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
        request = provider.read_request({"model": "gpt-5-mini", "messages": []})
        pipeline.run(
            request, lambda _: CallResult(answer, provider.read_usage(answer)), providers=frozenset({provider.name})
        )
    assert told == ["reserve", "settle"]
