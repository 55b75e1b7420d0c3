"""Fifty at once against a budget for five, through the router.

Answers run up to the cap that was sent, so that what a settled call gives back never pays for a sixth.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.pipeline import CostPipeline

ASK = [{"role": "user", "content": "Count to forty."}]
# where the account could decide the tier, its dearest is reserved: say it, and the bound is tight
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
def price(make_books):
    """What one call reserves, and what it costs."""

    def measure(model):
        books = make_books()
        watch, seen = one_bound(model)
        pipeline = CostPipeline(books.pipeline.config, observers=[watch])
        books.pipeline = pipeline
        books.router().completion(model, ASK, **CAPS[model])
        cost = books.sim.bill.total_nanousd
        books.sim.reset()
        return seen[0], cost

    return measure


def limited(make_books, nanousd):
    return make_books(budgets=[{"scope": "global", "limit": f"{nanousd}e-9"}], output={"on_insufficient": ["raise"]})


@pytest.mark.parametrize("model", MODELS)
def test_fifty_threads_send_exactly_the_five_that_fit(model, make_books, price):
    bound, _ = price(model)
    books = limited(make_books, 5 * bound)
    books.sim.latency_s = 0.2
    router = books.router()

    def call(_):
        try:
            return router.completion(model, ASK, **CAPS[model])
        except BudgetExceededError:
            return None

    with ThreadPoolExecutor(50) as pool:
        answers = [answer for answer in pool.map(call, range(50)) if answer is not None]
    assert len(answers) == books.sim.request_count == 5
    books.agree()


@pytest.mark.parametrize("stream", [False, True])
async def test_fifty_tasks_send_exactly_the_five_that_fit(stream, make_books, price):
    bound, _ = await asyncio.to_thread(price, "gpt-5-mini")
    books = limited(make_books, 5 * bound)
    books.sim.latency_s = 0.2
    router = books.router()

    async def call():
        answer = await router.acompletion("gpt-5-mini", ASK, **CAPS["gpt-5-mini"], stream=stream)
        if stream:
            async for _ in answer:
                pass

    outcomes = await asyncio.gather(*(call() for _ in range(50)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetExceededError)]
    assert (len(refused), books.sim.request_count) == (45, 5)
    books.agree()


@pytest.mark.parametrize("model", MODELS)
def test_calls_until_refused_never_bill_more_than_the_budget(model, make_books, price):
    _, cost = price(model)
    books = limited(make_books, 5 * cost)
    router = books.router()
    with pytest.raises(BudgetExceededError):
        for _ in range(50):
            router.completion(model, ASK, **CAPS[model])
    assert 0 < books.sim.request_count <= 5
    assert books.sim.bill.total_nanousd <= 5 * cost
    books.agree()
