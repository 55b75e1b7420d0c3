"""Random histories on memory. Long form: ``--soak``."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from llm_cost_middleware.budget.backends.memory.backend import MemoryBackend, _SharedState
from llm_cost_middleware.testing import ledger_state_machine


class Storage:
    """One state at a time; reading its deque is reading past the backend."""

    def __init__(self):
        self.state = _SharedState()

    def open(self, clock):
        return MemoryBackend(clock, self.state)

    def dispose(self):
        self.state = _SharedState()


storage = Storage()
Machine = ledger_state_machine(storage.open, lambda backend: backend.rows(None, None), dispose=storage.dispose)
TestMemoryHistories = Machine.TestCase
TestMemoryHistories.settings = settings(
    max_examples=2000, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
