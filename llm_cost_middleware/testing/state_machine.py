"""Random histories against the reference ledger: duplicate, reordered and late calls, clock jumps, crashes."""

# ruff: noqa: S101, D102 - asserts are what a test is made of; the rules of the machine are named for what they do

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from llm_cost_middleware.budget.backend import Backend, SupportsRegister
from llm_cost_middleware.budget.ledger.administration import RegisterStep
from llm_cost_middleware.budget.model import Budget, Row
from llm_cost_middleware.errors import BudgetExceededError, ReservationConflictError, ReservationNotFoundError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.clock import FakeClock
from llm_cost_middleware.testing.oracle import audit
from llm_cost_middleware.testing.reference import ReferenceLedger, Verdict

_IDS = st.integers(0, 11).map("call-{}".format)  # few, so that histories meet
_AMOUNTS = st.integers(0, 60)
_KEPT = st.sampled_from([{}, {}, {"user:a": "0.25"}, {"user:*": "0.5", "team:x": "0.125"}])
_CARRIES = st.sampled_from([True, "50%", "30%", "$0.000000020"])
_LENGTHS = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_678_400.0}
_CARRIED = st.sampled_from(sorted(_LENGTHS))
_LIMITS = st.integers(0, 200)
_SCOPES = st.sampled_from(
    [
        ("global",),
        ("global", "user:a"),
        ("global", "user:b"),
        ("global", "user:a", "team:x"),
        ("global", "user:odd%20%2A", "team:x"),
    ]
)
_SLICES = {"slice:outer~60~a1": 60, "slice:inner~25~b2": 25}
_OUTER, _INNER = _SLICES
_PARENTS = {_OUTER: ("global", "user:a"), _INNER: ("global", "user:a", _OUTER)}
_SLICED = st.sampled_from([_PARENTS[_INNER], (*_PARENTS[_INNER], _INNER), (*_PARENTS[_INNER], "team:x")])
_PATTERNS = st.sampled_from(["global", "user:*", "user:a", "team:x"])
_WINDOWS = st.sampled_from(["none", "hour", "day", "60s", "3600s", "month", "week"])
_ZONES = st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe"])
_TTLS = st.sampled_from([1, 30_000, 900_000])
_STEPS = st.sampled_from([0.001, 0.5, 1.0, 29.0, 61.0, 599.0, 3600.0, 86_400.0])
_JUMPS = st.sampled_from([-30.0, -0.25, 45.0, 5400.0])


