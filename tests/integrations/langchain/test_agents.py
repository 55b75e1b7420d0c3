"""Agents: one row for each request that the server saw, whatever stands between the agent and its model."""

from __future__ import annotations

import itertools
import json

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel
from recorded_agents import recorded, replayed

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.events import Retried
from llm_cost_middleware.integrations.langchain import CostCallbackHandler, CostMiddleware, guard
from llm_cost_middleware.simulator import Answer, Fault, ToolCall, auto

HAIKU, SONNET, MINI, GPT = "claude-haiku-4-5-20251001", "claude-sonnet-4-6", "gpt-5-mini", "gpt-5.1"
ASK = {"messages": [("user", "What is the weather in Rome?")]}
LONG = "You are a careful assistant for travellers, and you know every town. " * 700

pytestmark = pytest.mark.usefixtures("forget_connections")  # unguarded models run on loops that are gone


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


class Forecast(BaseModel):
    """A forecast."""

    city: str
    sky: str


async def ask(agent, question=ASK, config=None, *, later=False):
    return await agent.ainvoke(question, config) if later else agent.invoke(question, config)


LATER = pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
GOVERNED = pytest.mark.parametrize("how", ["middleware", "guarded model"])


def build(how, model, pipeline, tools=(weather,), middleware=(), **more):
    if how == "middleware":
        return create_agent(model, list(tools), middleware=[CostMiddleware(pipeline), *middleware], **more)
    return create_agent(guard(model, pipeline), list(tools), middleware=list(middleware), **more)


@LATER
@GOVERNED
@pytest.mark.parametrize("home", ["claude", "gpt"])
async def test_every_request_of_an_agent_is_a_row(home, how, later, make_harness, sim, request):
    harness = make_harness()
    agent = build(how, request.getfixturevalue(home)(), harness.pipeline)
    answer = await ask(agent, later=later)
    assert [message.type for message in answer["messages"]] == ["human", "ai", "tool", "ai"]
    assert sim.request_count == 2
    harness.check()


@LATER
async def test_a_model_inside_a_tool_and_a_summary_are_rows_as_well(later, make_harness, claude, gpt, sim):
    harness = make_harness()
    inner = gpt()

    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return inner.invoke(f"What is the weather in {city}?").text

    summarise = SummarizationMiddleware(gpt(), trigger=("messages", 3), keep=("messages", 1))
    agent = build("middleware", claude(), harness.pipeline, [weather], [summarise])
    handler = CostCallbackHandler(harness.pipeline)
    await ask(agent, config={"callbacks": [handler]}, later=later)
    assert sim.request_count == 4  # call, model in the tool, summary, call
    assert len({record.call_id for record in harness.pipeline.records()}) == 4
    harness.check()


@LATER
async def test_a_guarded_summariser_needs_no_handler(later, make_harness, claude, gpt, sim):
    harness = make_harness()
    summarise = SummarizationMiddleware(guard(gpt(), harness.pipeline), trigger=("messages", 3), keep=("messages", 1))
    await ask(build("middleware", claude(), harness.pipeline, middleware=[summarise]), later=later)
    assert sim.request_count == 3
    harness.check()


@LATER
@pytest.mark.parametrize("order", list(itertools.permutations(["cost", "cache", "retry", "fallback"])), ids="-".join)
async def test_any_order_of_middlewares_works_and_nothing_foreign_is_sent(order, later, make_harness, claude, gpt, sim):
    harness = make_harness(retry={"max_attempts": 1})
    made = {
        "cost": CostMiddleware(harness.pipeline),
        "cache": AnthropicPromptCachingMiddleware(min_messages_to_cache=0),
        "retry": ModelRetryMiddleware(max_retries=1, initial_delay=0.0),
        "fallback": ModelFallbackMiddleware(gpt()),
    }
    agent = create_agent(claude(), [weather], middleware=[made[name] for name in order], system_prompt=LONG)
    sim.script(Fault.status(500))
    answer = await ask(agent, later=later)
    assert answer["messages"][-1].text
    for exchange in sim.requests:
        assert ("cache_control" in json.dumps(exchange.body)) <= (exchange.provider == "anthropic")
    harness.check()


