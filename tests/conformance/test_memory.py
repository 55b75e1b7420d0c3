from __future__ import annotations

import pytest
from leased import Leased

from llm_cost_middleware.budget.backends.memory.backend import MemoryBackend, _SharedState
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import LedgerBackendTests


class TestMemory(LedgerBackendTests):
    @pytest.fixture(autouse=True)
    def storage(self):
        self.state = _SharedState()

    def open(self, clock):
        return MemoryBackend(clock, self.state)

    def raw_rows(self, backend):
        for seq, kind, id_, at, amount, scopes, status, created, memo in self.state.rows:
            yield Row(seq, kind, id_, at / 1000, NanoUSD(amount), scopes, status, created / 1000, memo)


class TestMemoryWithLeases(Leased, TestMemory):
    pass
