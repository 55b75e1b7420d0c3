"""What the ledger could not take is booked when it can: by this process, or by the next one."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from plain_call import BOTH, COST, answer, request

import llm_cost_middleware
from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.budget.backends.sqlite import connection
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.lifecycle.spool import Spool
from llm_cost_middleware.lifecycle.spool_file import SpoolFile, Unbooked
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(tmp_path, clock):
    def make(**ledger):
        ledger = {"url": f"sqlite:///{tmp_path}/l.db", **ledger}
        config = CostConfig(ledger=ledger, budgets=[{"scope": "global", "limit": 9}])
        return CostPipeline(config, clock=clock, rng=Random(3))

    return make


@pytest.fixture
def quick(monkeypatch):
    """A foreign lock is waited for five seconds by SQLite: here for less."""
    monkeypatch.setattr(connection, "_BUSY_MS", 20)


class ForeignLock:
    """Another program's write transaction."""

    def __init__(self, tmp_path):
        self._db = sqlite3.connect(tmp_path / "l.db", isolation_level=None)

    def take(self):
        self._db.execute("BEGIN IMMEDIATE")

    def leave(self):
        self._db.execute("ROLLBACK")
        self._db.close()


def check(pipeline, settled, *, rows=1):
    ledger = pipeline.ledger
    balance = ledger.balance("global")
    assert (balance.settled_nanousd, balance.pending_nanousd) == (settled, 0)
    assert [row.status for row in ledger.rows() if row.kind == "settle"] == ["exact"] * rows
    audit(ledger._backend.read(None), list(ledger.rows()))


def test_a_settle_that_met_a_lock_is_booked_by_the_next_activity(make, tmp_path, clock, quick):
    make().close()
    lock = ForeignLock(tmp_path)
    with make() as pipeline:
        assert pipeline.run(request(), lambda _: lock.take() or answer(), providers=BOTH) == "fine"
        assert pipeline.ledger.balance("global").settled_nanousd == 0
        lock.leave()
        clock.advance(1)
        check(pipeline, COST)


def test_it_is_booked_late_where_another_process_let_it_expire(make, tmp_path, clock, quick):
    make().close()
    lock = ForeignLock(tmp_path)
    with make() as pipeline:
        pipeline.run(request(), lambda _: lock.take() or answer(), providers=BOTH)
        lock.leave()
        clock.advance(2_000)
        with Ledger.open(f"sqlite:///{tmp_path}/l.db", clock=clock) as other:
            assert other.sweep() == 1  # at the amount that was reserved
            assert other.balance("global").settled_nanousd > COST
        check(pipeline, COST)


def test_a_process_that_was_killed_leaves_it_to_the_next_one(make, tmp_path, clock, quick):
    make().close()
    lock = ForeignLock(tmp_path)
    killed = make()
    killed.run(request(), lambda _: lock.take() or answer(), providers=BOTH)
    lock.leave()
    path = tmp_path / "l.db-spool"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with make() as other:
        check(other, COST)
    clock.advance(5)
    check(killed, COST)  # it tries as well, to no effect
    assert not path.read_bytes().rstrip(b"\0")
    killed.close()


def test_closing_tries_at_once(make, tmp_path, quick):
    make().close()
    lock = ForeignLock(tmp_path)
    pipeline = make()
    pipeline.run(request(), lambda _: lock.take() or answer(), providers=BOTH)
    lock.leave()
    pipeline.close()
    with make() as other:
        check(other, COST)


def test_the_ledger_is_not_asked_again_at_every_call(make, tmp_path, clock, quick, monkeypatch):
    make().close()
    lock = ForeignLock(tmp_path)
    with make(on_unavailable="allow") as pipeline:
        tried = []
        monkeypatch.setattr(pipeline._stages.spool, "_booked", lambda entry: tried.append(entry.id))
        lock.take()
        for _ in range(4):
            pipeline.run(request(), lambda _: answer(), providers=BOTH)
            clock.advance(0.1)
        assert not tried
        clock.advance(1)
        pipeline.run(request(), lambda _: answer(), providers=BOTH)
        assert len(tried) == 1  # one is tried alone
        lock.leave()


def test_calls_of_an_outage_are_booked_when_it_ends(make, tmp_path, clock, quick, caplog):
    make().close()
    lock = ForeignLock(tmp_path)
    with make(on_unavailable="allow") as pipeline:
        lock.take()
        for _ in range(3):
            assert pipeline.run(request(), lambda _: answer(), providers=BOTH) == "fine"
        assert "will expire" not in caplog.text  # there is no reservation
        lock.leave()
        clock.advance(1)
        ledger = pipeline.ledger
        assert [(row.kind, row.amount_nanousd, row.status) for row in ledger.rows()] == [("book", COST, "exact")] * 3
        audit(ledger._backend.read(None), list(ledger.rows()))


