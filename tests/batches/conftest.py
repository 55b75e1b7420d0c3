"""A pipeline and a simulator that share one clock: a day passes at once, for both."""

from __future__ import annotations

import anthropic
import openai
import pytest

from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import Simulator, fill
from llm_cost_middleware.testing import FakeClock


class SharedClock(FakeClock):
    """Time passes for the provider too."""

    def __init__(self, sim):
        super().__init__(sim.clock.now())
        self.sim, self.at_sleep = sim, None

    def advance(self, seconds):
        super().advance(seconds)
        self.sim.clock.advance(seconds)

    def sleep(self, seconds):
        if self.at_sleep is not None:
            self.at_sleep(seconds)
        super().sleep(seconds)


class Desk:
    """What a test of batches works with."""

    def __init__(self, sim):
        self.sim, self.clock = sim, SharedClock(sim)
        self.claude = anthropic.Anthropic(base_url=sim.anthropic_url, api_key="key", max_retries=0)
        self.gpt = openai.OpenAI(base_url=sim.openai_url, api_key="key", max_retries=0)
        self.aclaude = anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="key", max_retries=0)
        self.agpt = openai.AsyncOpenAI(base_url=sim.openai_url, api_key="key", max_retries=0)
        self.clients, self.aclients = [self.claude, self.gpt], [self.aclaude, self.agpt]
        self.pipelines = []

    def pipeline(self, **config):
        config.setdefault("budgets", [{"scope": "global", "limit": "100"}])
        self.pipelines.append(made := CostPipeline(config, clock=self.clock))
        return made

    def agree(self, pipeline):
        """Nothing is held, and the ledger says what the provider bills."""
        balance = pipeline.ledger.balance("global")
        assert (balance.pending_nanousd, balance.settled_nanousd) == (0, self.sim.bill.total_nanousd)
        assert balance.settled_nanousd > 0

    def created(self):
        """Requests that created a batch, and were answered or lost."""
        return [one for one in self.sim.requests if one.method == "POST" and one.path.endswith("/batches")]


@pytest.fixture
def desk():
    with Simulator(responder=fill) as sim:
        made = Desk(sim)
        yield made
        for pipeline in made.pipelines:
            pipeline.close()
        made.claude.close()
        made.gpt.close()
