"""Embeddings through the proxy: each request that leaves has a reservation of its own, and is booked at its bill."""

from __future__ import annotations

import openai
import pytest

from llm_cost_middleware.simulator import Fault

TEXTS = ["Hello there, how are you?", "fine"]
MODELS = ("embed", "embed-eu")
every = pytest.mark.parametrize("model", MODELS)


def held(proxy):
    return sum(row.kind == "reserve" for row in proxy.rows())


@every
def test_an_embedding_is_settled_at_its_price(proxy, model):
    before, holds = proxy.since(), held(proxy)
    with proxy.gpt() as client:
        answer = client.embeddings.create(model=model, input=TEXTS)
    assert len(answer.data) == 2
    after = proxy.since()
    assert after[0] - before[0] == after[1] - before[1] > 0
    assert held(proxy) == holds + 1
    assert proxy.resolutions()[-1].status == "exact"


@every
def test_a_refusal_is_a_429_and_nothing_is_sent(proxy, model):
    sent = proxy.sim.request_count
    with proxy.gpt("poor") as client, pytest.raises(openai.RateLimitError, match="user:poor"):
        client.embeddings.create(model=model, input=TEXTS)
    assert proxy.sim.request_count == sent


@every
@pytest.mark.parametrize("fault", [Fault.status(500), Fault.status(429), Fault.reset()], ids=["500", "429", "reset"])
def test_as_many_are_sent_as_are_held(proxy, model, fault):
    """LiteLLM's own function would send one of OpenAI's three times."""
    before, holds, sent = proxy.since(), held(proxy), proxy.sim.request_count
    proxy.sim.script(fault)
    with proxy.gpt() as client:
        try:
            client.embeddings.create(model=model, input=TEXTS, extra_body={"num_retries": 3, "max_retries": 3})
        except openai.APIError:  # the proxy's router does not repeat each of them
            assert proxy.sim.request_count == sent + 1
    after = proxy.since()
    assert proxy.sim.request_count - sent == held(proxy) - holds <= 4
    assert after[0] - before[0] >= after[1] - before[1]


def test_a_lost_answer_that_was_billed_is_covered(proxy):
    before, sent, holds = proxy.since(), proxy.sim.request_count, held(proxy)
    proxy.sim.script(Fault.reset(billed=True))
    with proxy.gpt() as client:
        try:
            client.embeddings.create(model="embed", input=TEXTS)
        except openai.APIError:
            assert proxy.sim.request_count == sent + 1
    after = proxy.since()
    assert proxy.sim.request_count - sent == held(proxy) - holds
    assert after[0] - before[0] >= after[1] - before[1] > 0
