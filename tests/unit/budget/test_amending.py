"""A budget that is set over many rows: filled from a snapshot, switched on under the lock with what came since."""

from __future__ import annotations

import sqlite3
from contextlib import closing, nullcontext
from random import Random

import pytest

from llm_cost_middleware.budget.backends.sqlite import budget_table, filling
from llm_cost_middleware.budget.backends.sqlite.filling import AccountFilling
from llm_cost_middleware.budget.backends.sqlite.group_commit import FileLock
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import LedgerUnavailableError
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit

WINDOWS = ("hour", "day", "month", "3600s", "90s")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/l.db"


def busy(ledger, clock, rng, calls):
    for _ in range(calls):
        clock.advance(rng.choice((1, 40, 700)))
        scopes = [f"user:{rng.choice('abc')}", f"team:{rng.choice('xy')}"]
        held = ledger.reserve("0.01", scopes)
        if rng.random() < 0.8:
            ledger.settle(held.id, "0.004")


def check(ledger):
    audit(ledger._backend.read(None), list(ledger.rows()))


@pytest.mark.parametrize("chunk", [3, 1000])
@pytest.mark.parametrize("window", WINDOWS)
def test_what_is_written_while_a_budget_is_filled_counts_once(url, clock, monkeypatch, window, chunk):
    monkeypatch.setattr(filling, "_CHUNK", chunk)
    rng = Random(window)
    with Ledger.open(url, clock=clock, durability="normal") as ledger:
        busy(ledger, clock, rng, 60)
        filled, rounds = AccountFilling._sums, iter(range(3))

        def meanwhile(self, *args):
            sums = filled(self, *args)
            if args[2] < 2**61 and next(rounds, None) is not None:  # not under the lock: nobody else can write then
                busy(ledger, clock, rng, 4)
            return sums

        monkeypatch.setattr(AccountFilling, "_sums", meanwhile)
        for scope in ("user:*", "team:x"):
            ledger.set_budget(Budget(scope, "5", window))
            check(ledger)
        monkeypatch.setattr(AccountFilling, "_sums", filled)
        busy(ledger, clock, rng, 10)
        ledger.set_budget(Budget("user:*", "5", window, "Asia/Kathmandu"))  # its accounts count already
        check(ledger)
        ledger.set_budget(Budget("user:a", "4", window, "America/New_York"))  # beside its template
        check(ledger)
        ledger.remove_budget("user:a", window)  # the template takes it back
        check(ledger)
        ledger.remove_budget("user:*", window)
        busy(ledger, clock, rng, 10)
        ledger.set_budget(Budget("user:*", "5", window))  # what it left behind is counted anew
        check(ledger)


@pytest.mark.parametrize("chunk", [3, 1000])
def test_budgets_of_one_window_are_put_in_force_together(url, clock, monkeypatch, chunk):
    """A template and a scope of it, both new: what is written meanwhile counts once in each."""
    monkeypatch.setattr(filling, "_CHUNK", chunk)
    rng = Random(chunk)
    with Ledger.open(url, clock=clock, durability="normal") as ledger:
        busy(ledger, clock, rng, 40)
        filled, rounds = AccountFilling._add_up, iter(range(3))

        def meanwhile(self, each):
            found = filled(self, each)
            if next(rounds, None) is not None:
                busy(ledger, clock, rng, 6)
            return found

        monkeypatch.setattr(AccountFilling, "_add_up", meanwhile)
        for zones in (("UTC", "UTC"), ("Asia/Kathmandu", "UTC"), ("UTC", "Asia/Kathmandu")):
            both = [Budget("user:a", "4", "day", zones[0]), Budget("user:*", "5", "day", zones[1])]
            ledger.configure_budgets(both)
            check(ledger)
            busy(ledger, clock, rng, 6)
            check(ledger)


def test_a_budget_that_is_set_already_takes_no_write(url, monkeypatch):
    with Ledger.open(url) as ledger:
        ledger.set_budget(Budget("user:*", "5", "day"))
        monkeypatch.setattr(ledger._backend._file, "write", None)
        ledger.set_budget(Budget("user:*", "5", "day"))
        assert ledger.remove_budget("team:x", "day") is False


def test_a_change_of_the_limit_adds_no_row_up(url, monkeypatch):
    with Ledger.open(url) as ledger:
        ledger.set_budget(Budget("user:*", "5", "day"))
        monkeypatch.setattr(AccountFilling, "_sums", None)
        ledger.set_budget(Budget("user:*", "6", "day"))
        assert ledger.budgets()[0].limit == 6


def test_budgets_that_another_process_changes_meanwhile_are_seen(url, clock, monkeypatch):
    with Ledger.open(url, clock=clock) as ledger, Ledger.open(url, clock=clock) as other:
        busy(ledger, clock, Random(1), 20)
        filled, once = AccountFilling._add_up, iter([1])

        def meanwhile(self, plan):
            found = filled(self, plan)
            if next(once, None):  # a version of the package that knows no queue of amendments
                backend = other._backend
                monkeypatch.setattr(AccountFilling, "turn", lambda _: nullcontext())
                backend.set_budget(Budget("user:a", "3", "day", "Asia/Tokyo"))
            return found

        monkeypatch.setattr(AccountFilling, "_add_up", meanwhile)
        ledger.set_budget(Budget("user:*", "5", "day"))
        busy(other, clock, Random(2), 20)
        check(ledger)


def test_a_fill_that_was_killed_leaves_nothing_that_counts(url, clock, monkeypatch, tmp_path):
    monkeypatch.setattr(filling, "_CHUNK", 2)
    with Ledger.open(url, clock=clock) as ledger:
        busy(ledger, clock, Random(3), 30)
        with monkeypatch.context() as killed:
            killed.setattr(budget_table, "_SET_BUDGET", "no statement")
            with pytest.raises(LedgerUnavailableError, match="syntax"):
                ledger.set_budget(Budget("user:*", "5", "day"))
        assert ledger.budgets() == ()
        check(ledger)
        busy(ledger, clock, Random(4), 30)
        ledger.set_budget(Budget("user:*", "5", "day"))
        check(ledger)
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        assert db.execute("SELECT count(*) FROM cell").fetchone()[0] > 0


def test_a_budget_waits_for_another_process_with_an_end(url, monkeypatch, tmp_path):
    monkeypatch.setattr(filling, "_PATIENCE_S", 0.1)
    with Ledger.open(url) as ledger:
        ledger.book("1", ["user:a"])
        stuck = FileLock(tmp_path / "l.db-filling")
        stuck.acquire(wait=True)
        with pytest.raises(LedgerUnavailableError, match="amending its budgets"):
            ledger.set_budget(Budget("user:*", "5", "day"))
        stuck.close()
        ledger.set_budget(Budget("user:*", "5", "day"))
