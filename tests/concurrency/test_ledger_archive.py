"""Archiving a ledger that lives: ``kill -9`` at every step, and writers who do not notice. Long form: ``--soak``."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import llm_cost_middleware
from llm_cost_middleware.budget import archive_file
from llm_cost_middleware.budget.backends.sqlite import archive
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import LedgerUnavailableError, ReservationConflictError
from llm_cost_middleware.metering import MemoSummary, decode_memo
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit

WORKER = Path(__file__).with_name("archive_worker.py")
BORN, BEFORE = 1_760_000_000, 1_761_000_000


def run(url, step):
    environment = {**os.environ, "PYTHONPATH": str(Path(llm_cost_middleware.__file__).parents[1])}
    command = [sys.executable, str(WORKER), url, str(BEFORE), str(step)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def fill(ledger, clock, calls, seed=0):
    chance = random.Random(seed)
    ledger.set_budget(Budget("user:*", "5", "month"))
    for number in range(calls):
        clock.advance(chance.random() * 3600)
        id_ = ledger.reserve(NanoUSD(1000), [f"user:{number % 3}"], id=f"{seed}-{number}").id
        match chance.randrange(5):
            case 0:
                ledger.void(id_)
            case 1:
                ledger.settle(id_, NanoUSD(900), status="unconfirmed")
            case 2:
                ledger.settle(id_, NanoUSD(number), status="estimated")
                ledger.reconcile(id_, NanoUSD(7))
            case _:
                ledger.settle(id_, NanoUSD(number))


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A ledger to archive, and at how many moments that can be killed."""
    folder = tmp_path_factory.mktemp("old")
    clock = FakeClock(BORN)
    with Ledger.open(f"sqlite:///{folder}/ledger.db", clock=clock) as ledger:
        fill(ledger, clock, 40)
        rows, balances = list(ledger.rows()), ledger.balances()
    shutil.copy(folder / "ledger.db", folder / "counted.db")
    counted = run(f"sqlite:///{folder}/counted.db", 0)
    assert counted.returncode == 0, counted.stderr
    return folder / "ledger.db", rows, balances, int(counted.stdout)


def pytest_generate_tests(metafunc):
    if "moment" in metafunc.fixturenames:
        metafunc.parametrize("moment", range(20 if not metafunc.config.getoption("--soak", default=False) else 260))


def test_killed_at_any_moment_no_money_is_lost_and_none_counted_twice(tmp_path, old, moment, soak):
    origin, rows, balances, moments = old
    step = moment + 1 if soak else 1 + moment * (moments - 1) // 19
    if step > moments:
        pytest.skip("an archive has fewer moments than this")
    shutil.copy(origin, tmp_path / "ledger.db")
    url = f"sqlite:///{tmp_path}/ledger.db"
    assert run(url, step).returncode == -9

    with Ledger.open(url, clock=FakeClock(BEFORE + 10)) as ledger:
        assert ledger.balances() == balances
        audit(ledger._backend.read(None), list(ledger.rows()))
        seen = list(ledger.rows())
        assert {row for row in seen if row.kind != "carried"} <= set(rows)
        if step % 2:  # life goes on before somebody starts it again
            ledger.settle(ledger.reserve(NanoUSD(5), ["user:1"]).id, NanoUSD(5))
            balances = ledger.balances()
        moved = ledger.archive(BEFORE, MemoSummary())
        assert moved.resumed or step in {1, 2, 3, moments}, "these are before its beginning, and after its end"
        again = ledger.archive(BEFORE, MemoSummary())
        assert (again.path, again.rows) == (None, 0)
        assert ledger.balances() == balances
        left = list(ledger.rows())
        audit(ledger._backend.read(None), left)
        kept = {row for row in left if row.kind != "carried"}
        (path,) = tmp_path.glob("*.jsonl")
        filed = {(line.seq, line.kind, line.id, line.amount) for line in archive_file.read(path)}
        gone = {(row.seq, row.kind, row.id, row.amount_nanousd) for row in set(rows) - kept}
        assert filed == gone, "a row is in both places, or in none"
        carried = sum(row.amount_nanousd for row in left if row.kind == "carried")
        last = {id_: amount for _, kind, id_, amount in sorted(filed) if kind != "reserve"}
        assert carried == sum(last.values())
        assert not list(tmp_path.glob("*.part"))


def test_writers_do_not_notice(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "BLOCK", 20)
    url, clock = f"sqlite:///{tmp_path}/ledger.db", FakeClock(BORN)
    with Ledger.open(url, clock=clock, durability="normal") as ledger:
        fill(ledger, clock, 400)
        calls = len({row.id for row in ledger.rows() if row.kind in {"settle", "reconcile"}})
    clock.advance(2_000_000)
    ledger = Ledger.open(url, clock=clock, durability="normal")
    stop, failures, booked = threading.Event(), [], [0, 0, 0, 0]

    def write(worker):
        chance = random.Random(worker)
        try:
            while not stop.is_set():
                cost = NanoUSD(chance.randrange(100))
                ledger.settle(ledger.reserve(NanoUSD(100), [f"user:{worker}"]).id, cost)
                booked[worker] += cost
                with suppress(ReservationConflictError):  # and corrections of what may be on its way out
                    ledger.reconcile(f"0-{chance.randrange(400)}", NanoUSD(chance.randrange(9)))
        except BaseException as error:
            failures.append(error)
            raise

    def look():
        try:
            while not stop.is_set():
                rows = list(ledger.rows())
                begun = {row.id for row in rows if row.kind in {"reserve", "carried"}}
                assert {row.id for row in rows} == begun, "a row without its beginning"
                assert calls <= sum(decode_memo(row.memo).calls for row in rows if row.kind == "carried") + len(
                    {row.id for row in rows if row.kind in {"settle", "reconcile"}}
                ), "rows were gone before their sums were there"
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)] + [threading.Thread(target=look)]
    for thread in threads:
        thread.start()
    try:
        moved = ledger.archive(clock.now(), MemoSummary())
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert moved.rows > 400
    left = list(ledger.rows())
    audit(ledger._backend.read(None), left)
    filed = list(archive_file.read(moved.path))
    assert not {line.seq for line in filed} & {row.seq for row in left}
    assert not {line.id for line in filed} & {row.id for row in left}
    for worker in (0, 1, 2, 3):
        final = {}
        for row in left:
            if row.kind == "settle" and not row.id.startswith("0-") and f"user:{worker}" in row.scopes:
                final[row.id] = row.amount_nanousd
        assert sum(final.values()) == booked[worker]
    ledger.close()


def test_two_archives_at_once_are_one(tmp_path):
    url, clock = f"sqlite:///{tmp_path}/ledger.db", FakeClock(BORN)
    with Ledger.open(url, clock=clock, durability="normal") as ledger:
        fill(ledger, clock, 60)
        clock.advance(2_000_000)
        balances, outcomes = ledger.balances(), []

        def go():
            try:
                outcomes.append(ledger.archive(clock.now(), MemoSummary()))
            except LedgerUnavailableError:  # another one is at it
                outcomes.append(None)

        threads = [threading.Thread(target=go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(done is not None and done.rows > 0 for done in outcomes) == 1
        assert ledger.balances() == balances
        audit(ledger._backend.read(None), list(ledger.rows()))
