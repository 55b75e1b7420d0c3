"""The faces of a leased ledger: event loops, forks, notes, and where leases are off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from plain_call import BOTH, answer, request

from llm_cost_middleware import AsyncLedger, CostConfig, CostPipeline, Ledger
from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.backends.sqlite import SQLiteBackend
from llm_cost_middleware.budget.leases.backend import SERVERLESS, LeasedBackend, lease_from, leased_over
from llm_cost_middleware.budget.leases.journal import LeaseJournal, entry_line, line_of, read_journal, settle_line
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.notes import Notes
from llm_cost_middleware.budget.rules.leases import LeasePolicy, ParcelEntry
from llm_cost_middleware.budget.spool_place import SpoolPlace
from llm_cost_middleware.errors import LedgerUnavailableError, ScopePausedError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock

HOLD, COST = NanoUSD(1000), NanoUSD(100)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/ledger.db"


def blocks_by_hand(url, clock, journal=None):
    """A leased backend without a thread: time is moved, and it is told to ship, by the test."""
    storage = SQLiteBackend.open(url, clock, "default", full=False)
    leased = leased_over(storage, clock, clock.monotonic, LeasePolicy(), journal)
    leased.desk.hurry = leased.shipping.wake = lambda: None
    return leased


def spend(ledger, calls, prefix="c"):
    for number in range(calls):
        ledger.settle(ledger.reserve(HOLD, ["user:a"], id=f"{prefix}{number}").id, COST)


def warm(ledger, clock):
    for place in range(3):
        spend(ledger, 20, f"warm{place}-")
        clock.advance(0.5)
        ledger.backend.shipping.tick()


def test_a_call_from_a_block_asks_the_storage_nothing(url):
    clock = FakeClock()
    with Ledger(blocks_by_hand(url, clock), clock=clock) as ledger:
        ledger.set_budget(Budget("global", "1"))
        warm(ledger, clock)
        rows = len(list(ledger.backend.storage.rows(None, None)))
        spend(ledger, 10)
        assert ledger.backend.desk.admitted >= 10
        assert len(list(ledger.backend.storage.rows(None, None))) == rows
        assert ledger.balance("global").settled_nanousd == 70 * COST
        with Ledger.open(url) as other:
            assert other.balance("global").settled_nanousd == 60 * COST
            assert other.balance("global").pending_nanousd >= 10 * COST, "a block is pending"
        ledger.backend.shipping.tick()
        with Ledger.open(url) as other:
            assert other.balance("global").settled_nanousd == 70 * COST


@pytest.mark.parametrize("gap", [0.05, 1.0, 2.7, 6.0])
def test_a_block_outlasts_the_next_look_however_rare_looks_are(url, gap):
    """As in a process whose calls leave its thread little time."""
    clock = FakeClock()
    with Ledger(blocks_by_hand(url, clock), clock=clock) as ledger:
        calls, directly = max(int(20 * gap), 1), []
        for place in range(max(int(20 / gap), 10)):
            before = ledger.backend.desk.admitted
            for number in range(calls):
                spend(ledger, 1, f"{place}-{number}-")
                clock.advance(gap / calls)
            directly.append(calls - ledger.backend.desk.admitted + before)
            ledger.backend.shipping.tick()
        assert not any(directly[len(directly) // 2 :]), directly
        # Nor is it much more than is needed until the next look.
        block = ledger.backend.desk.blocks["global"]
        assert block.free <= 2 * (4 + 2 * gap) * calls / gap * COST + 16 * HOLD


def one_call(ledger, asynchronous, amount):
    """Reserve and void one call, by either façade."""

    async def call():
        async with AsyncLedger.over(ledger) as aledger:
            await aledger.void((await aledger.reserve(NanoUSD(amount), ["user:a"], id="large")).id)

    if asynchronous:
        asyncio.run(call())
    else:
        ledger.void(ledger.reserve(NanoUSD(amount), ["user:a"], id="large").id)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_that_is_too_large_for_a_block_leaves_the_block_to_others(url, asynchronous):
    """``global`` has no limit: what is held of it never stands in the way."""
    clock = FakeClock()
    with Ledger(blocks_by_hand(url, clock), clock=clock) as ledger:
        warm(ledger, clock)
        free = ledger.backend.desk.blocks["global"].free
        one_call(ledger, asynchronous, free + 1)
        assert free > 0
        assert ledger.backend.desk.blocks["global"].free == free


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("moment", ["before", "holds_back", "resolve"])
def test_a_call_whose_hold_is_handed_over_at_any_moment_is_settled(url, monkeypatch, asynchronous, moment):
    """By another thread: it was open for long, or a budget is set."""
    clock = FakeClock()
    with Ledger(blocks_by_hand(url, clock), clock=clock) as ledger:
        warm(ledger, clock)
        desk = ledger.backend.desk
        admitted = desk.admitted
        ledger.reserve(HOLD, ["user:a"], id="long")
        assert desk.admitted == admitted + 1
        if moment == "before":
            desk.hand_over(lambda _: True)
        else:
            real = getattr(desk, moment)

            def then_hand_over(*args):
                monkeypatch.undo()
                found = real(*args)
                desk.hand_over(lambda _: True)
                return found

            monkeypatch.setattr(desk, moment, then_hand_over)

        async def settle():
            async with AsyncLedger.over(ledger) as aledger:
                await aledger.settle("long", COST)

        asyncio.run(settle()) if asynchronous else ledger.settle("long", COST)
        ledger.backend.shipping.drain()
        balance = ledger.balance("global")
        assert (balance.settled_nanousd, balance.pending_nanousd) == (61 * COST, 0)


@pytest.mark.parametrize("meanwhile", ["budgets are changed", "the answer is lost"])
def test_a_block_that_is_taken_in_vain_is_ended(url, monkeypatch, meanwhile):
    """It is not left to expire, which would charge what nobody spent."""
    clock = FakeClock()
    with Ledger(blocks_by_hand(url, clock), clock=clock) as ledger, Ledger.open(url, clock=clock) as other:
        warm(ledger, clock)
        storage, desk, shipping = ledger.backend.storage, ledger.backend.desk, ledger.backend.shipping
        shipping.drain()
        spend(ledger, 20)
        real, taken = storage.reserve, []

        def reserve(*args, **options):
            taken.append(real(*args, **options))
            if meanwhile == "budgets are changed":
                desk.go_by(None)  # as another thread does
            else:
                raise LedgerUnavailableError("ledger", "the server is gone")
            return taken[-1]

        monkeypatch.setattr(storage, "reserve", reserve)
        with contextlib.suppress(LedgerUnavailableError):
            shipping.tick()
        monkeypatch.undo()
        assert taken
        assert not desk.blocks
        shipping.flush()
        assert other.balance("global").pending == 0
        assert other.balance("global").settled_nanousd == 80 * COST


def test_budgets_that_are_changed_while_calls_go_on_cost_nothing(url):
    crew, calls, limit = 4, 150, 10**9

    def work(number):
        for one in range(calls):
            ledger.settle(ledger.reserve(HOLD, ["user:a"], id=f"{number}-{one}").id, COST)

    with Ledger.open(url, lease="auto") as ledger, ThreadPoolExecutor(crew + 1) as pool:
        working = [pool.submit(work, number) for number in range(crew)]

        def look():
            while not all(one.done() for one in working):
                ledger.backend.shipping.tick()

        looking = pool.submit(look)
        while not all(one.done() for one in working):
            ledger.set_budget(Budget("team:b", NanoUSD(limit := limit + 1)))
        for one in (*working, looking):
            one.result()
    with Ledger.open(url) as ledger:
        balance = ledger.balance("global")
        assert (balance.settled_nanousd, balance.pending) == (crew * calls * COST, 0)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_near_the_limit_what_a_process_holds_unused_is_not_why_its_call_is_refused(url, asynchronous):
    clock = FakeClock()
    with Ledger(blocks_by_hand(url, clock), clock=clock) as ledger:
        ledger.set_budget(Budget("global", "0.0001"))
        warm(ledger, clock)
        assert ledger.backend.desk.blocks["global"].free > 0
        one_call(ledger, asynchronous, 100_000 - ledger.balance("global").settled_nanousd)


def test_a_pause_takes_effect_with_the_next_parcel(url):
    clock = FakeClock()
    with Ledger(blocks_by_hand(url, clock), clock=clock) as ledger, Ledger.open(url, clock=clock) as boss:
        warm(ledger, clock)
        boss.pause("user:a")
        spend(ledger, 1, "before")
        ledger.backend.shipping.tick()
        with pytest.raises(ScopePausedError):
            ledger.reserve(HOLD, ["user:a"])


def test_idle_blocks_are_handed_back(url):
    clock = FakeClock()
    with Ledger(blocks_by_hand(url, clock), clock=clock) as ledger, Ledger.open(url, clock=clock) as other:
        ledger.set_budget(Budget("global", "1"))
        warm(ledger, clock)
        assert other.balance("global").pending > 0
        clock.advance(6)
        ledger.backend.shipping.tick()
        assert other.balance("global").pending == 0


def test_an_event_loop_shares_the_blocks(url):
    clock = FakeClock()
    with Ledger(blocks_by_hand(url, clock), clock=clock) as ledger:
        warm(ledger, clock)

        async def calls():
            async with AsyncLedger.over(ledger) as aledger:
                before = ledger.backend.desk.admitted
                holds = await asyncio.gather(*[aledger.reserve(HOLD, id=f"a{number}") for number in range(5)])
                for hold in holds:
                    await aledger.settle(hold.id, COST)
                assert ledger.backend.desk.admitted == before + 5
                return [row.id async for row in aledger.rows()]

        assert {f"a{number}" for number in range(5)} <= set(asyncio.run(calls()))


def test_an_async_ledger_of_its_own_hands_everything_back(url):
    async def calls():
        async with AsyncLedger.open(url, lease="auto") as ledger:
            for number in range(300):
                await ledger.settle((await ledger.reserve(HOLD, id=f"c{number}")).id, COST)

    asyncio.run(calls())
    with Ledger.open(url) as ledger:
        balance = ledger.balance("global")
        assert (balance.settled_nanousd, balance.pending) == (300 * COST, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_takes_blocks_of_its_own(url):
    with Ledger.open(url, lease="auto") as ledger:
        spend(ledger, 300)
        child = os.fork()
        if not child:
            status = 1
            try:
                spend(ledger, 300, "child")
                ledger.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        spend(ledger, 100, "parent")
    with Ledger.open(url) as ledger:
        balance = ledger.balance("global")
        assert (balance.settled_nanousd, balance.pending) == (700 * COST, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_what_a_fork_has_settled_outlives_its_kill(url, tmp_path):
    """It has a journal of its own, and lets go of the lock of its parent's."""
    journal, clock = LeaseJournal(SpoolPlace(tmp_path / "spool", "t", same_disk=True), "a"), FakeClock()
    with Ledger(blocks_by_hand(url, clock, journal), clock=clock) as ledger:
        backend = ledger.backend
        warm(ledger, clock)
        spend(ledger, 10)
        assert backend.desk.due, "of these the child must know nothing"
        backend.shipping.keep(Notes())
        child = os.fork()
        if not child:
            try:
                assert not backend.desk.due
                assert not backend.shipping.has_notes, "the parent writes them"
                for place in range(3):
                    spend(ledger, 20, f"child{place}-")
                    clock.advance(0.5)
                    backend.shipping.tick()
                admitted = backend.desk.admitted
                spend(ledger, 5, "late")
                assert backend.desk.admitted == admitted + 5
                assert len(backend.desk.due) == 5, "nothing ships them any more"
                os.kill(os.getpid(), signal.SIGKILL)
            except AssertionError:
                traceback.print_exc()
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        with Ledger.open(url, clock=clock) as other:
            assert not [row.id for row in other.rows() if row.id.startswith("late")]
        clock.advance(15)
        backend.shipping.tick()
        with Ledger.open(url, clock=clock) as other:
            assert {f"late{number}" for number in range(5)} <= {row.id for row in other.rows()}
            assert other.balance("user:a").settled_nanousd == (70 + 60 + 5) * COST, "each once"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_that_lives_on_does_not_keep_the_journal_of_its_parent(url, tmp_path):
    place = SpoolPlace(tmp_path / "spool", "t", same_disk=True)
    journal = LeaseJournal(place, "a")
    journal.add(line_of("L", "lease:a"))
    done, end = os.pipe()
    ready, forgotten = os.pipe()
    child = os.fork()
    if not child:
        journal.forget()
        os.close(end)
        os.write(forgotten, b".")
        os.read(done, 1)  # until the parent has looked
        os._exit(0)
    os.close(done)
    assert os.read(ready, 1) == b"."
    journal.close(empty=False)  # as at the death of the parent
    looker = LeaseJournal(place, "b")
    found = [path.name for path, file in looker.left_by_others() if os.close(file) is None]
    for pipe in (end, ready, forgotten):
        os.close(pipe)
    os.waitpid(child, 0)
    looker.close(empty=True)
    assert found == ["t~a"]


