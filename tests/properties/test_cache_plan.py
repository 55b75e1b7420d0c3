"""Any plan for any request is one the provider takes, and touches nothing that the caller owns."""

from __future__ import annotations

import copy
import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_cost_middleware.prompt_cache.layout import read_layout
from llm_cost_middleware.prompt_cache.plan import CachePolicy, CachePrices
from llm_cost_middleware.prompt_cache.planner import plan
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics
from llm_cost_middleware.providers import get_provider, strip_foreign_cache_fields
from llm_cost_middleware.request import Attempt, ModelRef
from llm_cost_middleware.simulator import Answer, SimClock
from llm_cost_middleware.simulator.anthropic.dialect import MESSAGES
from llm_cost_middleware.simulator.engine import ServingEngine
from llm_cost_middleware.simulator.openai.dialects import CHAT
from llm_cost_middleware.simulator.openai.responses import Responses
from llm_cost_middleware.usage import TokenUsage

PRICES = {
    "anthropic": CachePrices(300_000, {"5m": 3_750_000, "1h": 6_000_000}, 3_000_000),
    "openai": CachePrices(400_000, {"30m": 5_000_000}, 4_000_000),
}
POLICIES = [
    CachePolicy(mode, ttl, warm)
    for mode in ("auto", "system")
    for ttl in ("auto", "5m", "1h")
    for warm in (False, True)
]
KEYS = {"anthropic": ("prompt_cache", "breakpoint"), "openai": ("cache_control",)}

texts = st.integers(1, 3).flatmap(lambda n: st.sampled_from(["ä", "word ", "x"]).map(lambda s: s * (1_500 * n)))
lifetimes = st.sampled_from([None, None, None, "5m", "1h"])


@st.composite
def conversations(draw):
    """A conversation in neutral form: turns of (question or results, answer), tools, system blocks, caller's marks."""
    budget = draw(st.integers(0, 4))
    shape = {
        "tools": draw(st.integers(0, 4)),
        "system": draw(st.lists(texts, max_size=3)),
        "turns": draw(st.integers(1, 8)),
        "width": draw(st.integers(1, 14)),
        "agent": draw(st.booleans()),
        "image": draw(st.booleans()),
        "inside": draw(st.booleans()),
        "search": draw(st.sampled_from([None, None, "first", "last"])),
        "deferred": draw(st.integers(0, 2)),
        "automatic": draw(st.sampled_from([None, None, "5m"])),
        "text": draw(texts),
        "long": draw(st.booleans()),  # the caller's marks: an hour or five minutes, all the same
        "marks": sorted(draw(st.sets(st.integers(0, 12), max_size=budget))),
    }
    if shape["automatic"] and len(shape["marks"]) > 3:
        shape["marks"] = shape["marks"][:3]
    if shape["automatic"] and shape["long"]:
        shape["automatic"] = "1h"
    return shape


