"""The conformance suite over a storage whose calls are admitted from blocks: with an interval of zero nothing lags."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from llm_cost_middleware.budget.leases.backend import leased_over
from llm_cost_middleware.budget.rules.leases import LeasePolicy
from llm_cost_middleware.errors import ReservationConflictError
from llm_cost_middleware.testing.oracle import audit

AT_ONCE = LeasePolicy(interval_s=0.0, least_calls=1, share=1, processes=1)


class Leased:
    """Stands before a suite: one desk over the storage that the suite opens."""

    leased = None

    def open(self, clock):
        if self.leased is None or self.leased.desk.closed:
            self.leased = leased_over(super().open(clock), clock, clock.monotonic, AT_ONCE)
        return self.leased

    def test_a_reconcile_corrects_with_a_new_row(self, backend):
        """As of any storage; but a call that was admitted in memory comes as one row, a booking."""
        self.reserve(backend, "a", 8)
        with pytest.raises(ReservationConflictError):
            backend.resolve("reconcile", "a", 3, status="exact")
        settled = backend.resolve("settle", "a", 8, status="unconfirmed")
        corrected = backend.resolve("reconcile", "a", 3, status="exact")
        assert backend.resolve("reconcile", "a", 3, status="exact") == replace(corrected, repeated=True)
        assert backend.resolve("settle", "a", 8, status="unconfirmed") == replace(settled, repeated=True)
        assert self.sums(backend, "global") == (3, 0)
        rows = [(row.kind, row.amount_nanousd, row.status) for row in self.raw_rows(backend) if row.id == "a"]
        assert rows == [("book", 8, "unconfirmed"), ("reconcile", 3, "exact")]

    def audit(self, backend):
        backend.shipping.drain()
        # The oracle knows a hold by when its first row was written: here it comes when it is shipped.
        rows = list(self.raw_rows(backend))
        rows = [row._replace(at=row.reserved_at) if row.kind in {"book", "reserve"} else row for row in rows]
        audit(backend.storage.read(None), rows)
        assert not backend.desk.busy

    def test_a_block_that_somebody_ended_admits_nothing_more(self, backend, clock):
        for number in range(3):
            self.reserve(backend, f"{number}", 10)
            backend.resolve("settle", f"{number}", 5, status="exact")
        (block,) = backend.desk.blocks.values()
        backend.storage.resolve("void", block.id, 0, status="void")
        block.free += 1  # a change, so that the next parcel speaks of it
        backend.shipping.flush()
        assert block not in backend.desk.blocks.values()
