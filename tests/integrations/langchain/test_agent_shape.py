"""``CostMiddleware`` changes what an agent spends, not what it is: its nodes, its errors; and its tools are heard."""

from __future__ import annotations

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from llm_cost_middleware.integrations.langchain import CostMiddleware
from llm_cost_middleware.simulator import Answer, ToolCall, auto

pytestmark = pytest.mark.usefixtures("forget_connections")
ASK = {"messages": [("user", "What is the weather in Rome?")]}


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@pytest.mark.parametrize("tools", [[], [weather]], ids=["without tools", "with tools"])
def test_an_agent_keeps_its_nodes(make_harness, claude, tools):
    """One without tools stays one."""
    bare = create_agent(claude(), tools)
    governed = create_agent(claude(), tools, middleware=[CostMiddleware(make_harness().pipeline)])
    assert set(governed.get_graph().nodes) == set(bare.get_graph().nodes)


def test_a_tool_without_a_handler_stays_langchains_error(make_harness, claude, sim):
    class AddsTool(AgentMiddleware):
        def wrap_model_call(self, request, handler):
            return handler(request.override(tools=[weather]))

    agent = create_agent(claude(), [], middleware=[AddsTool(), CostMiddleware(make_harness().pipeline)])
    with pytest.raises(ValueError, match="weather"):
        agent.invoke(ASK)
    assert sim.request_count == 0


def asking(sim):
    """A provider whose first answer to the agent calls the tool."""

    def answer(request):
        asks = "weather" in str(request.body.get("tools")) and not request.answers_tools
        return Answer(tool_calls=(ToolCall("ask", {"city": "weather"}),)) if asks else auto(request)

    sim.responder = answer


def asks_a_model(model):
    @tool
    def ask(city: str) -> str:
        """The weather in a city, from a model that nobody guards."""
        return model.invoke([HumanMessage(city)]).text

    return ask


@pytest.mark.parametrize("resumed", [False, True], ids=["at once", "resumed in the middle of a turn"])
def test_a_model_inside_a_tool_is_metered(make_harness, claude, sim, resumed):
    """Also where a run begins with the tool, because somebody had to agree first."""
    harness = make_harness()
    asking(sim)
    middleware = [CostMiddleware(harness.pipeline)]
    if resumed:
        middleware.append(HumanInTheLoopMiddleware(interrupt_on={"ask": True}))
    agent = create_agent(
        claude(), [asks_a_model(claude())], middleware=middleware, checkpointer=InMemorySaver() if resumed else None
    )
    config = {"configurable": {"thread_id": "t-1"}}
    agent.invoke(ASK, config)
    if resumed:
        assert sim.request_count == 1
        agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert sim.request_count == 3
    harness.check()


def test_the_tools_of_an_agent_that_nobody_governs_are_left_alone(make_harness, claude, sim):
    harness = make_harness()
    asking(sim)
    governed = create_agent(claude(), [weather], middleware=[CostMiddleware(harness.pipeline)])
    governed.invoke(ASK)
    booked = len(harness.pipeline.records())
    create_agent(claude(), [asks_a_model(claude())]).invoke(ASK)
    assert len(harness.pipeline.records()) == booked
