"""What a guarded model sends: caps, retries, timeouts, marks; and what it says of its usage."""

from __future__ import annotations

import asyncio
import copy

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool

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


def test_a_cap_that_a_profile_filled_in_is_not_the_callers(house, claude, gpt, sim):
    books = house()
    guard(claude(), books.pipeline, pinned=True).invoke("hi")
    guard(claude(max_tokens=500), books.pipeline, pinned=True).invoke("hi")
    guard(gpt(), books.pipeline, pinned=True).invoke("hi", max_tokens=300)
    reserved = books.books.of(Reserved)
    assert [event.max_tokens_injected for event in reserved] == [True, False, False]
    sent = [exchange.body.get("max_tokens") or exchange.body.get("max_completion_tokens") for exchange in sim.requests]
    assert sent == [event.max_tokens for event in reserved]
    assert sent[0] < 64_000
    assert sent[1:] == [500, 300]


def test_thinking_comes_on_top_of_the_usual_cap_and_shrinks_with_it(house, claude, sim):
    thinker = claude(SONNET, thinking={"type": "enabled", "budget_tokens": 40_000})
    for limit in ("50", "0.2", "0.013"):
        books = house(limit=limit)
        guard(thinker, books.pipeline, pinned=True).invoke("hi")
        books.pipeline.close()
    sent = [(exchange.body["max_tokens"], exchange.body.get("thinking")) for exchange in sim.requests]
    assert sent[0][0] > 40_000
    assert sent[0][1]["budget_tokens"] == 40_000
    assert 1_024 <= sent[1][1]["budget_tokens"] < sent[1][0] < 40_000
    assert sent[2][0] < 1_024
    assert sent[2][1] is None


def test_retries_are_ours_alone(house, claude, gpt, sim):
    books = house(retry={"max_attempts": 3, "fallback": False})
    for plain in (claude(max_retries=5), gpt(max_retries=5)):
        guarded = guard(plain, books.pipeline, pinned=True)
        sim.script(Fault.status(500), times=2)
        guarded.invoke("hi")
        sim.script(Fault.status(529 if plain._llm_type.startswith("anthropic") else 503))
        assert list(guarded.stream("hi"))
        sim.script(Fault.status(400))
        with pytest.raises(Exception, match="400"):
            guarded.invoke("hi")
    assert sim.request_count == 2 * (3 + 2 + 1)
    assert len(books.books.of(Retried)) == 2 * 3
    books.check()


def test_a_failing_provider_is_left_for_the_other(house, claude, sim):
    books = house(retry={"max_attempts": 2})
    sim.script(Fault.overloaded())
    answer = guard(claude(), books.pipeline).invoke("hi")
    assert {exchange.provider for exchange in sim.requests} == {"anthropic", "openai"}
    assert answer.response_metadata["llm_cost"]["attempt"] == 2
    books.check()


def test_ten_event_loops_make_ten_requests(house, claude, gpt, sim):
    books = house()
    for plain in (claude(), gpt(), gpt(use_responses_api=True)):
        before = sim.request_count
        guarded = guard(plain, books.pipeline, pinned=True)
        for _ in range(10):
            asyncio.run(guarded.ainvoke("hi"))
        assert sim.request_count - before == 10
    books.check()


def test_a_model_without_a_timeout_of_its_own_gets_the_configured_one(house, claude, sim):
    books = house(timeout_s=0.3, retry={"max_attempts": 1})
    sim.script(Fault.hang())
    with pytest.raises(Exception, match=r"(?i)timed out"):
        guard(claude(), books.pipeline, pinned=True).invoke("hi")
    books.check(exact=False)


@pytest.mark.parametrize("home", ["claude", "gpt"])
def test_a_shorter_timeout_of_the_user_stays_in_force(home, house, sim, request):
    books = house(timeout_s=20, retry={"max_attempts": 1})
    guarded = guard(request.getfixturevalue(home)(timeout=0.3), books.pipeline)
    for target in (SONNET, GPT):
        sim.script(Fault.hang())
        with pytest.raises(Exception, match=r"(?i)timed out"):
            guarded.invoke("hi", force(target))
    sim.script(Fault.hang())
    with pytest.raises(Exception, match=r"(?i)timed out"):
        guarded.invoke("hi", force(SONNET), timeout=0.2)
    books.check(exact=False)


def test_openai_streams_tell_their_usage_though_langchain_would_not_ask(house, gpt, sim):
    books = house()
    assert gpt().stream_usage is None
    list(guard(gpt(), books.pipeline, pinned=True).stream("hi"))
    books.check()


def test_the_lifetime_of_cache_writes_survives_a_stream(house, claude, sim):
    books = house(cache={"mode": "system", "ttl": "1h"})
    system = SystemMessage("You know everything about the old town of Prague. " * 800)
    guarded = guard(claude(), books.pipeline, pinned=True)
    list(guarded.stream([system, HumanMessage("hi")]))
    (settled,) = books.books.of(Settled)
    assert settled.usage.cache_write_1h > 4_000
    assert type(system.content) is str
    books.check()


def test_marks_are_placed_on_copies_and_foreign_ones_never_leave(house, claude, gpt, sim):
    books = house(cache={"mode": "system"})
    text = "You know everything about the old town of Prague. " * 800
    marked = SystemMessage([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}])
    question = [marked, HumanMessage("hi")]
    before = copy.deepcopy(question)
    guarded = guard(claude(), books.pipeline)
    guarded.bind_tools([weather]).invoke(question, force(SONNET), cache_control={"type": "ephemeral"})
    guarded.bind_tools([weather]).invoke(question, force(MINI), cache_control={"type": "ephemeral"})
    guard(gpt(), books.pipeline).invoke([SystemMessage(text), HumanMessage("hi")], force(SONNET), prompt_cache_key="x")
    guard(gpt(), books.pipeline).invoke([SystemMessage(text), HumanMessage("hi")], force(MINI), prompt_cache_key="x")
    assert question == before
    sent = [exchange.body for exchange in sim.requests]
    assert ["cache_control" in str(body) for body in sent] == [True, False, True, False]
    assert [body.get("prompt_cache_key") for body in sent][2:] == [None, "x"]
    books.check()


def test_a_mark_on_the_tools_stands_on_the_tool_that_was_planned():
    from llm_cost_middleware.integrations.langchain.marks import place_marks
    from llm_cost_middleware.request import BlockRef, CacheBreakpoint, CacheDirectives

    tools = [{"name": "a", "input_schema": {}}, {"type": "mcp_toolset"}, {"name": "b", "input_schema": {}}]
    arguments = {"tools": tools}
    place_marks(CacheDirectives((CacheBreakpoint(BlockRef("tools", 0, 1), "5m"),)), "anthropic", [], arguments)
    assert arguments["tools"] == [*tools[:2], {**tools[2], "cache_control": {"type": "ephemeral"}}]
