"""What LiteLLM lays over a body, or takes out of it, is held as it is sent."""

import asyncio
from contextlib import suppress

import litellm
import pytest

from llm_cost_middleware import BudgetExceededError, CostConfig, CostPipeline, UnsupportedRequestError

ASK = [{"role": "user", "content": "hello"}]


@pytest.fixture
def router_of(sim):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    def make(limit="0.0005", own=None, **options):
        models = [
            {"model_name": name, "litellm_params": {"model": model, "api_key": "k", "api_base": base, **(own or {})}}
            for name, model, base in (
                ("m", "openai/gpt-5-mini", sim.openai_url),
                ("c", "anthropic/claude-haiku-4-5", sim.anthropic_url),
            )
        ]
        pipeline = CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": limit}], on_ungoverned="deny"))
        return CostAwareRouter(models, pipeline=pipeline, **options), pipeline

    return make


HIDDEN = [
    {"extra_body": {"n": 100}},
    {"extra_body": {"max_completion_tokens": 5_000}},
    {"extra_body": {"messages": [{"role": "user", "content": "word " * 20_000}]}},
    {"additional_drop_params": ["max_tokens", "max_completion_tokens"]},
]


@pytest.mark.parametrize("hidden", HIDDEN, ids=lambda each: str(each)[:50])
@pytest.mark.parametrize("where", ["call", "deployment", "router"])
@pytest.mark.parametrize("name", ["m", "c"])
def test_nothing_that_is_hidden_passes_a_budget(sim, router_of, hidden, where, name):
    router, pipeline = router_of(
        own=hidden if where == "deployment" else None,
        **({"default_litellm_params": hidden} if where == "router" else {}),
    )
    for _ in range(2):
        # a refusal, or the provider's or LiteLLM's own: what counts is the money
        with suppress(BudgetExceededError, litellm.BadRequestError, litellm.UnsupportedParamsError):
            router.completion(name, ASK, max_tokens=20, **(hidden if where == "call" else {}))
    assert sim.bill.total_nanousd <= 500_000
    assert int(pipeline.ledger.balance("global").settled.scaleb(9)) >= sim.bill.total_nanousd


def test_a_model_in_extra_body_is_refused(router_of, sim):
    router, _ = router_of()
    with pytest.raises(UnsupportedRequestError):
        router.completion("m", ASK, max_tokens=20, extra_body={"model": "gpt-5.1"})
    with pytest.raises(UnsupportedRequestError):
        asyncio.run(router.aresponses(model="m", input="hello", max_output_tokens=20, extra_body={"model": "gpt-5.1"}))
    assert not sim.requests


def test_fallbacks_of_a_deployment_are_refused(router_of, sim):
    router, _ = router_of(own={"fallbacks": ["openai/gpt-5.1"]})
    with pytest.raises(UnsupportedRequestError):
        router.completion("m", ASK, max_tokens=20)
    assert not sim.requests
