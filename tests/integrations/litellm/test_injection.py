"""Where LiteLLM's user asked it to place cache marks, those are the caller's, and ours keep out of their way."""

from __future__ import annotations

import json

import pytest

SONNET = "anthropic/claude-sonnet-4-6"
POINTS = [{"location": "message", "role": "system"}, {"location": "message", "role": "user"}]
FIVE = [{"location": "message", "role": "system"}]


def talk(harness, router, model, **more):
    """A conversation that grows, as one that is worth caching."""
    messages = [{"role": "system", "content": "policy text " * 3_000}]
    for turn in range(6):
        messages.append({"role": "user", "content": f"question {turn} " + "context " * 400})
        router.completion(model, list(messages), max_tokens=50, **more)
        messages.append({"role": "assistant", "content": "ok"})
    sent = harness.sim.requests
    assert [exchange.status for exchange in sent] == [200] * 6
    return [json.dumps(exchange.body).count('"cache_control"') for exchange in sent]


@pytest.mark.parametrize("points", [POINTS, FIVE])
@pytest.mark.parametrize("ttl", ["auto", "1h"])
@pytest.mark.parametrize("where", ["deployment", "call", "defaults", "routed"])
def test_a_call_that_litellm_marks_gets_no_mark_of_ours(make_harness, where, points, ttl):
    """One hour behind LiteLLM's five minutes, and one mark more than four, are what the provider would refuse."""
    harness = make_harness(cache={"ttl": ttl}, tiers=[{"name": "only", "models": [SONNET]}])
    own = {"cache_control_injection_points": points}
    params = own if where in ("deployment", "routed") else {}
    options = {"default_litellm_params": own} if where == "defaults" else {}
    router = harness.router([harness.deployment("a", SONNET, **params)], **options)
    name = "smart" if where == "routed" else "a"
    found = talk(harness, router, name, **(own if where == "call" else {}))
    system, users = 1, (min(turn + 1, 3) if points is POINTS else 0 for turn in range(6))
    assert found == [system + user for user in users]


def test_without_points_the_marks_are_ours(make_harness):
    harness = make_harness()
    found = talk(harness, harness.router([harness.deployment("a", SONNET)]), "a")
    assert max(found) > 1


@pytest.mark.parametrize("place", ["block", "message", "tool"])
def test_marks_of_the_caller_in_litellm_s_shape_are_counted(harness, place):
    """Content blocks, whole messages and tools take Claude's mark there, and LiteLLM hands each of them on."""
    mark = {"cache_control": {"type": "ephemeral"}}
    router = harness.router([harness.deployment("a", SONNET)])
    function = {"description": "d" * 2_000, "parameters": {"type": "object", "properties": {}}}
    tools = [
        {"type": "function", "function": {"name": f"t{at}", **function}, **(mark if place == "tool" else {})}
        for at in range(3)
    ]
    system = [{"type": "text", "text": f"{at} " * 900, **(mark if place == "block" else {})} for at in range(3)]
    messages = [{"role": "system", "content": system}]
    for turn in range(5):
        marked = mark if place == "message" and turn < 3 else {}
        messages.append({"role": "user", "content": f"question {turn} " + "context " * 500, **marked})
        router.completion("a", list(messages), tools=tools, max_tokens=50)
        messages.append({"role": "assistant", "content": "ok"})
    assert [exchange.status for exchange in harness.sim.requests] == [200] * 5
    assert all(json.dumps(exchange.body).count('"cache_control"') <= 4 for exchange in harness.sim.requests)
