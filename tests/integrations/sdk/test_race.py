"""Fifty at once against a budget for five, through wrapped clients.

Answers run up to the cap that was sent, so that what a settled call gives back never pays for a sixth.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.simulator import CountingRules

ASK = [{"role": "user", "content": "Count to four hundred."}]


def claude(clients, **kwargs):
    return clients["anthropic"].messages.create(model="claude-sonnet-4-6", max_tokens=400, messages=ASK, **kwargs)


def gpt(clients, **kwargs):
    return clients["openai"].responses.create(
        model="gpt-5-mini", max_output_tokens=400, input="Count.", service_tier="default", **kwargs
    )


every_door = pytest.mark.parametrize("door", [claude, gpt], ids=["claude", "gpt"])


class Reserved(list):
    def on_event(self, event):
        if type(event).__name__ == "Reserved":
            self.append(event.amount_nanousd)


def limited(make_harness, nanousd):
    """Behind a gateway that counts nothing, so that every call holds the bound of its bytes."""
    harness = make_harness()
    harness.sim.counting = CountingRules(offered=False)
    return make_harness(budgets=[{"scope": "global", "limit": f"{nanousd}e-9"}], output={"on_insufficient": ["raise"]})


def bound_and_cost(harness, clients, door):
    """What one call reserves, and what it costs."""
    seen = Reserved()
    harness.pipeline = type(harness.pipeline)(harness.pipeline.config, observers=[seen])
    door(harness.wrap(clients))
    cost = harness.sim.bill.total_nanousd
    harness.sim.reset()
    return seen[0], cost


@every_door
def test_fifty_threads_send_exactly_the_five_that_fit(door, make_harness, clients):
    bound, _ = bound_and_cost(make_harness(), clients, door)
    harness = limited(make_harness, 5 * bound)
    harness.sim.latency_s = 0.2
    wrapped = harness.wrap(clients)

    def call(_):
        try:
            return door(wrapped)
        except BudgetExceededError:
            return None

    with ThreadPoolExecutor(50) as pool:
        answers = [answer for answer in pool.map(call, range(50)) if answer is not None]
    assert len(answers) == len(harness.sim.bill.lines) == 5
    harness.agree()


@every_door
@pytest.mark.parametrize("stream", [False, True])
async def test_fifty_tasks_send_exactly_the_five_that_fit(door, stream, make_harness, clients, async_clients):
    bound, _ = await asyncio.to_thread(bound_and_cost, make_harness(), clients, door)
    harness = limited(make_harness, 5 * bound)
    harness.sim.latency_s = 0.2
    wrapped = harness.wrap(async_clients)

    async def call():
        answer = await door(wrapped, stream=stream)
        if stream:
            async for _ in answer:
                pass

    outcomes = await asyncio.gather(*(call() for _ in range(50)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetExceededError)]
    assert (len(refused), len(harness.sim.bill.lines)) == (45, 5)
    harness.agree()


@every_door
def test_calls_until_refused_never_bill_more_than_the_budget(door, make_harness, clients):
    _, cost = bound_and_cost(make_harness(), clients, door)
    harness = limited(make_harness, 5 * cost)
    wrapped = harness.wrap(clients)
    with pytest.raises(BudgetExceededError):
        for _ in range(50):
            door(wrapped)
    assert 0 < len(harness.sim.bill.lines) <= 5
    assert harness.sim.bill.total_nanousd <= 5 * cost
    harness.agree()