def test_a_journal_stays_short_while_calls_go_on(url, tmp_path, monkeypatch):
    """However busy: of what is shipped nothing has to stay."""
    monkeypatch.setattr("llm_cost_middleware.budget.leases.journal._LONGEST", 4_000)
    journal, clock = LeaseJournal(SpoolPlace(tmp_path / "spool", "t", same_disk=True), "a"), FakeClock()
    with Ledger(blocks_by_hand(url, clock, journal), clock=clock) as ledger:
        for place in range(12):
            spend(ledger, 20, f"{place}-")
            clock.advance(0.5)
            ledger.backend.shipping.tick()
            assert journal._path.stat().st_size < 4_000
        assert ledger.backend.desk.admitted > 150
        held = ledger.reserve(HOLD, ["user:a"], id="under way")
        journal.renew(ledger.backend.desk.journal_lines())
        assert [entry.id for entry in read_journal(journal._file).entries] == [held.id]


@pytest.mark.parametrize("end", ["erased elsewhere", "erased here", "a minute", "idle"])
def test_a_name_does_not_stay_in_a_journal(url, tmp_path, end):
    """Of what is shipped nothing stays: after an erasure, after a while, and where there is nothing to do."""
    journal, clock = LeaseJournal(SpoolPlace(tmp_path / "spool", "t", same_disk=True), "a"), FakeClock()
    with Ledger(blocks_by_hand(url, clock, journal), clock=clock) as ledger:
        ledger.set_budget(Budget("global", "1"))
        warm(ledger, clock)
        clock.advance(0.5)
        ledger.backend.shipping.tick()
        spend(ledger, 10)
        assert ledger.backend.desk.admitted >= 10
        assert b"user:a" in journal._path.read_bytes()
        if end == "erased here":
            assert ledger.erase("user:a").rows
        else:
            ledger.backend.shipping.tick()
            assert b"user:a" in journal._path.read_bytes(), "it is written anew at every tick"
            if end == "erased elsewhere":
                with Ledger.open(url, clock=clock) as other:
                    assert other.erase("user:a").rows
            clock.advance({"a minute": 61, "idle": 6}.get(end, 0.5))
            for _ in range(1 if end != "idle" else 3):
                ledger.backend.shipping.tick()
        assert b"user:a" not in journal._path.read_bytes()
        held = ledger.reserve(HOLD, ["user:a"], id="later")
        assert ledger.settle(held.id, COST).id == held.id


