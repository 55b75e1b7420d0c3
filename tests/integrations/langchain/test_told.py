"""What messages say of their money, live and afterwards; and agents that run away."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

from llm_cost_middleware import cost_context
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.events import RunawaySuspected
from llm_cost_middleware.integrations.langchain import CostMiddleware, guard
from llm_cost_middleware.integrations.langchain.runaway import sign_of_runaway
from llm_cost_middleware.simulator import Answer, ToolCall

pytestmark = pytest.mark.usefixtures("forget_connections")
ASK = {"messages": [("user", "look it up")]}
RUNS = [{"scope": "run:*", "limit": "0.5"}]


@tool
def look(q: str) -> str:
    """Look something up."""
    return f"{q} found"


def told(message):
    return message.response_metadata["llm_cost"]


@pytest.mark.parametrize("maker", ["claude", "gpt"])
@pytest.mark.parametrize("streams", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
async def test_an_answer_says_its_cost_its_call_and_what_its_run_has_left(maker, streams, later, make_harness, request):
    harness = make_harness(budgets=RUNS)
    model = guard(request.getfixturevalue(maker)(), harness.pipeline)
    with cost_context(run="r"):
        if streams and later:
            chunks = [chunk async for chunk in model.astream("hi")]
        elif streams:
            chunks = list(model.stream("hi"))
        else:
            chunks = [await model.ainvoke("hi") if later else model.invoke("hi")]
    message = chunks[0]
    for chunk in chunks[1:]:
        message += chunk
    (record,) = harness.pipeline.records()
    facts = told(message)
    assert (facts["call_id"], Decimal(facts["cost"])) == (record.call_id, record.cost_usd)
    assert Decimal(facts["run_left"]) == Decimal("0.5") - record.cost_usd
    assert message.usage_metadata["output_tokens"] == record.output_tokens
    json.dumps(message.response_metadata)
    harness.check()


def test_without_a_limit_of_runs_nothing_is_left_to_tell(make_harness, claude):
    harness = make_harness()
    assert "run_left" not in told(guard(claude(), harness.pipeline).invoke("hi"))


def test_custom_streams_show_the_money_live(make_harness, claude, sim):
    harness = make_harness(budgets=RUNS)
    agent = create_agent(claude(), [look], middleware=[CostMiddleware(harness.pipeline)])
    seen = list(agent.stream(ASK, stream_mode="custom"))
    assert [Decimal(one["llm_cost"]["cost"]) for one in seen] == [one.cost_usd for one in harness.pipeline.records()]
    left = [Decimal(one["llm_cost"]["run_left"]) for one in seen]
    assert len(left) == sim.request_count == 2
    assert left[0] > left[1]
    both = [mode for mode, _ in agent.stream(ASK, stream_mode=["messages", "custom"])]
    assert both.count("custom") == 2


@pytest.mark.parametrize("how", ["warn", "end"])
def test_an_agent_that_repeats_itself_is_told_of_or_ended(how, make_harness, claude, sim):
    harness = make_harness()
    answers = iter([Answer(tool_calls=(ToolCall("look", {"q": "x"}),))] * 5 + [Answer(text="done")])
    sim.responder = lambda _: next(answers)
    agent = create_agent(claude(), [look], middleware=[CostMiddleware(harness.pipeline, on_runaway=how, repeats=3)])
    messages = agent.invoke(ASK)["messages"]
    events = harness.observer.of(RunawaySuspected)
    assert sim.request_count == (3 if how == "end" else 6)
    assert len(events) == (1 if how == "end" else 3)
    assert (events[0].enforced, events[0].scope[:4]) == (how == "end", "run:")
    assert (told(messages[-1]).get("ended") == "runaway") == (how == "end")


def steps(costs, args=None):
    return [
        HumanMessage("go"),
        *(
            AIMessage(
                "",
                tool_calls=[{"name": "look", "args": args or {"q": n}, "id": str(n)}],
                response_metadata={"llm_cost": {"cost": cost}},
            )
            for n, cost in enumerate(costs)
        ),
    ]


def test_signs_of_a_runaway():
    same = {"q": 1, "r": [2]}
    assert "look 3 times" in sign_of_runaway(steps(["1"] * 3, same), 3)
    assert sign_of_runaway(steps(["1"] * 2, same), 3) is None
    assert sign_of_runaway([*steps(["1"] * 2, same), HumanMessage("again"), *steps(["1"], same)[1:]], 3) is None
    assert "last 6 steps" in sign_of_runaway(steps(["0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]), 3)
    assert sign_of_runaway(steps(["0.1", "0.11", "0.12", "0.13", "0.14", "0.15"]), 3) is None  # a context that grows
    assert sign_of_runaway(steps(["0.1", "0.2", "0.3", "0.2", "0.5", "0.6"]), 3) is None
    assert sign_of_runaway([], 3) is None
    assert sign_of_runaway([AIMessage("no money known")] * 9, 3) is None


@pytest.mark.parametrize("wrong", [{"on_runaway": "stop"}, {"on_runaway": "end", "repeats": 1}, {"repeats": True}])
def test_what_cannot_be_meant_is_refused(wrong, make_harness):
    with pytest.raises(ConfigurationError):
        CostMiddleware(make_harness().pipeline, **wrong)
