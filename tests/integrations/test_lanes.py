"""Calls that can wait, through every host: flex where it is sold, the standard tier where it is not, ledger = bill."""

from __future__ import annotations

import asyncio

import pytest

from llm_cost_middleware import CostConfig, CostPipeline, cost_context
from llm_cost_middleware.simulator import Simulator, TierMarket, fill
from llm_cost_middleware.testing import FakeClock

SCARCE = TierMarket(flex_unavailable=1.0)
# what a host of others warns of is not the matter here
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def server():
    with Simulator(responder=fill) as simulator:
        yield simulator


@pytest.fixture
def sim(server):
    server.reset()
    server.tiers = TierMarket()
    return server


@pytest.fixture
def pipeline(sim):
    del sim
    with CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "10"}]), clock=FakeClock()) as made:
        yield made


def sent(sim):
    return [request.body.get("service_tier") for request in sim.requests]


def agree(sim, pipeline):
    balance = pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    assert balance.settled_nanousd == sim.bill.total_nanousd > 0


def langchain_model(sim, **more):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="gpt-5-mini", base_url=sim.openai_url, api_key="k", max_tokens=64, **more)


def guarded(sim, pipeline, **more):
    from llm_cost_middleware.integrations.langchain import guard

    return guard(langchain_model(sim, **more), pipeline)


async def _gather(stream):
    return [chunk async for chunk in stream]


CHAINS = {
    "invoke": lambda model, config: model.invoke("hello", config=config),
    "stream": lambda model, config: list(model.stream("hello", config=config)),
    "ainvoke": lambda model, config: asyncio.run(model.ainvoke("hello", config=config)),
    "astream": lambda model, config: asyncio.run(_gather(model.astream("hello", config=config))),
}


@pytest.mark.parametrize("way", CHAINS)
@pytest.mark.parametrize("more", [{}, {"use_responses_api": True}], ids=["chat", "responses"])
def test_a_guarded_model_waits_at_flex(sim, pipeline, way, more):
    CHAINS[way](guarded(sim, pipeline, **more), {"metadata": {"llm_cost": {"patience": "10m"}}})
    assert sent(sim) == ["flex"]
    agree(sim, pipeline)


@pytest.mark.parametrize("way", CHAINS)
def test_a_guarded_model_comes_back_to_the_standard_tier(sim, pipeline, way):
    sim.tiers = SCARCE
    CHAINS[way](guarded(sim, pipeline), {"metadata": {"llm_cost": {"patience": "10m"}}})
    assert sent(sim) == ["flex"] * 4 + [None]
    agree(sim, pipeline)


@pytest.mark.parametrize(("own", "tier"), [({}, None), ({"service_tier": "default"}, "default")])
def test_a_guarded_model_with_a_tier_of_its_own_keeps_it(sim, pipeline, own, tier):
    patience = "10m" if own else None
    guarded(sim, pipeline, **own).invoke("hello", config={"metadata": {"llm_cost": {"patience": patience}}})
    assert sent(sim) == [tier]
    agree(sim, pipeline)


def test_an_agent_with_cost_middleware_waits_at_flex(sim, pipeline):
    from langchain.agents import create_agent

    from llm_cost_middleware.integrations.langchain import CostMiddleware

    agent = create_agent(langchain_model(sim), tools=[], middleware=[CostMiddleware(pipeline)])
    with cost_context(patience="1h"):
        agent.invoke({"messages": [("user", "hello")]})
    assert sent(sim) == ["flex"]
    agree(sim, pipeline)


def router(sim, pipeline, **more):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    params = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k", **more}
    return CostAwareRouter([{"model_name": "mini", "litellm_params": params}], pipeline=pipeline)


MESSAGES = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 64}
ROUTES = {
    "completion": lambda at, **more: at.completion(model="mini", **MESSAGES, **more),
    "stream": lambda at, **more: list(at.completion(model="mini", stream=True, **MESSAGES, **more)),
    "acompletion": lambda at, **more: asyncio.run(at.acompletion(model="mini", **MESSAGES, **more)),
    "aresponses": lambda at, **more: asyncio.run(
        at.aresponses(model="mini", input="hello", max_output_tokens=64, **more)
    ),
}


@pytest.fixture
def known(pipeline, sim):
    """A pipeline to which the simulator's address is the provider's own."""
    del pipeline
    config = CostConfig(
        budgets=[{"scope": "global", "limit": "10"}], providers={"openai": {"base_url": sim.openai_url}}
    )
    with CostPipeline(config, clock=FakeClock()) as made:
        yield made


@pytest.mark.litellm
@pytest.mark.parametrize("way", ROUTES)
def test_a_router_waits_at_flex_and_comes_back(sim, known, way):
    at = router(sim, known)
    with cost_context(patience="10m"):
        ROUTES[way](at)
        assert sent(sim) == ["flex"]
        sim.tiers = SCARCE
        ROUTES[way](at)
    assert sent(sim) == ["flex"] * 5 + [None]
    agree(sim, known)


@pytest.mark.litellm
def test_a_deployment_with_a_tier_of_its_own_keeps_it(sim, known):
    with cost_context(patience="10m"):
        router(sim, known, service_tier="default").completion(model="mini", **MESSAGES)
        router(sim, known).completion(model="mini", service_tier="default", **MESSAGES)
    assert sent(sim) == ["default"] * 2
    agree(sim, known)


@pytest.mark.litellm
@pytest.mark.parametrize("way", ROUTES)
def test_no_patience_sends_what_was_sent(sim, known, way):
    at = router(sim, known)
    ROUTES[way](at)
    with cost_context(patience=0):
        ROUTES[way](at)
    first, second = (request.body for request in sim.requests)
    assert first == second
    assert "service_tier" not in first
    agree(sim, known)


@pytest.mark.litellm
@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_a_stream_of_a_router_is_booked_at_the_tier_of_its_chunks(sim, known, tier):
    at = router(sim, known)
    list(at.completion(model="mini", stream=True, service_tier=tier, **MESSAGES))

    async def go():
        return await _gather(await at.acompletion(model="mini", stream=True, service_tier=tier, **MESSAGES))

    asyncio.run(go())
    agree(sim, known)
