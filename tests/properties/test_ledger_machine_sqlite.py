"""Random histories on a SQLite file; the oracle reads the file with a connection of its own."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

from llm_cost_middleware.budget.backends.sqlite import SQLiteBackend
from llm_cost_middleware.budget.model import Row
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
