"""A budget that ends softly, in every shape of an agent: partial work kept, nothing pending, and the thread goes on."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from llm_cost_middleware import Budget, BudgetExceededError
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.integrations.langchain import CostMiddleware, ends_softly, guard
from llm_cost_middleware.simulator import Answer, ToolCall, auto

pytestmark = pytest.mark.usefixtures("forget_connections")
ASK = {"messages": [("user", "look it up")]}
CONFIG: Any = {"configurable": {"thread_id": "t"}}
ONE, MORE = "0.004", "1"
"""US dollars: for a call or two of those below, and for everything."""
CAP = 400


class Report(BaseModel):
    """A report."""

    city: str


@tool
def look(q: str) -> str:
    """Look something up."""
    return f"{q} found"


@tool
def confirm(q: str) -> str:
    """Ask a human."""
    return interrupt(q)


@pytest.fixture
def endless(sim):
    """A model that calls a tool in every answer, up to its cap."""

    def answer(request):
        if not request.tools:
            return Answer(text="words", output_tokens=CAP)
        name = next(t.name for t in request.tools if t.name in {"look", "confirm", "delegate"})
        return Answer(tool_calls=(ToolCall(name, {"q": "x"}), ToolCall(name, {"q": "y"})), output_tokens=CAP)

    sim.responder = answer
    return sim


def check(harness, messages, *, least=1):
    """The agent ended by a message of ours; every tool call before it has its result; ledger and bill agree."""
    last = messages[-1]
    told = last.response_metadata["llm_cost"]
    assert (type(last), last.tool_calls, told["ended"]) == (AIMessage, [], "budget")
    assert told["spent"] in last.text.replace("$", "") or told["limit"]
    called = [call["id"] for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    answered = [message.tool_call_id for message in messages if isinstance(message, ToolMessage)]
    assert sorted(called) == sorted(answered)
    assert len(called) >= least
    assert harness.pipeline.ledger.balance("global").pending == 0
    assert harness.sim.bill.total_nanousd <= harness.pipeline.ledger.balance("global").limit.scaleb(9)


def agent_of(harness, model, tools=(look,), **more):
    middleware = CostMiddleware(harness.pipeline, on_exceeded="end")
    return create_agent(model, list(tools), middleware=[middleware], checkpointer=InMemorySaver(), **more)


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
async def test_an_agent_with_tools_ends_and_goes_on_after_a_raise(later, make_harness, claude, endless):
    harness = make_harness(limit=ONE, routing={"policy": "off"})
    agent = agent_of(harness, claude(max_tokens=CAP))
    answer = await agent.ainvoke(ASK, CONFIG) if later else agent.invoke(ASK, CONFIG)
    check(harness, answer["messages"])
    state = agent.get_state(CONFIG)
    assert state.next == ()
    assert state.values["messages"] == answer["messages"]
    harness.pipeline.ledger.set_budget(Budget("global", MORE))
    endless.responder = auto
    again = {"messages": [("user", "go on")]}
    answer = await agent.ainvoke(again, CONFIG) if later else agent.invoke(again, CONFIG)
    assert "ended" not in answer["messages"][-1].response_metadata["llm_cost"]


def test_a_plain_agent_ends(make_harness, claude, endless):
    harness = make_harness(limit="0.000001", routing={"policy": "off"})
    check(harness, agent_of(harness, claude(), ()).invoke(ASK, CONFIG)["messages"], least=0)
    assert endless.request_count == 0


@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
@pytest.mark.parametrize("tools", [[], [look]], ids=["no tools", "tools"])
def test_structured_output_ends_as_at_a_limit_of_langchain(strategy, tools, make_harness, claude, endless):
    harness = make_harness(limit="0.02" if tools else "0.000001", routing={"policy": "off"})
    agent = agent_of(harness, claude("claude-sonnet-4-6", max_tokens=CAP), tools, response_format=strategy(Report))
    answer = agent.invoke(ASK, CONFIG)
    check(harness, answer["messages"], least=len(tools))
    assert answer.get("structured_response") is None


@pytest.mark.parametrize("mode", ["values", "updates", "messages", "custom", "debug", "checkpoints", "tasks"])
def test_every_stream_mode_ends(mode, make_harness, claude, endless):
    harness = make_harness(limit=ONE, routing={"policy": "off"})
    agent = agent_of(harness, claude(max_tokens=CAP))
    seen = list(agent.stream(ASK, CONFIG, stream_mode=mode))
    check(harness, agent.get_state(CONFIG).values["messages"])
    if mode == "messages":
        assert any("stopped here" in chunk.text for chunk, _ in seen)


def test_an_interrupted_agent_ends_after_its_resume(make_harness, claude, endless):
    harness = make_harness(limit=ONE, routing={"policy": "off"})
    agent = agent_of(harness, claude(max_tokens=CAP), [confirm])
    answer = agent.invoke(ASK, CONFIG)
    for _ in range(20):
        if "__interrupt__" not in answer:
            break
        waiting = {one.id: "yes" for one in answer["__interrupt__"]}
        answer = agent.invoke(Command(resume=waiting), CONFIG)
    check(harness, answer["messages"])


def test_money_that_ends_inside_a_tool_is_the_result_of_its_call(make_harness, claude, endless):
    harness = make_harness(limit=ONE, routing={"policy": "off"})
    inner = guard(claude(max_tokens=CAP), harness.pipeline)

    @tool
    def delegate(q: str) -> str:
        """Ask a model, again and again."""
        return "".join(inner.invoke(q).text for _ in range(50))

    messages = agent_of(harness, claude(max_tokens=CAP), [delegate]).invoke(ASK, CONFIG)["messages"]
    check(harness, messages)
    assert {message.status for message in messages if isinstance(message, ToolMessage)} == {"error"}


def test_a_sub_graph_and_its_parent_end(make_harness, claude, endless):
    harness = make_harness(limit=ONE, routing={"policy": "off"})
    middleware = CostMiddleware(harness.pipeline, on_exceeded="end")
    inner = create_agent(claude(max_tokens=CAP), [look], middleware=[middleware], name="inner")

    @tool
    def delegate(q: str) -> str:
        """Let an agent do it."""
        return inner.invoke({"messages": [("user", q)]})["messages"][-1].text

    messages = agent_of(harness, claude(max_tokens=CAP), [delegate], name="outer").invoke(ASK, CONFIG)["messages"]
    check(harness, messages)
    assert "stopped here" in next(message for message in messages if isinstance(message, ToolMessage)).text
    graph = StateGraph(MessagesState).add_node("agent", inner).add_edge(START, "agent").compile()
    check(harness, graph.invoke(ASK)["messages"], least=0)


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
async def test_a_hand_made_node_ends(later, make_harness, claude, endless):
    harness = make_harness(limit=ONE, routing={"policy": "off"})
    model = guard(claude(max_tokens=CAP), harness.pipeline).bind_tools([look])

    @ends_softly
    def call(state):
        return {"messages": [model.invoke(state["messages"])]}

    @ends_softly(on_exceeded=lambda refusal, state: f"{len(state['messages'])} messages, {refusal.scope}")
    async def acall(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("model", acall if later else call).add_node("tools", ToolNode([look]))
    graph.add_edge(START, "model").add_conditional_edges("model", tools_condition).add_edge("tools", "model")
    compiled = graph.compile(checkpointer=InMemorySaver())
    answer = await compiled.ainvoke(ASK, CONFIG) if later else compiled.invoke(ASK, CONFIG)
    check(harness, answer["messages"])
    assert (answer["messages"][-1].text == f"{len(answer['messages']) - 1} messages, global") == later


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
async def test_a_function_decides(later, make_harness, claude, sim):
    asked = []

    def decide(refusal, state):
        asked.append((refusal.scope, len(state["messages"])))
        return None if len(asked) > 1 else AIMessage("enough")

    async def adecide(refusal, state):
        return decide(refusal, state)

    harness = make_harness(limit="0.000001", routing={"policy": "off"})
    middleware = CostMiddleware(harness.pipeline, on_exceeded=adecide if later else decide)
    agent = create_agent(claude(), [look], middleware=[middleware])
    answer = await agent.ainvoke(ASK) if later else agent.invoke(ASK)
    assert answer["messages"][-1].text == "enough"
    with pytest.raises(BudgetExceededError):
        await agent.ainvoke(ASK) if later else agent.invoke(ASK)
    assert asked == [("global", 1)] * 2
    assert sim.request_count == 0


def test_what_cannot_be_meant_is_refused(make_harness, claude):
    pipeline = make_harness(limit="0.000001", routing={"policy": "off"}).pipeline
    with pytest.raises(ConfigurationError, match="on_exceeded"):
        CostMiddleware(pipeline, on_exceeded="stop")
    agent = create_agent(claude(), [], middleware=[CostMiddleware(pipeline, on_exceeded=lambda *_: 1)])
    with pytest.raises(ConfigurationError, match="AIMessage"):
        agent.invoke(ASK)


def test_what_is_missing_is_what_the_call_needs_that_would_be_sent(make_harness, claude, endless):
    """Not what an answer of any length would: the output is capped before a call is refused."""
    harness = make_harness(limit="0.000001", routing={"policy": "off"})
    told = agent_of(harness, claude(max_tokens=60_000), ()).invoke(ASK, CONFIG)["messages"][-1]
    missing = Decimal(told.response_metadata["llm_cost"]["missing"])
    harness.pipeline.ledger.set_budget(Budget("global", Decimal("0.000001") + missing))
    again = agent_of(harness, claude(max_tokens=60_000), ()).invoke(ASK, CONFIG)["messages"][-1]
    assert "ended" not in again.response_metadata["llm_cost"], "with what was missing it is sent"
    assert missing < Decimal("0.01")
