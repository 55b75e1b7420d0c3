"""LangChain runs on asyncio alone. On trio a guarded model fails as a plain one does, but before anything is sent."""

from __future__ import annotations

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.langchain import guard

trio = pytest.importorskip("trio", reason="needs trio; the extra test brings it")
ASK = "Count to five."


def claude(sim):
    return ChatAnthropic(model="claude-haiku-4-5", api_key="k", base_url=sim.anthropic_url, max_tokens=50)


def gpt(sim):
    return ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=sim.openai_url, max_tokens=50)


def responses(sim):
    return ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=sim.openai_url, max_tokens=50, use_responses_api=True)


async def ainvoke(model):
    await model.ainvoke(ASK)


async def astream(model):
    async for _ in model.astream(ASK):
        pass


async def abatch(model):
    await model.abatch([ASK, ASK])


async def abatch_that_waits(model):
    await model.abatch([ASK] * 12, {"metadata": {"llm_cost": {"patience": "24h"}}})


async def astream_events(model):
    async for _ in model.astream_events(ASK, version="v2"):
        pass


async def in_a_chain(model):
    async for _ in (ChatPromptTemplate.from_template(ASK) | model).astream({}):
        pass


WAYS = [ainvoke, astream, abatch, abatch_that_waits, astream_events, in_a_chain]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # LangChain leaves coroutines that asyncio would have run
@pytest.mark.parametrize("ask", WAYS, ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("make", [claude, gpt, responses], ids=lambda make: make.__name__)
def test_a_guarded_model_on_trio_sends_nothing_and_holds_nothing(make, ask, sim):
    with CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "10"}])) as pipeline:
        model = guard(make(sim), pipeline, pinned=True)
        with pytest.raises((RuntimeError, TypeError, ValueError)) as caught:
            trio.run(ask, model)
        balance = pipeline.ledger.balance("global")
        assert (sim.request_count, balance.pending_nanousd, balance.settled_nanousd) == (0, 0, 0)
        if ask in (ainvoke, astream, abatch, abatch_that_waits):  # else LangChain fails first, or while it tells of it
            assert "asyncio" in str(caught.value)