async def test_the_route_stays_within_a_task(make_harness, claude, sim):
    harness = make_harness(
        tiers=[{"name": "s", "models": [f"anthropic/{HAIKU}"]}, {"name": "l", "models": [f"anthropic/{SONNET}"]}]
    )

    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"sunny in {city}, " * 1_000  # the next call is beyond the threshold

    agent = create_agent(
        claude(),
        [weather],
        middleware=[CostMiddleware(harness.pipeline)],
        system_prompt=LONG,
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "7"}}
    for _ in range(3):
        await ask(agent, config=config)
    models = [exchange.body["model"] for exchange in sim.requests]
    assert len(models) == 6
    assert len(list(itertools.groupby(models))) <= 2  # it may grow once, and never goes back and forth
    harness.check()


@GOVERNED
async def test_a_retry_does_not_stream_a_text_twice(how, make_harness, claude, sim):
    harness = make_harness(retry={"max_attempts": 3, "fallback": False})
    sim.responder = lambda _: Answer(text="one two three four five six seven eight nine ten eleven twelve")
    agent = build(how, claude(), harness.pipeline)
    sim.script(Fault.status(529), match=lambda exchange: True)
    tokens = [chunk for chunk, _ in agent.stream(ASK, stream_mode="messages") if isinstance(chunk, AIMessage)]
    assert "".join(token.text for token in tokens) == sim.responder(None).text
    assert len(harness.observer.of(Retried)) == 1
    harness.check()


@GOVERNED
@pytest.mark.parametrize("target", [SONNET, GPT])
async def test_structured_answers_work_wherever_they_are_routed(how, target, make_harness, claude, sim):
    harness = make_harness()
    agent = build(how, claude(SONNET), harness.pipeline, [], response_format=Forecast)
    answer = agent.invoke(ASK, {"metadata": {"llm_cost": {"force_model": target}}})
    assert isinstance(answer["structured_response"], Forecast)
    assert {exchange.body["model"] for exchange in sim.requests} == {target}
    harness.check()


@LATER
@pytest.mark.parametrize("order", ["outside", "inside"])
async def test_a_refused_budget_is_not_retried_and_is_no_answer(order, later, make_harness, claude, sim):
    harness = make_harness(limit="0.000001")
    retry, cost = ModelRetryMiddleware(max_retries=3, initial_delay=0.0), CostMiddleware(harness.pipeline)
    agent = create_agent(claude(), [weather], middleware=[retry, cost] if order == "outside" else [cost, retry])
    with pytest.raises(BudgetExceededError):
        await ask(agent, later=later)
    assert sim.request_count == 0
    assert len(harness.observer.events) == 2  # routed once, refused once


@LATER
async def test_fallbacks_are_refused_in_turn(later, make_harness, claude, gpt, sim):
    harness = make_harness(limit="0.000001")
    agent = create_agent(
        claude(), [], middleware=[ModelFallbackMiddleware(gpt(), claude()), CostMiddleware(harness.pipeline)]
    )
    with pytest.raises(BudgetExceededError):
        await ask(agent, later=later)
    assert sim.request_count == 0


async def test_scopes_reach_the_calls_of_an_agent(make_harness, claude):
    harness = make_harness(budgets=[{"scope": "user:42", "limit": "1"}])
    agent = build("middleware", claude(), harness.pipeline)
    await ask(agent, config={"metadata": {"llm_cost": {"user": "42"}}})
    assert harness.pipeline.ledger.balance("user:42").settled == harness.pipeline.tracker.total_cost > 0


