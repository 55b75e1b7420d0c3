"""A cap of ours above a thinking budget: through every method of the SDK, whatever lowered it."""

from __future__ import annotations

import anthropic
import pytest

from llm_cost_middleware import BudgetExceededError, cost_context
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.pipeline import CostPipeline

ASKED = {
    "model": "claude-haiku-4-5", "max_tokens": 16_000, "messages": [{"role": "user", "content": "Why is it blue?"}],
    "thinking": {"type": "enabled", "budget_tokens": 10_000},
}  # fmt: skip


def create(client, **more):
    return client.messages.create(**ASKED, **more)


def create_stream(client):
    return list(client.messages.create(**ASKED, stream=True))


def stream(client):
    with client.messages.stream(**ASKED) as events:
        return events.get_final_message()


def beta(client):
    return client.beta.messages.create(**ASKED)


def asked_for(sim):
    """The bodies of requests for an answer; counting the input costs nothing."""
    return [exchange.body for exchange in sim.requests if "max_tokens" in exchange.body]


@pytest.mark.parametrize("ask", [create, create_stream, stream, beta])
@pytest.mark.parametrize("lowered_by", ["budget", "max_cost"])
def test_the_thinking_shrinks_with_the_cap_or_the_call_is_refused(ask, lowered_by, sim):
    plain = anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k", max_retries=0)

    def client_with(money):
        limit = money if lowered_by == "budget" else "100"
        return wrap_anthropic(plain, CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": limit}])))

    def call(money):
        client = client_with(money)
        if lowered_by == "budget":
            return ask(client)
        with cost_context(max_cost=money):
            return ask(client)

    call("0.035")
    (sent,) = asked_for(sim)
    assert sent["thinking"]["budget_tokens"] + 256 <= sent["max_tokens"] < 16_000
    assert sent["thinking"]["budget_tokens"] >= 1_024
    with pytest.raises(BudgetExceededError):
        call("0.006")
    assert asked_for(sim) == [sent]
