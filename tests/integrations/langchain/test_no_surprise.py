"""Adding a budget changes no model: routing starts with tiers of the user's own, a routed name or classic functions."""

import pytest
from langchain_core.prompts import ChatPromptTemplate

from llm_cost_middleware import CostConfig, CostPipeline, NoEligibleModelError
from llm_cost_middleware.integrations.langchain import CostMiddleware, guard, instrument
from llm_cost_middleware.integrations.openai import wrap_openai

LIMIT = {"budgets": [{"scope": "global", "limit": "5.00"}]}
OWN = {"tiers": [{"name": "small", "models": ["openai/gpt-5-mini"]}, {"name": "large", "models": ["openai/gpt-5.1"]}]}


def _guard(model, pipeline, **settings):
    return guard(model, pipeline, **settings)


def _instrument(model, pipeline, **settings):
    return instrument(ChatPromptTemplate.from_template("{question}") | model, pipeline, **settings)


def _agent(model, pipeline, **settings):
    from langchain.agents import create_agent

    return create_agent(model, [], middleware=[CostMiddleware(pipeline, **settings)])


HOSTS = {
    "guard": (_guard, "hi"),
    "instrument": (_instrument, {"question": "hi"}),
    "middleware": (_agent, {"messages": "hi"}),
}


@pytest.fixture(params=sorted(HOSTS))
def host(request):
    return HOSTS[request.param]


def asked(sim):
    return [request.body["model"] for request in sim.requests if not request.path.endswith("count_tokens")]


@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "claude-haiku-4-5"])
def test_a_budget_alone_changes_no_model_although_both_keys_are_there(sim, claude, host, model):
    make, question = host
    with CostPipeline(CostConfig(**LIMIT)) as pipeline:
        make(claude(model), pipeline).invoke(question)
        assert asked(sim) == [model]
        assert [record.model for record in pipeline.records()] == [model]


def test_routing_starts_with_tiers_of_ones_own_and_is_pinned_where_asked(sim, gpt, host):
    make, question = host
    with CostPipeline(CostConfig(**LIMIT, **OWN)) as pipeline:
        make(gpt("gpt-5.1"), pipeline).invoke(question)
        make(gpt("gpt-5.1"), pipeline, pinned=True).invoke(question)
    assert asked(sim) == ["gpt-5-mini", "gpt-5.1"]


def test_off_sends_every_call_where_it_says_and_refuses_a_routed_name(sim, gpt, host):
    import openai

    make, question = host
    with CostPipeline(CostConfig(**LIMIT, **OWN, routing={"policy": "off"})) as pipeline:
        make(gpt("gpt-5.1"), pipeline).invoke(question)
        client = wrap_openai(openai.OpenAI(base_url=sim.openai_url, api_key="k"), pipeline)
        with pytest.raises(NoEligibleModelError, match="off"):
            client.chat.completions.create(model="smart", messages=[{"role": "user", "content": "hi"}])
    assert asked(sim) == ["gpt-5.1"]


def test_the_packaged_tiers_given_by_hand_are_tiers_of_ones_own():
    assert not CostConfig().routes
    assert not CostConfig.from_mapping(LIMIT).routes
    assert CostConfig(tiers=list(CostConfig().tiers)).routes
    assert CostConfig(tiers=list(CostConfig().tiers)) == CostConfig(routing={"policy": "cascade"})
    assert CostConfig(routing={"policy": "cascade"}).routes
    assert CostConfig(routing={"explore": 0.1}).routes
    assert not CostConfig(routing={"policy": "off"}, tiers=list(CostConfig().tiers)).routes
