"""The race: whatever the concurrency, exactly what fits is sent, and the bill never exceeds the budget."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.events import BudgetRefused, Reserved
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.simulator import CountingRules, fill

CALLS = 50
PROMPT = "Tell me everything about the bridges of Prague."


def threads(model):
    def one(_):
        try:
            return model.invoke(PROMPT)
        except BudgetExceededError as error:
            return error

    with ThreadPoolExecutor(CALLS) as pool:
        return list(pool.map(one, range(CALLS)))


def tasks(model):
    async def run():
        return await asyncio.gather(*(model.ainvoke(PROMPT) for _ in range(CALLS)), return_exceptions=True)

    return asyncio.run(run())


def streams(model):
    async def one():
        return [chunk async for chunk in model.astream(PROMPT)]

    async def run():
        return await asyncio.gather(*(one() for _ in range(CALLS)), return_exceptions=True)

    return asyncio.run(run())


def abatch(model):
    return asyncio.run(model.abatch([PROMPT] * CALLS, return_exceptions=True))


def batch(model):
    return model.batch([PROMPT] * CALLS, return_exceptions=True, config={"max_concurrency": CALLS})


WAYS = pytest.mark.parametrize("way", [threads, tasks, streams, abatch, batch])
SETTINGS = {"output": {"on_insufficient": ["raise"], "default_max_tokens": 400}, "cache": {"mode": "off"}}


@pytest.fixture
def probe(make_harness, claude, sim):
    """The bound and the true cost of one call, in nano-dollars. Behind a gateway that counts nothing: by its bytes."""
    sim.responder, sim.counting = fill, CountingRules(offered=False)
    harness = make_harness(**SETTINGS)
    guard(claude(), harness.pipeline, pinned=True).invoke(PROMPT)
    bound, cost = harness.observer.of(Reserved)[0].amount_nanousd, sim.bill.total_nanousd
    sim.reset()
    return bound, cost


class Decided:
    """An observer that knows when every call was either let through or refused."""

    def __init__(self):
        self._lock, self._calls, self._all = threading.Lock(), 0, threading.Event()

    def on_event(self, event):
        if isinstance(event, Reserved | BudgetRefused):
            with self._lock:
                self._calls += 1
                if self._calls == CALLS:
                    self._all.set()

    def before(self, responder):
        """Answers nobody until then, so that no answered call makes room for another."""

        def respond(request):
            assert self._all.wait(60)
            return responder(request)

        return respond


@WAYS
def test_with_room_for_five_bounds_exactly_five_are_sent(way, probe, make_harness, claude, sim):
    bound, _ = probe
    decided = Decided()
    sim.responder = decided.before(fill)
    harness = make_harness(limit=NanoUSD(5 * bound).usd, observers=[decided], **SETTINGS)
    answers = way(guard(claude(), harness.pipeline, pinned=True))
    refused = [answer for answer in answers if isinstance(answer, BudgetExceededError)]
    assert (len(sim.bill.lines), len(answers) - len(refused)) == (5, 5)
    harness.check()


@WAYS
def test_with_room_for_five_answers_the_bill_stays_within(way, probe, make_harness, claude, sim):
    _, cost = probe
    sim.latency_s = 0.15  # so that they are under way at once
    limit = NanoUSD(5 * cost)
    harness = make_harness(limit=limit.usd, **SETTINGS)
    model = guard(claude(), harness.pipeline, pinned=True)
    while not any(isinstance(answer, BudgetExceededError) for answer in way(model)):
        assert sim.bill.total_nanousd <= limit
    assert 1 <= len(sim.bill.lines) <= 5
    assert sim.bill.total_nanousd <= limit
    harness.check()