def test_a_name_of_a_call_under_way_does_not_stay_in_a_journal(url, tmp_path):
    """Nor where the journal was written anew since, and has got no line of its own."""
    journal, clock = LeaseJournal(SpoolPlace(tmp_path / "spool", "t", same_disk=True), "a"), FakeClock()
    with Ledger(blocks_by_hand(url, clock, journal), clock=clock) as ledger:
        warm(ledger, clock)
        held = ledger.reserve(HOLD, ["user:a"], id="under way")
        assert held.id in ledger.backend.desk.open
        clock.advance(61)
        ledger.backend.shipping.flush()
        assert b"user:a" in journal._path.read_bytes()
        assert not journal.has_lines
        assert ledger.erase("user:a").rows
        assert b"user:a" not in journal._path.read_bytes()
        assert ledger.settle(held.id, COST).amount_nanousd == COST


def test_notes_do_not_wait_for_a_thread_that_has_ended(url, monkeypatch):
    monkeypatch.setattr("llm_cost_middleware.budget.leases.keeper._LINGER", 1)
    with Ledger(lease_from(Ledger.open(url).backend, None, time.monotonic, policy=LeasePolicy(0.02))) as ledger:
        keeper, noted = ledger.backend.keeper, Ledger.open(url).journal
        keeper.hurry()
        until = time.monotonic() + 60
        while keeper._thread is not None and time.monotonic() < until:
            time.sleep(0.01)
        assert keeper._thread is None
        ledger.backend.shipping.keep(Notes([JournalEntry("decision", "x", 1.0, b"{}")]))
        while not list(noted.read("decision")) and time.monotonic() < until:
            time.sleep(0.01)
        assert [line.id for line in noted.read("decision")] == ["x"]


