"""A chat to Claude through the router is counted as LiteLLM sends it, tool calls and their results with it."""

from __future__ import annotations

import json

import pytest

from llm_cost_middleware import BudgetExceededError
from llm_cost_middleware.simulator import CountingRules

TEXT = "The shipment left the harbour on Tuesday and nobody has heard of it since. " * 60
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Find a ship.",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
}
SYSTEM, ASKED = {"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}


def _call(number, arguments='{"name": "Anna"}'):
    return {"id": f"call_{number}", "type": "function", "function": {"name": "find", "arguments": arguments}}


def _result(number, content=TEXT):
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": content}


CHATS = {
    "one call": [SYSTEM, ASKED, {"role": "assistant", "content": None, "tool_calls": [_call(1)]}, _result(1)],
    "two at once, and words": [
        ASKED,
        {"role": "assistant", "content": "I look.", "tool_calls": [_call(1), _call(2)]},
        _result(1),
        _result(2, [{"type": "text", "text": "nothing"}]),
    ],
    "two turns": [
        ASKED,
        {"role": "assistant", "content": "", "tool_calls": [_call(1, "{}")]},
        _result(1),
        {"role": "assistant", "content": "It is in port."},
        {"role": "user", "content": "And now?"},
    ],
}


def _budget(limit):
    return {"budgets": [{"scope": "global", "limit": limit}], "output": {"on_insufficient": ["raise"]}}


@pytest.mark.parametrize("choice", [None, "required", {"type": "function", "function": {"name": "find"}}])
@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
def test_a_chat_with_tool_calls_is_counted_where_its_byte_bound_does_not_fit(make_harness, sim, chat, choice):
    sim.counting = CountingRules()
    harness = make_harness(**_budget("0.006"), tiers=[{"name": "one", "models": ["anthropic/claude-haiku-4-5"]}])
    router = harness.router([harness.deployment("m", "anthropic/claude-haiku-4-5")])
    more = {} if choice is None else {"tool_choice": choice}
    router.completion("m", chat, tools=[TOOL], max_tokens=64, **more)
    counted = [request for request in sim.requests if request.path.endswith("count_tokens")]
    (sent,) = [request for request in sim.requests if request.path.endswith("/v1/messages")]
    assert len(counted) == 1
    kinds = [[block["type"] for block in message["content"]] for message in counted[0].body["messages"]]
    assert json.dumps(kinds).count("tool_use") == json.dumps(sent.body["messages"]).count('"tool_use"')
    assert counted[0].body.get("tool_choice", {}).get("type") == sent.body.get("tool_choice", {}).get("type")
    (record,) = harness.pipeline.records()
    (held,) = [row.amount_nanousd for row in harness.pipeline.ledger.rows() if row.kind == "reserve"]
    billed = record.usage.input_tokens * 1_000
    assert billed <= held - 64 * 5_000 <= billed * 1.025
    harness.agree()


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "tool_calls": [_call(1, "{broken")]},
        {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": "{}"}},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
    ],
)
def test_what_only_litellm_can_translate_keeps_its_byte_bound(make_harness, sim, message):
    sim.counting = CountingRules()
    harness = make_harness(**_budget("0.004"), tiers=[{"name": "one", "models": ["anthropic/claude-haiku-4-5"]}])
    router = harness.router([harness.deployment("m", "anthropic/claude-haiku-4-5")])
    with pytest.raises(BudgetExceededError):
        router.completion("m", [ASKED, message, ASKED], tools=[TOOL], max_tokens=64)
    assert not sim.requests
