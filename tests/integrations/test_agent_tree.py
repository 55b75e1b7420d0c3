"""A tree of agents: a root, three sub-agents, four tools each that call models by every door; one budget of a run."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import openai
import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.langchain import CostMiddleware, guard
from llm_cost_middleware.integrations.litellm import CostAwareRouter
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer, Simulator, ToolCall

pytestmark = pytest.mark.litellm
HAIKU, MINI, CAP = "claude-haiku-4-5-20251001", "gpt-5-mini", 200
ASK = {"messages": [("user", "ask them all")]}


def answer(request):
    """Whoever has tools calls all of them at once, again and again; answers are as long as their cap."""
    cap = min(CAP, request.max_tokens or CAP)
    if request.tools:
        return Answer(tool_calls=tuple(ToolCall(one.name, {"q": "x"}) for one in request.tools), output_tokens=cap)
    return Answer(text="words", output_tokens=cap)


@pytest.fixture
def sim():
    with Simulator(responder=answer) as simulator:
        yield simulator


@pytest.fixture
def opened(sim, tmp_path):
    made = []

    def make(kind, limit):
        url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/l.db"
        providers = {"anthropic": {"base_url": sim.anthropic_url}, "openai": {"base_url": sim.openai_url}}
        config = CostConfig(
            providers=providers, ledger={"url": url}, budgets=[{"scope": "run:*", "limit": limit}],
            routing={"policy": "off"},
        )  # fmt: skip
        made.append(CostPipeline(config))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


def tree(sim, pipeline, slices):
    """The root; with ``slices`` each sub-agent has a part of its own."""
    claude = ChatAnthropic(model=HAIKU, api_key="k", base_url=sim.anthropic_url, max_tokens=CAP)
    model = guard(claude, pipeline)
    sdk = wrap_openai(openai.OpenAI(api_key="k", base_url=sim.openai_url), pipeline)
    params = {"model": f"openai/{MINI}", "api_key": "k", "api_base": sim.openai_url}
    router = CostAwareRouter([{"model_name": "mini", "litellm_params": params}], pipeline=pipeline)

    def ends():
        return CostMiddleware(pipeline, on_exceeded="end")

    def asks(q):
        return [{"role": "user", "content": q}]

    ways = {
        "by_model": lambda q: model.invoke(q).text,
        "by_second_model": lambda q: model.invoke([("user", q)]).text,
        "by_sdk": lambda q: str(
            sdk.chat.completions.create(model=MINI, max_completion_tokens=CAP, messages=asks(q)).choices[0]
        ),
        "by_router": lambda q: str(router.completion("mini", asks(q), max_tokens=CAP).choices[0]),
    }

    def tool_of(name, way):
        @tool(name)
        def ask(q: str) -> str:
            """Ask a model."""
            return way(q)

        return ask

    def delegate(name):
        worker = create_agent(claude, [tool_of(*one) for one in ways.items()], middleware=[ends()], name=name)

        @tool(f"ask_{name}")
        def ask(q: str) -> str:
            """Let a sub-agent do it."""
            question = {"messages": [("user", q)]}
            if slices is None:
                return worker.invoke(question)["messages"][-1].text
            with pipeline.slice(slices, name=name):
                return worker.invoke(question)["messages"][-1].text

        return ask

    return create_agent(claude, [delegate(name) for name in "abc"], middleware=[ends()], name="root")


@pytest.mark.parametrize(
    ("ledger", "how", "slices", "width"),
    [("memory", "threads", None, 3), ("sqlite", "tasks", "0.006", 2), ("memory", "tasks", "0.006", 3)],
)
def test_a_tree_stays_within_the_budget_of_its_run(ledger, how, slices, width, opened, sim):
    """Several runs at once, each with a budget of its own: each bill is below it, whatever it goes through."""
    limit = Decimal("0.03")
    pipeline = opened(ledger, str(limit))
    root = tree(sim, pipeline, slices)

    async def tasks():
        return await asyncio.gather(*(root.ainvoke(ASK) for _ in range(width)))

    if how == "tasks":
        answers = asyncio.run(tasks())
    else:
        with ThreadPoolExecutor(width) as pool:
            answers = list(pool.map(lambda _: root.invoke(ASK), range(width)))
    for messages in (one["messages"] for one in answers):
        assert messages[-1].response_metadata["llm_cost"]["ended"] == "budget"
        called = [call["id"] for one in messages if isinstance(one, AIMessage) for call in one.tool_calls]
        assert sorted(called) == sorted(one.tool_call_id for one in messages if isinstance(one, ToolMessage))
    scopes = {scope for row in pipeline.ledger.rows() for scope in row.scopes}
    runs = [pipeline.ledger.balance(scope) for scope in scopes if scope.startswith("run:")]
    assert len(runs) == width
    assert all(run.pending == 0 and limit * Decimal("0.6") < run.settled <= limit for run in runs)
    assert sum(run.settled_nanousd for run in runs) == sim.bill.total_nanousd
    assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd
    parts = [pipeline.ledger.balance(scope) for scope in scopes if scope.startswith("slice:")]
    assert bool(parts) == (slices is not None)
    assert all(part.settled_nanousd <= part.limit_nanousd for part in parts)
    assert {f"provider:{name}" for name in ("anthropic", "openai")} <= scopes
    assert {"agent:root", "agent:a", "agent:b", "agent:c"} <= scopes
