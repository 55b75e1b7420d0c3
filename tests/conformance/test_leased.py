"""The suite over storages whose calls are admitted from blocks: with an interval of zero nothing lags."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from llm_cost_middleware.budget.backends.memory.backend import MemoryBackend, _SharedState
from llm_cost_middleware.budget.backends.sqlite import SQLiteBackend
from llm_cost_middleware.budget.leases.backend import leased_over
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules.leases import LeasePolicy
from llm_cost_middleware.errors import ReservationConflictError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import LedgerBackendTests
from llm_cost_middleware.testing.oracle import audit

AT_ONCE = LeasePolicy(interval_s=0.0, least_calls=1, share=1)


class LeasedTests(LedgerBackendTests):
    """One desk over a storage, whatever opens it."""

    @pytest.fixture(autouse=True)
    def desk(self):
        self.leased = None
        yield
        self.leased = None

    def storage(self, clock):
        raise NotImplementedError

    def open(self, clock):
        if self.leased is None or self.leased.desk.closed:
            self.leased = leased_over(self.storage(clock), clock, clock.monotonic, AT_ONCE)
        return self.leased

    def test_a_reconcile_corrects_with_a_new_row(self, backend):
        """As of any storage; but a call that was admitted in memory comes as one row, a booking."""
        self.reserve(backend, "a", 8)
        with pytest.raises(ReservationConflictError):
            backend.resolve("reconcile", "a", 3, status="exact")
        settled = backend.resolve("settle", "a", 8, status="unconfirmed")
        corrected = backend.resolve("reconcile", "a", 3, status="exact")
        assert backend.resolve("reconcile", "a", 3, status="exact") == corrected._replace(repeated=True)
        assert backend.resolve("settle", "a", 8, status="unconfirmed") == settled._replace(repeated=True)
        assert self.sums(backend, "global") == (3, 0)
        rows = [(row.kind, row.amount_nanousd, row.status) for row in self.raw_rows(backend) if row.id == "a"]
        assert rows == [("book", 8, "unconfirmed"), ("reconcile", 3, "exact")]

    def audit(self, backend):
        backend.shipping.drain()
        audit(backend.storage.read(None), list(self.raw_rows(backend)))
        assert not backend.desk.open
        assert not backend.desk.due


class TestLeasedMemory(LeasedTests):
    @pytest.fixture(autouse=True)
    def state_of_one(self):
        self.state = _SharedState()

    def storage(self, clock):
        return MemoryBackend(clock, self.state)

    def raw_rows(self, backend):
        for seq, kind, id_, at, amount, scopes, status, created, memo in self.state.rows:
            yield Row(seq, kind, id_, at / 1000, NanoUSD(amount), scopes, status, created / 1000, memo)


class TestLeasedSQLite(LeasedTests):
    @pytest.fixture(autouse=True)
    def file(self, tmp_path):
        self.path = tmp_path / "ledger.db"

    def storage(self, clock):
        return SQLiteBackend.open(f"sqlite:///{self.path}", clock, "default", full=True)

    def raw_rows(self, backend):
        with closing(sqlite3.connect(self.path)) as db:
            query = "SELECT seq, kind, id, at, amount, scopes, status, created, memo FROM entry ORDER BY seq"
            for seq, kind, id_, at, amount, scopes, status, created, memo in db.execute(query).fetchall():
                yield Row(
                    seq, kind, id_, at / 1000, NanoUSD(amount), tuple(scopes.split()), status, created / 1000, memo
                )
