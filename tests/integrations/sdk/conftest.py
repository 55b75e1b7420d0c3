"""Wrapped SDK clients over the simulator, and the one comparison that matters: ledger against bill."""

from __future__ import annotations

import asyncio
import gc

import pytest

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import fill

WRAP = {"anthropic": wrap_anthropic, "openai": wrap_openai}


class ClientHarness:
    """A pipeline beside the simulator's bill."""

    def __init__(self, sim, **config):
        config.setdefault("budgets", [{"scope": "global", "limit": "100"}])
        config["retry"] = {"base_s": 0.01, "throttle_base_s": 0.01, **config.get("retry", {})}
        self.sim = sim
        self.pipeline = CostPipeline(CostConfig(**config))

    def wrap(self, clients, **options):
        return {name: WRAP[name](client, self.pipeline, **options) for name, client in clients.items()}

    @property
    def settled(self):
        gc.collect()
        balance = self.pipeline.ledger.balance("global")
        assert balance.pending_nanousd == 0
        return balance.settled_nanousd

    async def reached(self, count=1):
        """Until the provider has got so many requests; however busy the machine is."""
        for _ in range(6_000):
            if self.sim.request_count >= count and self.sim.bill.total_nanousd:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.sim.request_count} requests of {count}")

    def agree(self):
        """Nothing is pending, and the ledger says what the provider bills."""
        assert self.settled == self.sim.bill.total_nanousd
        assert {record.status for record in self.pipeline.records()} <= {"exact"}

    def cover(self):
        """Nothing is pending, and the ledger says at least what the provider bills, and does not call it exact."""
        assert self.settled >= self.sim.bill.total_nanousd
        assert self.pipeline.records()[-1].status != "exact"

    @property
    def statuses(self):
        return [record.status for record in self.pipeline.records()]


@pytest.fixture
def harness(sim):
    sim.responder = fill
    return ClientHarness(sim)


@pytest.fixture
def make_harness(sim):
    sim.responder = fill
    return lambda **config: ClientHarness(sim, **config)
