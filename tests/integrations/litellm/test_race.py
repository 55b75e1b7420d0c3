"""Fifty at once against a budget for five, through the router.

Answers run up to the cap that was sent, so that what a settled call gives back never pays for a sixth.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import CountingRules

ASK = [{"role": "user", "content": "Count to forty."}]
CAPS = {"claude-sonnet-4-6": {"max_tokens": 400}, "gpt-5-mini": {"max_tokens": 400, "service_tier": "default"}}
MODELS = [*CAPS]


def one_bound(model):
    """What one such call reserves."""
    seen = []

    class Watch:
        def on_event(self, event):
            if type(event).__name__ == "Reserved":
                seen.append(event.amount_nanousd)

    return Watch(), seen


@pytest.fixture
def price(make_harness):
    """What one call reserves, and what it costs."""

    def measure(model):
        harness = make_harness()
        watch, seen = one_bound(model)
        pipeline = CostPipeline(harness.pipeline.config, observers=[watch])
        harness.pipeline = pipeline
        harness.router().completion(model, ASK, **CAPS[model])
        cost = harness.sim.bill.total_nanousd
        harness.sim.reset()
        return seen[0], cost

    return measure


def limited(make_harness, nanousd):
    """Behind a gateway that counts nothing, so that every call holds the bound of its bytes."""
    harness = make_harness()
    harness.sim.counting = CountingRules(offered=False)
    return make_harness(budgets=[{"scope": "global", "limit": f"{nanousd}e-9"}], output={"on_insufficient": ["raise"]})


@pytest.mark.parametrize("model", MODELS)
def test_fifty_threads_send_exactly_the_five_that_fit(model, make_harness, price):
    bound, _ = price(model)
    harness = limited(make_harness, 5 * bound)
    harness.sim.latency_s = 0.2
    router = harness.router()

    def call(_):
        try:
            return router.completion(model, ASK, **CAPS[model])
        except BudgetExceededError:
            return None

    with ThreadPoolExecutor(50) as pool:
        answers = [answer for answer in pool.map(call, range(50)) if answer is not None]
    assert len(answers) == len(harness.sim.bill.lines) == 5
    harness.agree()


@pytest.mark.parametrize("stream", [False, True])
async def test_fifty_tasks_send_exactly_the_five_that_fit(stream, make_harness, price):
    bound, _ = await asyncio.to_thread(price, "gpt-5-mini")
    harness = limited(make_harness, 5 * bound)
    harness.sim.latency_s = 0.2
    router = harness.router()

    async def call():
        answer = await router.acompletion("gpt-5-mini", ASK, **CAPS["gpt-5-mini"], stream=stream)
        if stream:
            async for _ in answer:
                pass

    outcomes = await asyncio.gather(*(call() for _ in range(50)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetExceededError)]
    assert (len(refused), len(harness.sim.bill.lines)) == (45, 5)
    harness.agree()


@pytest.mark.parametrize("model", MODELS)
def test_calls_until_refused_never_bill_more_than_the_budget(model, make_harness, price):
    _, cost = price(model)
    harness = limited(make_harness, 5 * cost)
    router = harness.router()
    with pytest.raises(BudgetExceededError):
        for _ in range(50):
            router.completion(model, ASK, **CAPS[model])
    assert 0 < len(harness.sim.bill.lines) <= 5
    assert harness.sim.bill.total_nanousd <= 5 * cost
    harness.agree()
