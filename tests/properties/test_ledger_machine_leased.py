"""Random histories of a leased ledger against the reference, which knows nothing of leases."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import invariant, rule

from llm_cost_middleware.budget.backends.memory.backend import MemoryBackend, _SharedState
from llm_cost_middleware.budget.leases.backend import leased_over
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules.leases import LeasePolicy
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.oracle import audit
from llm_cost_middleware.testing.state_machine import LedgerMachine

AT_ONCE = LeasePolicy(interval_s=0.0, least_calls=1, share=1, processes=1, longest_hold_s=600.0)


def rows_of(state):
    """The rows, each at the time its money was reserved, as those of a ledger without leases are."""
    for seq, kind, id_, at, amount, scopes, status, created, memo in state.rows:
        moment = created if kind in {"book", "reserve"} else at
        yield Row(seq, kind, id_, moment / 1000, NanoUSD(amount), scopes, status, created / 1000, memo)


class LeasedMachine(LedgerMachine):
    """One desk: what it says is what the reference says, at every step."""

    def __init__(self):
        self.state = _SharedState()
        type(self).open_ = staticmethod(self.opened)
        super().__init__()

    def opened(self, clock):
        return leased_over(MemoryBackend(clock, self.state), clock, clock.monotonic, AT_ONCE)

    @invariant()
    def everything_adds_up(self):
        backend = self.backend
        seen = backend.read(None)
        for account in seen.totals:
            budgets = self.reference.budgets_of(account.scope)
            budget = next((known for known in budgets if known.window == account.window), None)
            want = self.reference.sums(account.scope, budget, self.now)
            got = account.settled, account.pending
            assert got == want, f"{account.scope} in {account.window}: {got}, the reference {want}"

    @rule()
    def crash(self):
        """Not here: an id that another process admitted is not known to this one (``tests/leases``)."""

    @rule()
    def hand_back(self):
        self.backend.shipping.drain()
        audit(self.backend.storage.read(None), list(rows_of(self.state)))
        assert not self.backend.desk.busy

    @rule()
    def tick(self):
        self.backend.shipping.tick()

    def teardown(self):
        self.hand_back()
        self.backend.close()


LeasedMachine.dispose = staticmethod(lambda: None)
LeasedMachine.raw_rows = staticmethod(lambda _: [])
TestLeased = LeasedMachine.TestCase
TestLeased.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, database=None)
