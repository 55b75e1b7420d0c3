"""What a guarded model sends: caps, retries, timeouts, marks; and what it says of its usage."""

from __future__ import annotations

import asyncio
import copy

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.events import Reserved, Retried, Settled
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.simulator import Fault

SONNET, MINI, GPT = "claude-sonnet-4-6", "gpt-5-mini", "gpt-5.1"


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def force(model, **more):
    return {"metadata": {"llm_cost": {"force_model": model, **more}}}


def test_a_cap_that_a_profile_filled_in_is_not_the_callers(make_harness, claude, gpt, sim):
    harness = make_harness()
    guard(claude(), harness.pipeline, pinned=True).invoke("hi")
    guard(claude(max_tokens=500), harness.pipeline, pinned=True).invoke("hi")
    guard(gpt(), harness.pipeline, pinned=True).invoke("hi", max_tokens=300)
    reserved = harness.observer.of(Reserved)
    assert [event.max_tokens_injected for event in reserved] == [True, False, False]
    sent = [exchange.body.get("max_tokens") or exchange.body.get("max_completion_tokens") for exchange in sim.requests]
    assert sent == [event.max_tokens for event in reserved]
    assert sent[0] < 64_000
    assert sent[1:] == [500, 300]


def test_thinking_comes_on_top_of_the_usual_cap_and_shrinks_with_it(make_harness, claude, sim):
    thinker = claude(SONNET, thinking={"type": "enabled", "budget_tokens": 40_000})
    for limit in ("50", "0.2"):
        harness = make_harness(limit=limit)
        guard(thinker, harness.pipeline, pinned=True).invoke("hi")
        harness.pipeline.close()
    with pytest.raises(BudgetExceededError):  # too little to think and to answer
        guard(thinker, make_harness(limit="0.013").pipeline, pinned=True).invoke("hi")
    asked = [exchange.body for exchange in sim.requests if not exchange.path.endswith("count_tokens")]
    sent = [(body["max_tokens"], body.get("thinking")) for body in asked]
    assert sent[0][0] > 40_000
    assert sent[0][1]["budget_tokens"] == 40_000
    assert 1_024 <= sent[1][1]["budget_tokens"] < sent[1][0] < 40_000
    assert len(sent) == 2


def test_only_the_pipeline_retries(make_harness, claude, gpt, sim):
    harness = make_harness(retry={"max_attempts": 3, "fallback": False})
    for plain in (claude(max_retries=5), gpt(max_retries=5)):
        guarded = guard(plain, harness.pipeline, pinned=True)
        sim.script(Fault.status(500), times=2)
        guarded.invoke("hi")
        sim.script(Fault.status(529 if plain._llm_type.startswith("anthropic") else 503))
        assert list(guarded.stream("hi"))
        sim.script(Fault.status(400))
        with pytest.raises(Exception, match="400"):
            guarded.invoke("hi")
    assert sim.request_count == 2 * (3 + 2 + 1)
    assert len(harness.observer.of(Retried)) == 2 * 3
    harness.check()


def test_calls_fall_back_from_a_failing_provider_to_the_other(make_harness, claude, sim):
    harness = make_harness(retry={"max_attempts": 2})
    sim.script(Fault.overloaded())
    answer = guard(claude(), harness.pipeline).invoke("hi")
    assert {exchange.provider for exchange in sim.requests} == {"anthropic", "openai"}
    assert answer.response_metadata["llm_cost"]["attempt"] == 2
    harness.check()


def test_ten_event_loops_make_ten_requests(make_harness, claude, gpt, sim):
    harness = make_harness()
    for plain in (claude(), gpt(), gpt(use_responses_api=True)):
        before = sim.request_count
        guarded = guard(plain, harness.pipeline, pinned=True)
        for _ in range(10):
            asyncio.run(guarded.ainvoke("hi"))
        assert sim.request_count - before == 10
    harness.check()


def test_a_model_without_a_timeout_of_its_own_gets_the_configured_one(make_harness, claude, sim):
    harness = make_harness(timeout_s=0.3, retry={"max_attempts": 1})
    sim.script(Fault.hang())
    with pytest.raises(Exception, match=r"(?i)timed out"):
        guard(claude(), harness.pipeline, pinned=True).invoke("hi")
    harness.check(exact=False)


@pytest.mark.parametrize("home", ["claude", "gpt"])
def test_a_shorter_timeout_of_the_user_stays_in_force(home, make_harness, sim, request):
    harness = make_harness(timeout_s=20, retry={"max_attempts": 1})
    guarded = guard(request.getfixturevalue(home)(timeout=0.3), harness.pipeline)
    for target in (SONNET, GPT):
        sim.script(Fault.hang())
        with pytest.raises(Exception, match=r"(?i)timed out"):
            guarded.invoke("hi", force(target))
    sim.script(Fault.hang())
    with pytest.raises(Exception, match=r"(?i)timed out"):
        guarded.invoke("hi", force(SONNET), timeout=0.2)
    harness.check(exact=False)


def test_openai_streams_report_their_usage_though_langchain_does_not_ask_for_it(make_harness, gpt, sim):
    harness = make_harness()
    assert gpt().stream_usage is None
    list(guard(gpt(), harness.pipeline, pinned=True).stream("hi"))
    harness.check()


def test_the_lifetime_of_cache_writes_survives_a_stream(make_harness, claude, sim):
    harness = make_harness(cache={"mode": "system", "ttl": "1h"})
    system = SystemMessage("You know everything about the old town of Prague. " * 800)
    guarded = guard(claude(), harness.pipeline, pinned=True)
    list(guarded.stream([system, HumanMessage("hi")]))
    (settled,) = harness.observer.of(Settled)
    assert settled.usage.cache_write_1h > 4_000
    assert type(system.content) is str
    harness.check()


def test_marks_are_placed_on_copies_and_foreign_ones_never_leave(make_harness, claude, gpt, sim):
    harness = make_harness(cache={"mode": "system"})
    text = "You know everything about the old town of Prague. " * 800
    marked = SystemMessage([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}])
    question = [marked, HumanMessage("hi")]
    before = copy.deepcopy(question)
    guarded = guard(claude(), harness.pipeline)
    guarded.bind_tools([weather]).invoke(question, force(SONNET), cache_control={"type": "ephemeral"})
    guarded.bind_tools([weather]).invoke(question, force(MINI), cache_control={"type": "ephemeral"})
    guard(gpt(), harness.pipeline).invoke(
        [SystemMessage(text), HumanMessage("hi")], force(SONNET), prompt_cache_key="x"
    )
    guard(gpt(), harness.pipeline).invoke([SystemMessage(text), HumanMessage("hi")], force(MINI), prompt_cache_key="x")
    assert question == before
    sent = [exchange.body for exchange in sim.requests]
    assert ["cache_control" in str(body) for body in sent] == [True, False, True, False]
    assert [body.get("prompt_cache_key") for body in sent][2:] == [None, "x"]
    harness.check()


def test_a_mark_on_the_tools_stands_on_the_tool_that_was_planned():
    from llm_cost_middleware.integrations.langchain.marks import place_marks
    from llm_cost_middleware.request import BlockRef, CacheBreakpoint, CacheDirectives

    tools = [{"name": "a", "input_schema": {}}, {"type": "mcp_toolset"}, {"name": "b", "input_schema": {}}]
    arguments = {"tools": tools}
    place_marks(CacheDirectives((CacheBreakpoint(BlockRef("tools", 0, 2), "5m"),)), "anthropic", [], arguments)
    assert arguments["tools"] == [*tools[:2], {**tools[2], "cache_control": {"type": "ephemeral"}}]