class LedgerMachine(RuleBasedStateMachine):
    """Machine of one history. ``ledger_state_machine`` gives it what to open and to read."""

    open_: Callable[[FakeClock], Backend]
    raw_rows: Callable[[Backend], Iterable[Row]]
    dispose: Callable[[], None]

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.reference = ReferenceLedger(slices=dict(_SLICES))
        self.backend = type(self).open_(self.clock)

    @property
    def now(self) -> int:
        return int(self.clock.now() * 1000)

    def agree(self, expected: Verdict, call: Callable[[], Any]) -> Any:
        """Make a call and compare its outcome with the expected one."""
        try:
            got, value = "ok", call()
        except BudgetExceededError as error:
            got, value = "refused", error
        except ReservationConflictError:
            got, value = "conflict", None
        except ReservationNotFoundError:
            got, value = "missing", None
        assert got == expected, f"the backend: {got}, the reference: {expected}"
        return value

    @rule(pattern=_PATTERNS, window=_WINDOWS, zone=_ZONES, limit=_LIMITS, kept=_KEPT)
    def set_budget(self, pattern: str, window: str, zone: str, limit: int, kept: dict[str, str]) -> None:
        budget = Budget(pattern, NanoUSD(limit), window, zone, reserve=kept)
        self.backend.set_budget(budget)
        self.reference.set_budget(budget, self.now)

    @rule(pattern=_PATTERNS, window=_CARRIED, zone=_ZONES, limit=_LIMITS, carry=_CARRIES)
    def set_carrying_budget(self, pattern: str, window: str, zone: str, limit: int, carry: bool | str) -> None:
        if isinstance(self.backend, SupportsRegister):  # it says since when a budget stands
            budget = Budget(pattern, NanoUSD(limit), window, zone, carry_over=carry)
            self.backend.amend(RegisterStep(lambda register: register.set(budget)))
            self.reference.set_budget(budget, self.now)

    @precondition(lambda self: any(budget.carry_over for budget in self.reference.budgets.values()))
    @rule(data=st.data(), turns=st.integers(1, 3))
    def windows_turn(self, data: st.DataObject, turns: int) -> None:
        """Let windows of a budget that carries over pass whole: random steps rarely do."""
        carrying = [key for key, budget in sorted(self.reference.budgets.items()) if budget.carry_over]
        _, window = data.draw(st.sampled_from(carrying))
        self.clock.advance(turns * _LENGTHS[window])

    @precondition(lambda self: self.reference.budgets)
    @rule(data=st.data())
    def remove_budget(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.reference.budgets)))
        del self.reference.budgets[key]
        self.reference.stood.pop(key, None)
        assert self.backend.remove_budget(*key)
        assert not self.backend.remove_budget(*key)

    @rule(id_=_IDS, amount=_AMOUNTS, scopes=_SCOPES, ttl=_TTLS)
    def reserve(self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int) -> None:
        expected, facts = self.reference.reserve(id_, amount, scopes, ttl, self.now)
        got = self.agree(expected, lambda: self.backend.reserve(id_, amount, scopes, ttl, b"m", fresh=False))
        if isinstance(facts, tuple):
            totals = got.scope, got.settled * 10**9, got.pending * 10**9, got.requested * 10**9
            assert totals == (*facts, amount), f"refused with {totals}, the reference with {facts}"
        elif expected == "ok":
            assert got.state == facts, f"state {got.state}, the reference {facts}"

    @property
    def has_slices(self) -> bool:
        return getattr(getattr(self.backend, "backend", self.backend), "slices", False)

    @rule(scope=st.sampled_from(sorted(_SLICES)), ttl=_TTLS)
    def open_slice(self, scope: str, ttl: int) -> None:
        if self.has_slices:
            self.reserve(id_=scope, amount=_SLICES[scope], scopes=_PARENTS[scope], ttl=ttl)

    @rule(id_=_IDS, amount=_AMOUNTS, scopes=_SLICED, ttl=_TTLS)
    def reserve_in_slice(self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int) -> None:
        if self.has_slices:
            self.reserve(id_=id_, amount=amount, scopes=scopes, ttl=ttl)

    @rule(id_=_IDS, amount=_AMOUNTS, scopes=_SLICED)
    def book_in_slice(self, id_: str, amount: int, scopes: tuple[str, ...]) -> None:
        if self.has_slices and all(slice_ in self.reference.rows for slice_ in scopes if slice_ in _SLICES):
            self.book(id_=id_, amount=amount, scopes=scopes)

    @rule(scope=st.sampled_from(sorted(_SLICES)))
    def end_slice(self, scope: str) -> None:
        self.void(id_=scope)

    def _set_right(self, id_: str, verdict: str = "ok") -> None:
        if verdict == "ok" and (row := self.reference.rows.get(id_)) is not None:
            self.reference.set_slices_right(row.scopes, self.now)

    @precondition(lambda self: self.reference.budgets)
    @rule(id_=_IDS, scopes=_SCOPES, ttl=_TTLS, beyond=st.integers(0, 1), data=st.data())
    def reserve_up_to_limit(
        self, id_: str, scopes: tuple[str, ...], ttl: int, beyond: int, data: st.DataObject
    ) -> None:
        """Reserve exactly what is left, or one nano-dollar more: random amounts rarely hit the limit."""
        budgets = [(scope, budget) for scope in scopes for budget in self.reference.budgets_of(scope)]
        if budgets:
            self._reserve_what_is_left(id_, scopes, ttl, beyond, *data.draw(st.sampled_from(budgets)))

    @precondition(lambda self: any(budget.carry_over for budget in self.reference.budgets.values()))
    @rule(id_=_IDS, scopes=_SCOPES, ttl=_TTLS, beyond=st.integers(0, 1), data=st.data())
    def reserve_what_was_carried(
        self, id_: str, scopes: tuple[str, ...], ttl: int, beyond: int, data: st.DataObject
    ) -> None:
        """Reserve at the limit of a budget just after a window of it has ended: others rarely meet it there."""
        budgets = [(scope, each) for scope in scopes for each in self.reference.budgets_of(scope) if each.carry_over]
        if budgets:
            scope, budget = data.draw(st.sampled_from(budgets))
            self.clock.advance(_LENGTHS[budget.window])
            self._reserve_what_is_left(id_, scopes, ttl, beyond, scope, budget)

    def _reserve_what_is_left(
        self, id_: str, scopes: tuple[str, ...], ttl: int, beyond: int, scope: str, budget: Budget
    ) -> None:
        carried = self.reference.carried(scope, budget, self.now)
        left = budget.limit_nanousd + carried - sum(self.reference.sums(scope, budget, self.now))
        self.reserve(id_=id_, amount=max(left, 0) + beyond, scopes=scopes, ttl=ttl)

    @rule(id_=_IDS, scopes=_SCOPES, amount=_AMOUNTS, spent=_AMOUNTS, charge=st.booleans())
    def settle_after_expiry(self, id_: str, scopes: tuple[str, ...], amount: int, spent: int, charge: bool) -> None:
        """Settle a reservation that has expired."""
        self.reserve(id_=id_, amount=amount, scopes=scopes, ttl=1)
        self.clock.advance(1.0)
        self.sweep(charge=charge)
        self.settle(id_=id_, amount=spent, twice=False)

    @rule(id_=_IDS, amount=_AMOUNTS, twice=st.booleans())
    def settle(self, id_: str, amount: int, twice: bool) -> None:
        row = self.reference.rows.get(id_)
        amount = row.first if twice and row is not None and row.first is not None else amount
        expected = self.reference.settle(id_, amount)
        self._set_right(id_, expected)
        receipt = self.agree(expected, lambda: self.backend.resolve("settle", id_, amount, status="exact"))
        if expected == "ok":
            assert receipt.amount_nanousd == amount
            again = self.backend.resolve("settle", id_, amount, status="exact")
            assert again == replace(receipt, repeated=True), "another receipt"

    @rule(id_=_IDS)
    def void(self, id_: str) -> None:
        expected = self.reference.void(id_)
        self._set_right(id_, expected)
        self.agree(expected, lambda: self.backend.resolve("void", id_, 0, status="void"))

    @rule(id_=_IDS, amount=_AMOUNTS)
    def reconcile(self, id_: str, amount: int) -> None:
        expected = self.reference.reconcile(id_, amount)
        self._set_right(id_, expected)
        self.agree(expected, lambda: self.backend.resolve("reconcile", id_, amount, status="exact"))

    @rule(id_=_IDS, amount=_AMOUNTS, scopes=_SCOPES)
    def book(self, id_: str, amount: int, scopes: tuple[str, ...]) -> None:
        expected = self.reference.book(id_, amount, scopes, self.now)
        self._set_right(id_, expected)
        self.agree(expected, lambda: self.backend.resolve("book", id_, amount, scopes=scopes, status="exact"))

    @rule(id_=_IDS, ttl=_TTLS)
    def extend(self, id_: str, ttl: int) -> None:
        expected = self.reference.extend(id_, self.now + ttl)
        got = self.agree(expected, lambda: self.backend.extend(id_, ttl))
        if expected == "ok":
            assert round(got.expires_at * 1000) == self.reference.rows[id_].expires

    @rule(id_=_IDS, amount=_AMOUNTS)
    def reduce(self, id_: str, amount: int) -> None:
        if hasattr(getattr(self.backend, "backend", self.backend), "reduce"):
            want = self.reference.reduce(id_, amount)
            self._set_right(id_)
            (made,) = self.backend.reduce([(id_, amount)])  # type: ignore[attr-defined]  # looked at above
            got = made.state, made.amount_nanousd, made.released_nanousd
            assert got == want, f"reduced with {got}, the reference with {want}"

    @rule(charge=st.booleans())
    def sweep(self, charge: bool) -> None:
        expected = self.reference.sweep(self.now, charge=charge)
        assert self.backend.sweep(charge=charge, limit=1000) == expected

    @rule(seconds=_STEPS)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=_JUMPS)
    def clock_is_corrected(self, seconds: float) -> None:
        self.clock.jump(seconds)

    @rule()
    def crash(self) -> None:
        self.backend = type(self).open_(self.clock)

    @invariant()
    def everything_adds_up(self) -> None:
        # After every step, so that a failure is shrunk to the step that caused it.
        snapshot, rows = self.backend.read(None), list(type(self).raw_rows(self.backend))
        audit(snapshot, rows)
        for account in snapshot.totals:
            budget = next(
                (known for known in self.reference.budgets_of(account.scope) if known.window == account.window), None
            )
            want = self.reference.sums(account.scope, budget, self.now)
            got = account.settled, account.pending
            assert got == want, f"{account.scope} in {account.window}: {got}, the reference {want}"
            carried = 0 if budget is None else self.reference.carried(account.scope, budget, self.now)
            assert account.carried == carried, f"{account.scope} carried {account.carried}, the reference {carried}"
        assert set(snapshot.budget_index.budgets) == set(self.reference.budgets.values())

    def teardown(self) -> None:
        self.backend.close()
        type(self).dispose()


def ledger_state_machine(
    open_: Callable[[FakeClock], Backend],
    raw_rows: Callable[[Backend], Iterable[Row]],
    *,
    dispose: Callable[[], None] = lambda: None,
) -> type[RuleBasedStateMachine]:
    """Make a hypothesis state machine for one backend; pytest collects its ``TestCase``.

    Args:
        open_: Opens the storage. In one history a second call opens the same one again, as after a crash.
        raw_rows: Reads the rows without the backend.
        dispose: Called after each history: the next ``open_`` must find an empty storage.
    """
    members = {"open_": staticmethod(open_), "raw_rows": staticmethod(raw_rows), "dispose": staticmethod(dispose)}
    return type("LedgerHistories", (LedgerMachine,), members)
