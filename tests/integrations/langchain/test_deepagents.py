"""deepagents under a budget of the run: its sub-agents spend from it, and all end softly."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool

from llm_cost_middleware.integrations.langchain import CostMiddleware
from llm_cost_middleware.simulator import Answer, ToolCall

pytestmark = [
    pytest.mark.skipif(find_spec("deepagents") is None, reason="brings SDKs of other providers: not among the extras"),
    pytest.mark.usefixtures("forget_connections"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of deepagents, not ours
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CAP = 300


@tool
def look(q: str) -> str:
    """Look something up."""
    return f"{q} found"


def endless(request):
    """The main agent delegates for ever; its sub-agents use their tool for ever."""
    cap, names = min(CAP, request.max_tokens or CAP), {one.name for one in request.tools}
    if "task" in names:
        call = ToolCall("task", {"description": "look", "subagent_type": "researcher"})
        return Answer(tool_calls=(call,), output_tokens=cap)
    return Answer(tool_calls=(ToolCall("look", {"q": "x"}),), output_tokens=cap)


@pytest.mark.parametrize("governed", [False, True], ids=["metered sub-agent", "governed sub-agent"])
@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
async def test_a_deep_agent_ends(later, governed, make_harness, claude, sim):
    harness = make_harness(budgets=[{"scope": "run:*", "limit": "0.2"}], routing={"policy": "off"})
    sim.responder = endless

    def ends():
        return CostMiddleware(harness.pipeline, on_exceeded="end")

    researcher = {"name": "researcher", "description": "looks", "system_prompt": "look", "tools": [look]}
    if governed:
        researcher["middleware"] = [ends()]
    from deepagents import create_deep_agent

    agent = create_deep_agent(model=claude(max_tokens=CAP), tools=[look], subagents=[researcher], middleware=[ends()])
    ask = {"messages": [("user", "find out")]}
    messages = (await agent.ainvoke(ask) if later else agent.invoke(ask))["messages"]
    assert messages[-1].response_metadata["llm_cost"]["ended"] == "budget"
    called = [call["id"] for one in messages if isinstance(one, AIMessage) for call in one.tool_calls]
    assert called == [one.tool_call_id for one in messages if isinstance(one, ToolMessage)]
    (run,) = {scope for row in harness.pipeline.ledger.rows() for scope in row.scopes if scope.startswith("run:")}
    balance = harness.pipeline.ledger.balance(run)
    assert sim.bill.total_nanousd == balance.settled_nanousd <= balance.limit_nanousd
    assert balance.settled_nanousd > balance.limit_nanousd * 0.9
    assert balance.pending == 0
    assert sim.request_count > 10