def test_a_journal_that_cannot_be_written_anew_stays(tmp_path, monkeypatch):
    journal = LeaseJournal(SpoolPlace(tmp_path / "spool", "t", same_disk=True), "a")
    journal.add(line_of("L", "lease:a"))
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, text, write=os.write: write(file, text[:10]))
        with pytest.raises(OSError, match="No space"):
            journal.renew([line_of("L", "lease:b")])
        with pytest.raises(OSError, match="No space"):
            journal.add(line_of("L", "lease:b"))
    journal.add(line_of("L", "lease:c"))
    found = read_journal(journal._file)
    journal.close(empty=False)
    assert found.blocks == ("lease:a", "lease:c")
    assert [path.name for path in tmp_path.rglob("*t~a")] == ["t~a"]


@pytest.mark.parametrize("memo", [b"", b'{"a":"b"}', b'\xff\x00\n"\\', "\u2028é😀".encode()])
def test_a_journal_gives_back_what_was_written(tmp_path, memo):
    journal = LeaseJournal(SpoolPlace(tmp_path / "spool", "t", same_disk=True), "a")
    odd = 'a"b\\c\nd é\u2028\ud83d'
    scopes = "global", f"user:{odd}"
    hold = ParcelEntry("reserve", f"{odd}-1", scopes, 7, 1_000, 2_000, "reserved", memo)
    open_ = hold._replace(id=f"{odd}-2")
    booked = hold._replace(kind="book", id=f"{odd}-3", amount=5, expires=1_000, status="estimated")
    for entry in (hold, open_, booked):
        journal.add(entry_line(entry))
    journal.add(settle_line(hold.id, NanoUSD(3), "exact", memo))
    settled = hold._replace(kind="book", amount=3, expires=1_000, status="exact")
    assert read_journal(journal._file).entries == (booked, settled, open_)
    journal.renew([])


