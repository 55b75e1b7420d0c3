"""What a run starts is booked under it: by LangGraph's runtime and LangChain's config, in every host, over a resume."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Barrier

import anthropic
import openai
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt

from llm_cost_middleware import BudgetExceededError, cost_context
from llm_cost_middleware.context import current_context, export
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.langchain import CostMiddleware, cost_tracking, guard, instrument
from llm_cost_middleware.integrations.langchain.run_scopes import Runs, runs
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer, ToolCall, auto

pytestmark = pytest.mark.usefixtures("forget_connections")
HAIKU, MINI = "claude-haiku-4-5-20251001", "gpt-5-mini"
ASK = {"messages": [("user", "ask them")]}
THREAD = {"configurable": {"thread_id": "T/1"}}


def by_kind(pipeline, kind):
    """Every name of a kind that was booked, with the rows it has."""
    found = {}
    for row in pipeline.ledger.rows():
        if row.kind == "settle":
            for scope in row.scopes:
                if scope.startswith(f"{kind}:"):
                    found[scope] = found.get(scope, 0) + 1
    return found


@tool
def ask(q: str) -> str:
    """Ask somebody."""
    return q


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
async def test_sub_agents_and_wrapped_sdks_inside_tools_spend_from_the_run_of_the_root(
    later, make_harness, claude, sim
):
    pipeline = make_harness().pipeline
    expert = create_agent(claude(), [], middleware=[CostMiddleware(pipeline)], name="expert")
    sdk = wrap_openai(openai.OpenAI(api_key="k", base_url=sim.openai_url), pipeline)
    plain = wrap_anthropic(anthropic.Anthropic(api_key="k", base_url=sim.anthropic_url), pipeline)

    @tool
    def ask(q: str) -> str:
        """Ask an expert and two SDKs."""
        sdk.chat.completions.create(model=MINI, messages=[{"role": "user", "content": "hi"}])
        hi = {"model": HAIKU, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        # a bare thread inherits nothing
        worker = threading.Thread(target=copy_context().run, args=(plain.messages.create,), kwargs=hi)
        worker.start()
        worker.join()
        return expert.invoke({"messages": [("user", q)]})["messages"][-1].text

    root = create_agent(claude(), [ask], middleware=[CostMiddleware(pipeline)], name="root")
    for _ in range(2):
        await root.ainvoke(ASK, THREAD) if later else root.invoke(ASK, THREAD)
    assert sorted(by_kind(pipeline, "run").values()) == [5, 5]  # two calls of the root, one of each tool's
    assert by_kind(pipeline, "thread") == {"thread:T/1": 10}
    assert by_kind(pipeline, "agent") == {"agent:root": 8, "agent:expert": 2}


def test_a_budget_of_every_run_refuses_in_a_sub_agent_what_the_root_has_spent(make_harness, claude, sim):
    pipeline = make_harness(budgets=[{"scope": "run:*", "limit": "0.000001"}]).pipeline
    root = create_agent(claude(), [ask], middleware=[CostMiddleware(pipeline)], name="root")
    with pytest.raises(BudgetExceededError) as refused:
        root.invoke(ASK)
    assert refused.value.scope.startswith("run:")
    assert sim.request_count == 0


def test_parallel_branches_and_guarded_nodes_of_a_graph_share_its_run(make_harness, claude):
    pipeline = make_harness().pipeline
    model = guard(claude(), pipeline)

    def fan(_):
        return [Send("branch", {"messages": [("user", f"part {number}")]}) for number in range(4)]

    def branch(state):
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("branch", branch).add_edge("branch", END)
    compiled = graph.add_conditional_edges(START, fan, ["branch"]).compile()
    for _ in range(2):
        compiled.invoke({"messages": []})
    assert sorted(by_kind(pipeline, "run").values()) == [4, 4]
    assert not by_kind(pipeline, "thread")


def test_branches_that_come_at_the_same_moment_get_one_run():
    class Runtime:
        def __init__(self):
            self.control, self.execution_info = object(), None

    found = Runs()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(200):
            runtime, start = Runtime(), Barrier(8)
            names = list(pool.map(lambda _, r=runtime, s=start: (s.wait(), found.of(r))[1], range(8)))
            assert len(set(names)) == 1


def asking_a_human(claude, pipeline, saver):
    @tool
    def ask(q: str) -> str:
        """Ask a human."""
        return interrupt(q)

    return create_agent(claude(), [ask], middleware=[CostMiddleware(pipeline)], checkpointer=saver, name="root")


def test_a_resume_keeps_the_run_and_the_next_message_begins_another(make_harness, claude):
    pipeline = make_harness().pipeline
    agent = asking_a_human(claude, pipeline, InMemorySaver())
    for _ in range(2):
        agent.invoke(ASK, THREAD)
        agent.invoke(Command(resume="yes"), THREAD)
    assert list(by_kind(pipeline, "run").values()) == [2, 2]


def test_a_process_that_resumes_takes_the_run_from_the_checkpoint(make_harness, claude, monkeypatch):
    pipeline, saver = make_harness().pipeline, InMemorySaver()
    asking_a_human(claude, pipeline, saver).invoke(ASK, THREAD)
    other = Runs()  # what another process knows of it: nothing
    for name in ("_known", "_of_thread", "_resumes", "_guessed"):
        monkeypatch.setattr(runs, name, getattr(other, name))
    asking_a_human(claude, pipeline, saver).invoke(Command(resume="yes"), THREAD)
    assert list(by_kind(pipeline, "run").values()) == [2]


def test_names_of_the_application_win_and_reach_what_is_called_in_tools(make_harness, claude, sim):
    pipeline = make_harness().pipeline
    sdk = wrap_openai(openai.OpenAI(api_key="k", base_url=sim.openai_url), pipeline)

    @tool
    def ask(q: str) -> str:
        """Ask an SDK."""
        sdk.chat.completions.create(model=MINI, messages=[{"role": "user", "content": q}])
        return "done"

    agent = create_agent(claude(), [ask], middleware=[CostMiddleware(pipeline)], name="root")
    agent.invoke(ASK, {"metadata": {"llm_cost": {"run": "nightly"}}})
    with cost_context(run="block", agent="mine"):
        agent.invoke(ASK)
    assert by_kind(pipeline, "run") == {"run:nightly": 3, "run:block": 3}
    assert by_kind(pipeline, "agent") == {"agent:root": 3, "agent:mine": 3}


def test_chains_and_metered_models_take_the_thread_of_the_config(make_harness, claude):
    pipeline = make_harness().pipeline
    config = {"configurable": {"thread_id": "of a chain"}, "metadata": {"llm_cost": {"run": "r"}}}
    chain = claude() | (lambda message: message.text)
    instrument(chain, pipeline).invoke("hi", config)
    with cost_tracking(pipeline):
        chain.invoke("hi", config)
    assert by_kind(pipeline, "thread") == {"thread:of%20a%20chain": 2}
    assert by_kind(pipeline, "run") == {"run:r": 2}


def test_a_thread_of_any_name_stays_valid(make_harness, claude):
    pipeline = make_harness().pipeline
    agent = create_agent(claude(), [], middleware=[CostMiddleware(pipeline)], name="é" * 300)
    agent.invoke(ASK, {"configurable": {"thread_id": "x" * 1_000}})
    assert len(by_kind(pipeline, "thread")) == len(by_kind(pipeline, "agent")) == 1


def test_a_context_travels_to_another_process():
    with cost_context(run="r", user="a b", tags=["t"], site="faq", max_cost="0.5", item_count=3) as outer:
        text = export()
    code = (
        "import sys; from llm_cost_middleware import cost_context\n"
        "from llm_cost_middleware.context import current_context, export\n"
        "with cost_context.restore(sys.argv[1]): print(export())\n"
        "print(export())"
    )
    done = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True, check=True)
    inside, outside = done.stdout.splitlines()
    assert (inside, outside) == (text, "{}")
    block = cost_context.restore(json.loads(text))
    assert block(current_context)() == outer
    with block, cost_context(run="inner"):
        assert "run:inner" in current_context().scopes
        assert "run:r" not in current_context().scopes


def test_an_exported_run_is_taken_along_and_the_agent_is_not(make_harness, claude):
    pipeline, told = make_harness().pipeline, []

    @tool
    def ask(q: str) -> str:
        """Hand it to another process."""
        told.append(export())
        return q

    create_agent(claude(), [ask], middleware=[CostMiddleware(pipeline)], name="root").invoke(ASK, THREAD)
    worker = create_agent(claude(), [], middleware=[CostMiddleware(pipeline)], name="worker")
    with cost_context.restore(told[0]):
        worker.invoke(ASK)
    assert list(by_kind(pipeline, "run").values()) == [3]
    assert by_kind(pipeline, "agent") == {"agent:root": 2, "agent:worker": 1}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"scopes": ["no kind"]}', '{"other": 1}', None])
def test_what_is_no_exported_context_is_refused(text):
    with pytest.raises((ConfigurationError, ValueError)):
        cost_context.restore(text)


async def test_graphs_that_run_at_once_have_a_run_each(make_harness, claude, sim):
    pipeline = make_harness().pipeline
    sim.responder = lambda request: (
        Answer(tool_calls=(ToolCall("ask", {"q": "x"}),)) if not request.answers_tools else auto(request)
    )
    agent = create_agent(claude(), [ask], middleware=[CostMiddleware(pipeline)], checkpointer=InMemorySaver())
    await asyncio.gather(*(agent.ainvoke(ASK, {"configurable": {"thread_id": str(n)}}) for n in range(5)))
    assert list(by_kind(pipeline, "run").values()) == [2] * 5
    assert isinstance(agent.get_state({"configurable": {"thread_id": "1"}}).values["messages"][-1], AIMessage)
