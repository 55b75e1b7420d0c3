"""Random histories on a SQLite file; the oracle reads the file with a connection of its own."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from llm_cost_middleware.budget.backends.sqlite import SQLiteBackend
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules import rollup
from llm_cost_middleware.errors import ReservationConflictError
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import ledger_state_machine


class Storage:
    """One folder at a time."""

    def __init__(self):
        self.folder = None
        self.opened = []

    def open(self, clock):
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="llm-cost-"))
        for backend in self.opened:
            backend.close()
        self.opened = [SQLiteBackend.open(f"sqlite:///{self.folder}/ledger.db", clock, "default", full=False)]
        return self.opened[0]

    def raw_rows(self, _backend):
        with sqlite3.connect(self.folder / "ledger.db") as db:
            lines = db.execute(
                "SELECT seq, kind, id, at, amount, scopes, status, created, memo FROM entry ORDER BY seq"
            )
            rows = [
                Row(seq, kind, id_, at / 1000, NanoUSD(amount), tuple(scopes.split()), status, created / 1000, memo)
                for seq, kind, id_, at, amount, scopes, status, created, memo in lines
            ]
        db.close()
        return rows

    def dispose(self):
        shutil.rmtree(self.folder)
        self.folder, self.opened = None, []


storage = Storage()
Machine = ledger_state_machine(storage.open, storage.raw_rows, dispose=storage.dispose)
TestSQLiteHistories = Machine.TestCase
TestSQLiteHistories.settings = settings(
    max_examples=200, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


IDS = st.integers(0, 11).map("call-{}".format)


class ArchivingMachine(Machine):
    """The same histories, in which old rows leave for files at any time. What was archived takes no new correction."""

    @rule(ago=st.sampled_from([0.0, 0.001, 30.0, 3600.0, 86_400.0]))
    def archive(self, ago):
        moved = self.backend.archive(self.now - int(ago * 1000), None, MemoSummary())
        assert not moved.resumed

    @rule(id_=IDS, scopes=st.sampled_from([("global",), ("global", "user:a")]), amount=st.integers(0, 60))
    def settle_and_archive(self, id_, scopes, amount):
        """Chance alone rarely finds something that is over."""
        self.reserve(id_=id_, amount=amount, scopes=scopes, ttl=900_000)
        self.settle(id_=id_, amount=amount // 2, twice=False)
        self.clock.advance(1.0)
        self.archive(ago=0.0)

    def _closed(self, id_):
        with sqlite3.connect(storage.folder / "ledger.db") as db:
            found = db.execute("SELECT charged, reconciled FROM reservation WHERE archived > 0 AND id = ?", (id_,))
            row = found.fetchone()
        db.close()
        return row

    @rule(id_=IDS, amount=st.integers(0, 60))
    def reconcile(self, id_, amount):
        closed = self._closed(id_)
        if closed is None:
            super().reconcile(id_, amount)
        elif closed[1] and closed[0] == amount:  # it was corrected to this before
            assert self.backend.resolve("reconcile", id_, amount, status="exact").amount_nanousd == amount
        else:
            with pytest.raises(ReservationConflictError, match="archived"):
                self.backend.resolve("reconcile", id_, amount, status="exact")


@pytest.fixture(scope="class", autouse=True)
def _sums_of_a_millisecond():
    """So that the oracle, which counts rolling windows from the rows, need not know how coarse the sums are."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rollup, "QUARTER", 1)
        patched.setattr(rollup, "DAY", 1)
        yield


TestArchivedHistories = ArchivingMachine.TestCase
TestArchivedHistories.settings = settings(
    max_examples=100, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