def test_what_a_pipeline_notes_goes_with_the_parcels(url):
    config = CostConfig(ledger={"url": url, "lease": "auto"}, budgets=[{"scope": "global", "limit": "1000"}])
    with CostPipeline(config) as pipeline:
        for _ in range(60):
            pipeline.run(request(), lambda _: answer(), providers=BOTH)
        spent = pipeline.tracker.total_cost
    with CostPipeline(CostConfig(ledger={"url": url})) as pipeline:
        assert pipeline.report("model").total.sums.calls == 60
        assert (pipeline.ledger.balance("global").settled, pipeline.ledger.balance("global").pending) == (spent, 0)
        assert len(list(pipeline.ledger.journal.read("decision"))) == 60


def test_where_they_are_of_no_use_the_storage_is_itself_and_a_warning_says_so(url, tmp_path, caplog):
    storage = SQLiteBackend.open(url, FakeClock(), "default", full=False)

    def said():
        (record,) = [one for one in caplog.records if one.name.startswith("llm_cost_middleware")]
        caplog.clear()
        assert record.levelname == "WARNING"
        return record.getMessage()

    for name in SERVERLESS:
        assert lease_from(storage, None, time.monotonic, {name: "x"}) is storage
        assert name in said()
    with Ledger.open("memory://", lease="auto") as ledger:
        assert not isinstance(ledger.backend, LeasedBackend)
    assert "memory" in said()

    async def calls():
        async with AsyncLedger.open("memory://", lease="auto") as ledger:
            await ledger.reserve(HOLD)

    asyncio.run(calls())
    assert "memory" in said()

    class Older:
        """A storage of somebody's own, which ships and does not know the rest."""

        blocks = True
        ship = spool_place = None

    older = Older()
    assert lease_from(older, None, time.monotonic, {}) is older
    assert "no held_blocks" in said()
    leased = lease_from(storage, None, time.monotonic, {})
    assert isinstance(leased, LeasedBackend)
    assert not caplog.records
    leased.close()


def test_what_a_killed_process_left_is_shipped_by_one_that_makes_no_call(url):
    clock = FakeClock()
    with Ledger.open(url) as storage:
        journal = LeaseJournal(storage.backend.spool_place, "killed")
    killed = blocks_by_hand(url, clock, journal)
    with Ledger(killed, clock=clock) as ledger:
        warm(ledger, clock)
        spend(ledger, 5, "late")
        assert len(killed.desk.due) == 5
        killed.desk.closed, killed.desk.journal = True, None
        journal.close(empty=False)  # as the system does
    until = time.monotonic() + 60
    with Ledger.open(url, lease="auto") as ledger, Ledger.open(url) as other:
        while not any(row.id == "late4" for row in other.rows()):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert not ledger.backend.desk.admitted


def test_a_journal_that_cannot_be_written_admits_nothing(url):
    clock = FakeClock()
    with Ledger(blocks_by_hand(url, clock), clock=clock) as ledger:
        warm(ledger, clock)

        class Full:
            long = has_lines = False

            def add(self, *_):
                raise OSError(28, "no space left")

            sync = add

            def close(self, *, empty):
                pass

        before, ledger.backend.desk.journal = ledger.backend.desk.admitted, Full()
        spend(ledger, 3)
        assert ledger.backend.desk.admitted == before
        ledger.backend.desk.journal = None
