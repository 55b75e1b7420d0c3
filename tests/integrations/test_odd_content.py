"""What no provider takes is for the provider to refuse: a governed call ends as the same call of a plain client."""

from __future__ import annotations

import pytest

from llm_cost_middleware import CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai

ASK = [{"role": "user", "content": "hello"}]
LISTED = {
    "role": {"messages": [{"role": ["user"], "content": "hello"}]},
    "role of blocks": {"messages": [{"role": ["user"], "content": [{"type": "text", "text": "hello"}]}]},
    "type": {"messages": [{"role": "user", "content": [{"type": ["text"], "text": "hello"}]}]},
    "tool": {"messages": ASK, "tools": [{"type": ["function"], "name": "f", "input_schema": {"type": "object"}}]},
}
DOORS = {
    "messages": lambda a, _, odd: a.messages.create(model="claude-haiku-4-5", max_tokens=20, **odd),
    "chat": lambda _, o, odd: o.chat.completions.create(model="gpt-4o", max_tokens=20, **odd),
    "responses": lambda _, o, odd: o.responses.create(
        model="gpt-5-mini", max_output_tokens=20, input=odd["messages"], tools=odd.get("tools", [])
    ),
    "typed items": lambda _, o, odd: o.responses.create(
        model="gpt-5-mini", max_output_tokens=20, input=[{"type": ["message"], **item} for item in odd["messages"]]
    ),
}


def _end(door, anthropic, openai, odd):
    try:
        return type(DOORS[door](anthropic, openai, odd))
    except Exception as error:  # noqa: BLE001 - whatever it is, it has to be the same
        return type(error), getattr(error, "status_code", str(error))


@pytest.mark.parametrize("odd", LISTED)
@pytest.mark.parametrize("door", DOORS)
def test_a_list_for_a_name_ends_as_without_a_pipeline(door, odd, clients, sim):
    plain = _end(door, clients["anthropic"], clients["openai"], LISTED[odd])
    asked, billed = sim.request_count, sim.bill.total_nanousd
    with CostPipeline({"budgets": [{"scope": "global", "limit": "1"}]}) as pipeline:
        governed = _end(
            door, wrap_anthropic(clients["anthropic"], pipeline), wrap_openai(clients["openai"], pipeline), LISTED[odd]
        )
        assert governed == plain
        assert sim.request_count == 2 * asked, "it was for the provider to say"
        balance = pipeline.ledger.balance("global")
        assert (balance.settled_nanousd, balance.pending_nanousd) == (sim.bill.total_nanousd - billed, 0)
