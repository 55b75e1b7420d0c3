from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from leased import Leased

from llm_cost_middleware.budget.backend import AsyncAdapter
from llm_cost_middleware.budget.backends.sqlite import SQLiteBackend
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import BlockingFacade, LedgerBackendTests


class TestSQLite(LedgerBackendTests):
    @pytest.fixture(autouse=True)
    def storage(self, tmp_path):
        self.path = tmp_path / "ledger.db"

    def open(self, clock):
        return SQLiteBackend.open(f"sqlite:///{self.path}", clock, "default", full=True)

    def raw_rows(self, backend):
        with closing(sqlite3.connect(self.path)) as db:
            query = "SELECT seq, kind, id, at, amount, scopes, status, created, memo FROM entry ORDER BY seq"
            for seq, kind, id_, at, amount, scopes, status, created, memo in db.execute(query).fetchall():
                yield Row(
                    seq, kind, id_, at / 1000, NanoUSD(amount), tuple(scopes.split()), status, created / 1000, memo
                )


class TestSQLiteFromAnEventLoop(TestSQLite):
    threads = 1  # one loop

    def open(self, clock):
        return BlockingFacade(AsyncAdapter(super().open(clock)))


class TestSQLiteWithLeases(Leased, TestSQLite):
    pass