SCRIPT = """
import os, resource, signal, sys
sys.path.insert(0, {tests!r})
from plain_call import BOTH, answer, request
from llm_cost_middleware import CostConfig, CostPipeline
pipeline = CostPipeline(CostConfig(ledger={{"url": sys.argv[1]}}, budgets=[{{"scope": "global", "limit": 9}}]))
def full(_):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = os.path.getsize(sys.argv[1].removeprefix("sqlite:///") + "-wal")  # no file may grow beyond
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    return answer()
print(pipeline.run(request(), full, providers=BOTH), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_settle_that_met_a_full_disk_is_found_by_the_next_process(make, tmp_path, clock):
    """The file may not grow any more, and the spool's room was taken before. The process is killed then."""
    with make() as pipeline:
        pipeline.run(request(), lambda _: answer(), providers=BOTH)
    root = Path(llm_cost_middleware.__file__).parents[1]
    script = SCRIPT.format(tests=str(Path(__file__).parents[1] / "support"))
    ended = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{tmp_path}/l.db"], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(root)}, check=False,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert ended.stdout == "fine\n"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    with Ledger.open(f"sqlite:///{tmp_path}/l.db") as ledger:
        assert ledger.balance("global").pending_nanousd > 0
    with make() as other:
        check(other, 2 * COST, rows=2)


def test_entries_of_other_tenants_and_versions_stay(tmp_path):
    file = SpoolFile(tmp_path / "spool", "one")
    entry = Unbooked("settle", "a", NanoUSD(5), "exact", ("global",), b"\xff{")
    file.append(entry)
    SpoolFile(tmp_path / "spool", "two").append(entry._replace(id="b"))
    text = (tmp_path / "spool").read_bytes().rstrip(b"\0")
    (tmp_path / "spool").write_bytes(text + b'{"v": 99}\n{"v": 1, "cut sho')
    assert file.read() == [entry]
    file.remove({"a", "b"})
    assert file.read() == []
    assert [e.id for e in SpoolFile(tmp_path / "spool", "two").read()] == ["b"]
    assert b'{"v": 99}' in (tmp_path / "spool").read_bytes()


def test_holds_of_a_closed_event_loop_are_settled_by_the_next_call(make):
    """Fifty calls wait for their answers, the loop is closed, and their tasks are still referred to."""
    with make() as pipeline:
        sent, loop = [], asyncio.new_event_loop()

        async def never(attempt):
            sent.append(attempt)
            await asyncio.Event().wait()

        tasks = [loop.create_task(pipeline.arun(request(), never, providers=BOTH)) for _ in range(50)]
        while len(sent) < 50:
            loop.run_until_complete(asyncio.sleep(0.01))
        held = pipeline.ledger.balance("global").pending_nanousd
        loop.close()
        pipeline.run(request(), lambda _: answer(), providers=BOTH)
        balance = pipeline.ledger.balance("global")
        assert balance.pending_nanousd == 0
        assert balance.settled_nanousd == held + COST  # they may have been billed
        assert [row.status for row in pipeline.ledger.rows() if row.kind == "settle"] == ["unconfirmed"] * 50 + [
            "exact"
        ]
        for task in tasks:
            task._log_destroy_pending = False
        del tasks, task
        gc.collect()
        pipeline.run(request(), lambda _: answer(), providers=BOTH)
        assert pipeline.ledger.balance("global").settled_nanousd == held + 2 * COST
        assert pipeline.ledger.balance("global").settled == Decimal(held + 2 * COST).scaleb(-9)
        with closing(sqlite3.connect(pipeline.ledger.backend._file.path)) as db:
            assert db.execute("SELECT count(*) FROM reservation WHERE state = 'pending'").fetchone() == (0,)


def test_what_another_thread_has_booked_meanwhile_is_nothing_to_do(tmp_path):
    """It may be booked between the look whether it is due and the turn."""

    class Clock(FakeClock):
        between = staticmethod(lambda: None)

        def monotonic(self):
            Clock.between()
            return super().monotonic()

    clock = Clock()
    with Ledger.open("memory://", clock=clock) as ledger:
        spool = Spool(ledger, clock)
        spool.keep(Unbooked("book", "one", NanoUSD(5), "exact", ("user:a",), b""))
        clock.advance(5)

        def other():
            Clock.between = staticmethod(lambda: None)
            spool.retry(force=True)

        Clock.between = staticmethod(other)
        spool.retry()
        assert [row.id for row in ledger.rows()] == ["one"]
