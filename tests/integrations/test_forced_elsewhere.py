"""A forced model that a door cannot call is refused before anything is sent, as routing refuses it."""

from __future__ import annotations

import json

import httpx2
import openai
import pytest
from spending_doors import langchain_doors, router_doors, sdk_doors, tried

from llm_cost_middleware import CostConfig, CostPipeline, cost_context
from llm_cost_middleware.errors import NoEligibleModelError
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.request import CallContext, CallRequest, Message, Part
from llm_cost_middleware.simulator import fill

DOORS = [
    "openai chat", "openai stream", "openai responses", "openai chat, async", "anthropic", "anthropic, async",
    "process", "process_many", "guard", "guard stream", "middleware",
]  # fmt: skip
SHAPE = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}


def refused(pipeline, sim, door, elsewhere):
    with cost_context(force_model=elsewhere):
        error, sent = tried(door, sim)
    assert (type(error).__mro__.count(NoEligibleModelError), sent) == (1, 0), repr(error)
    assert "cannot be reached from here, which calls " in str(error)
    assert pipeline.ledger.balance("global").pending == 0


@pytest.fixture
def pipeline(sim, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # LangChain would reach the other provider with its key
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    sim.responder = fill
    with CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "1"}])) as opened:
        yield opened


@pytest.mark.parametrize("name", DOORS)
def test_at_a_door_of_one_provider(sim, clients, pipeline, name):
    door = (sdk_doors(pipeline, sim, clients) | langchain_doors(pipeline, sim))[name]
    claude = name.startswith("anthropic") or name == "process_many"
    refused(pipeline, sim, door, "openai/gpt-5-mini" if claude else "anthropic/claude-haiku-4-5")
    with cost_context(force_model="anthropic/claude-haiku-4-5-20251001" if claude else "gpt-5.1"):
        assert tried(door, sim) == (None, 1)  # of its own provider any model will do


@pytest.mark.litellm
def test_at_a_router_without_such_a_deployment(sim, pipeline):
    for name, door in router_doors(pipeline, sim).items():
        assert name.startswith("router")
        refused(pipeline, sim, door, "anthropic/claude-haiku-4-5")


@pytest.mark.litellm
@pytest.mark.parametrize("more", [{}, {"response_format": SHAPE}], ids=["text", "json"])
@pytest.mark.parametrize("named", ["small", "big", "smart"])
def test_a_router_calls_whatever_it_serves(sim, named, more):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    models = {"small": "openai/gpt-5-mini", "big": "anthropic/claude-sonnet-4-6"}
    addresses = {"small": sim.openai_url, "big": sim.anthropic_url}
    served = [
        {"model_name": name, "litellm_params": {"model": model, "api_base": addresses[name], "api_key": "k"}}
        for name, model in models.items()
    ]
    sim.responder = fill
    with CostPipeline({"tiers": [{"name": name, "models": [model]} for name, model in models.items()]}) as pipeline:
        router = CostAwareRouter(served, pipeline)  # in the place where every other door takes it
        for model in models.values():
            with cost_context(force_model=model):
                router.completion(named, [{"role": "user", "content": "hi"}], **more)
            assert sim.requests[-1].body["model"] == model.partition("/")[2]
        with cost_context(force_model="openai/gpt-5.1"), pytest.raises(NoEligibleModelError, match="reached from here"):
            router.completion(named, [{"role": "user", "content": "hi"}], **more)
        assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd


def test_where_the_caller_sends_by_himself(pipeline):
    context = CallContext(forced_model="anthropic/claude-haiku-4-5")
    request = CallRequest("openai", "gpt-5-mini", (Message("user", (Part("text", "hi"),)),), context=context)
    sent = []
    with pytest.raises(NoEligibleModelError, match="cannot be reached from here, which calls openai"):
        pipeline.run(request, sent.append, providers=frozenset({"openai"}))
    assert not sent


def test_what_a_gateway_serves_is_sent(pipeline):
    sent = []

    def answer(request):
        sent.append(json.loads(request.content)["model"])
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": sent[-1], "choices": []}
        usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
        return httpx2.Response(200, json=body | {"usage": usage})

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = openai.OpenAI(base_url="https://gateway.example/v1", api_key="k", http_client=transport)
    with cost_context(force_model="claude-haiku-4-5"):
        wrap_openai(client, pipeline).chat.completions.create(
            model="gpt-5-mini", messages=[{"role": "user", "content": "x"}], max_completion_tokens=20
        )
    assert sent == ["claude-haiku-4-5"]


def test_a_reason_names_a_few_of_many_models():
    """It stands in the log of every decision."""
    reached = frozenset(f"openai/model-{number}" for number in range(200))
    config = CostConfig(tiers=[{"name": "s", "models": ["anthropic/claude-haiku-4-5", "openai/gpt-5-mini"]}])
    request = CallRequest("openai", "smart", (Message("user", (Part("text", "x"),)),))
    with CostPipeline(config) as pipeline, pytest.raises(NoEligibleModelError) as caught:
        pipeline.run(request, lambda _: None, providers=reached)
    assert len(str(caught.value)) < 300