def claude(shape):
    """The conversation as a body of Anthropic's, marks of the caller included."""
    control = {"type": "ephemeral", "ttl": "1h"} if shape["long"] else {"type": "ephemeral"}
    body = {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": []}
    if shape["tools"]:
        body["tools"] = [
            {"name": f"t{at}", "description": "d" * 900, "input_schema": {"type": "object", "properties": {}}}
            for at in range(shape["tools"])
        ]
        search = {"type": "web_search_20250305", "name": "web_search"}
        body["tools"].insert(0 if shape["search"] == "first" else shape["tools"], search)
        if not shape["search"]:
            body["tools"].remove(search)
    if shape["system"]:
        body["system"] = [{"type": "text", "text": text} for text in shape["system"]]
    for turn in range(shape["turns"]):
        if turn and shape["agent"]:
            content = [
                {"type": "tool_result", "tool_use_id": f"c{turn}.{n}", "content": shape["text"][:600]}
                for n in range(shape["width"])
            ]
        else:
            content = [{"type": "text", "text": f"{turn}{shape['text']}"}]
            if shape["image"]:
                source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
                content.insert(0, {"type": "image", "source": source})
        body["messages"].append({"role": "user", "content": content})
        if turn + 1 < shape["turns"]:
            calls = [
                {"type": "tool_use", "id": f"c{turn + 1}.{n}", "name": "t0", "input": {"cache_control": n}}
                for n in range(shape["width"])
            ]
            answer = calls if shape["agent"] else [{"type": "text", "text": "answer"}]
            body["messages"].append({"role": "assistant", "content": answer})
    if shape["inside"]:
        for message in body["messages"]:
            for block in message["content"]:
                if block["type"] == "tool_result":
                    block["content"] = [{"type": "text", "text": each} for each in (block["content"], "end")]
    blocks = [*body.get("tools", ()), *body.get("system", ())]
    for block in (b for m in body["messages"] for b in m["content"]):
        inner = block.get("content")
        blocks += [*(inner if isinstance(inner, list) else ()), block]
    for at in shape["marks"]:
        if at < len(blocks):
            blocks[at]["cache_control"] = dict(control)
    if shape["automatic"]:
        body["cache_control"] = {"type": "ephemeral", "ttl": shape["automatic"]}
    if shape["tools"] and shape["deferred"]:
        bare = {name: value for name, value in body["tools"][0].items() if name != "cache_control"}
        later = {"input_schema": {"type": "object", "properties": {}}, **bare, "defer_loading": True}
        later.pop("type", None)
        body["tools"] += [{**later, "name": f"late{at}"} for at in range(shape["deferred"])]
    return body


def openai_chat(shape):
    body = {"model": "gpt-5.6-sol", "messages": []}
    if shape["tools"]:
        body["tools"] = [
            {"type": "function", "function": {"name": f"t{at}", "parameters": {"type": "object", "properties": {}}}}
            for at in range(shape["tools"])
        ]
        body["reasoning_effort"] = "none"  # GPT-5.6 takes no tools in a chat otherwise
    body["messages"] += [{"role": "system", "content": text} for text in shape["system"]]
    for turn in range(shape["turns"]):
        if turn and shape["agent"]:
            body["messages"] += [
                {"role": "tool", "tool_call_id": f"c{turn}.{n}", "content": shape["text"][:600]}
                for n in range(shape["width"])
            ]
        else:
            content = f"{turn}{shape['text']}"
            listed = [{"type": "text", "text": content}]
            body["messages"].append({"role": "user", "content": listed if shape["image"] else content})
        if turn + 1 < shape["turns"]:
            calls = [
                {"id": f"c{turn + 1}.{n}", "type": "function", "function": {"name": "t0", "arguments": "{}"}}
                for n in range(shape["width"])
            ]
            answer = {"role": "assistant", "content": "answer"}
            body["messages"].append({"role": "assistant", "tool_calls": calls} if shape["agent"] else answer)
    return body


def openai_responses(shape):
    body = {"model": "gpt-5.6-sol", "input": []}
    if shape["system"]:
        body["instructions"] = shape["system"][0]
        body["input"] += [{"role": "developer", "content": text} for text in shape["system"][1:]]
    for turn in range(shape["turns"]):
        if turn and shape["agent"]:
            body["input"] += [
                {"type": "function_call_output", "call_id": f"c{turn}.{n}", "output": shape["text"][:600]}
                for n in range(shape["width"])
            ]
        else:
            body["input"].append({"role": "user", "content": f"{turn}{shape['text']}"})
        if turn + 1 < shape["turns"]:
            calls = [
                {"type": "function_call", "call_id": f"c{turn + 1}.{n}", "name": "t0", "arguments": "{}"}
                for n in range(shape["width"])
            ]
            body["input"] += calls if shape["agent"] else [{"role": "assistant", "content": "answer"}]
    return body


SHAPES = {
    "messages": ("anthropic", claude, MESSAGES),
    "chat.completions": ("openai", openai_chat, CHAT),
    "responses": ("openai", openai_responses, Responses().dialect),
}


def written(body, made, target, endpoint):
    """The body of an attempt with the plan's marks and the caller's own cap."""
    attempt = Attempt("call", 1, target, None, made, None)
    return get_provider(target.provider).write_request(body, attempt, endpoint)


def lived_through(layout, target, prices, seed):
    """Statistics in some state that a pipeline could have brought them to."""
    rng, statistics, now = random.Random(seed), PrefixStatistics(), 0.0
    ability = get_provider(target.provider).cache_capabilities(target.model)
    for _ in range(rng.randrange(6)):
        now += rng.choice([1.0, 40.0, 700.0, 4_000.0])
        made = plan(layout, ability, prices, statistics, now=now, target=target)
        statistics.begin(layout, made, now=now)
        if rng.random() < 0.8:
            usage = TokenUsage(
                cache_read=rng.choice([0, 3_000]), cache_write_5m=rng.choice([0, 3_000]), uncached_input=9
            )
            statistics.observe(layout, target, made, usage, now=now + 1)
    return statistics, now + rng.choice([0.1, 10.0, 1_000.0])


@pytest.mark.parametrize("endpoint", SHAPES)
@given(shape=conversations(), policy=st.sampled_from(POLICIES), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_plan_is_taken_by_the_provider(endpoint, shape, policy, seed):
    name, build, dialect = SHAPES[endpoint]
    body = build(shape)
    before = copy.deepcopy(body)
    engine = ServingEngine(clock=SimClock(), responder=lambda _: Answer("ok"), worst_case_tokenizer=False, seed=0)
    engine.read(dialect, copy.deepcopy(body), {}, 0)  # the request is one the provider takes as it is
    provider, target = get_provider(name), ModelRef(name, body["model"])
    layout = read_layout(provider.read_request(body, endpoint))
    statistics, now = lived_through(layout, target, PRICES[name], seed)
    able = provider.cache_capabilities(body["model"])
    made = plan(layout, able, PRICES[name], statistics, policy, now=now, target=target)
    out = written(body, made, target, endpoint)

    assert body == before
    engine.read(dialect, out, {}, 0)
    key = '"cache_control": {"type"' if name == "anthropic" else '"prompt_cache_breakpoint": {"mode"'
    assert json.dumps(out).count(key) == json.dumps(body).count(key) + len(made.marks) <= 4
    assert not any(foreign in json.dumps(out) and foreign not in json.dumps(body) for foreign in KEYS[name])


@given(shape=conversations())
@settings(max_examples=40, deadline=None)
def test_a_marked_body_can_be_sent_to_the_other_provider_once_stripped(shape):
    """OpenAI-shaped messages with Claude's marks, as a fallback between providers would send them."""
    body = openai_chat(shape)
    layout = read_layout(get_provider("openai").read_request(body, "chat.completions"))
    ability = get_provider("anthropic").cache_capabilities("claude-sonnet-4-6")
    made = plan(layout, ability, PRICES["anthropic"], policy=CachePolicy(mode="system"), now=0.0)
    marked = written(body, made, ModelRef("anthropic", body["model"]), "chat.completions")
    assert strip_foreign_cache_fields(marked, "openai").keys() == body.keys()
    engine = ServingEngine(clock=SimClock(), responder=lambda _: Answer("ok"), worst_case_tokenizer=False, seed=0)
    engine.read(CHAT, strip_foreign_cache_fields(marked, "openai"), {}, 0)


def test_the_statistics_never_exceed_their_configured_size():
    statistics, target = PrefixStatistics(max_prefixes=64), ModelRef("anthropic", "claude-sonnet-4-6")
    ability = get_provider("anthropic").cache_capabilities(target.model)
    for at in range(500):
        shape = {"tools": 2, "system": [f"{at}" * 900], "turns": 3, "width": 2, "agent": True, "image": False}
        shape |= {"inside": False, "search": None, "deferred": 0}
        shape |= {"automatic": None, "text": "x" * 3_000, "long": False, "marks": []}
        layout = read_layout(get_provider("anthropic").read_request(claude(shape), "messages"))
        made = plan(layout, ability, PRICES["anthropic"], statistics, now=float(at), target=target)
        statistics.begin(layout, made, now=float(at))
        statistics.observe(layout, target, made, TokenUsage(cache_write_5m=3_000), now=at + 0.5)
    assert len(statistics.records) <= 64