def test_thoughts_and_calls_of_one_model_do_not_reach_another_that_cannot_take_them(make_harness, claude, sim):
    harness = make_harness()
    thinker = claude(SONNET, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=4000)
    sim.responder = lambda request: (
        Answer(thinking="hm, hm", tool_calls=(ToolCall("weather", {"city": "Rome"}),))
        if not request.answers_tools
        else auto(request)
    )
    agent = build("middleware", thinker, harness.pipeline)
    history = agent.invoke(ASK, {"metadata": {"llm_cost": {"force_model": SONNET}}})["messages"]
    assert "thinking" in str(history[1].content)
    sim.responder = auto
    agent.invoke(
        {"messages": [*history, HumanMessage("And tomorrow?")]}, {"metadata": {"llm_cost": {"force_model": MINI}}}
    )
    sent = sim.requests[-2].body
    assert sent["model"] == MINI
    assert "hm, hm" not in json.dumps(sent)
    assert [m["role"] for m in sent["messages"]] == ["user", "assistant", "tool", "assistant", "user"]
    harness.check()


def test_a_change_of_model_inside_a_tool_loop_is_survived_with_thinking_on(make_harness, claude, sim):
    harness = make_harness()
    thinker = claude(SONNET, thinking={"type": "enabled", "budget_tokens": 2048})
    sim.responder = lambda request: (
        Answer(thinking="hm, hm", tool_calls=(ToolCall("weather", {"city": "Rome"}),))
        if not request.answers_tools
        else auto(request)
    )
    bound = guard(thinker, harness.pipeline).bind_tools([weather])
    for first, then in ((GPT, SONNET), (SONNET, HAIKU), (SONNET, SONNET)):
        asked = bound.invoke("Weather in Rome?", {"metadata": {"llm_cost": {"force_model": first}}})
        result = ToolMessage("sunny", tool_call_id=asked.tool_calls[0]["id"])
        history = [HumanMessage("Weather in Rome?"), asked, result]
        assert bound.invoke(history, {"metadata": {"llm_cost": {"force_model": then}}}).text
    after = [exchange.body for exchange in sim.requests][1::2]
    assert [body.get("thinking") is None for body in after] == [True, True, False]
    assert ["hm, hm" in json.dumps(body) for body in after] == [False, False, True]
    harness.check()


# --- recorded conversations ------------------------------------------------------------------------------------------


@pytest.mark.data
@GOVERNED
@pytest.mark.parametrize("home", ["claude", "gpt"])
def test_recorded_airline_conversations_are_answered_end_to_end(
    home, how, make_harness, sim, soak, data_folder, request
):
    from llm_cost_middleware.simulator import Replay

    conversations, schemas = recorded(data_folder, 120 if soak else 6)
    sim.responder = replay = Replay(conversations)
    harness = make_harness(limit="200")
    calls = beyond = 0
    for number, conversation in enumerate(conversations):
        messages = conversation["messages"]
        expected = [message.get("content") or "" for message in messages if message["role"] == "assistant"]
        results = [message["content"] for message in messages if message["role"] == "tool"]
        agent = build(
            how, request.getfixturevalue(home)(default_headers={"x-sim-conversation": str(number)}), harness.pipeline,
            replayed(schemas, results), system_prompt=messages[0]["content"],
        )  # fmt: skip
        said = [message["content"] for message in messages if message["role"] == "user"]
        answers, state = [], {"messages": []}
        while len(answers) < len(expected):
            state = agent.invoke({"messages": [*state["messages"], HumanMessage(said.pop(0))]})
            answers = [message.text for message in state["messages"] if isinstance(message, AIMessage)]
        assert answers[: len(expected)] == expected
        assert results == []
        # a recording may end in a hand-over: the agent then speaks once more, to nobody
        beyond += len(answers) - len(expected)
        assert len(answers) - len(expected) <= (messages[-1]["role"] == "tool")
        calls += len(answers)
    assert replay.misses == beyond
    assert sim.request_count == calls
    harness.check()
