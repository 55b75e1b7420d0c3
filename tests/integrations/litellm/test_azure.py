"""Groups of Azure in a ``CostAwareRouter``: the ledger says what deployments bill, in groups of two places, too."""

from __future__ import annotations

import asyncio

import pytest

from llm_cost_middleware.errors import NoEligibleModelError, UnsupportedRequestError
from llm_cost_middleware.simulator import Fault

pytestmark = pytest.mark.litellm
MESSAGES = [{"role": "user", "content": "Hello there, how are you?"}]
PLATFORMS = {
    "azure": {
        "place": "global",
        "deployments": {
            "eu--gpt-5-mini": {"model": "gpt-5-mini", "region": "swedencentral"},
            "gpt-5-mini": "gpt-5-mini",
        },
    }
}


@pytest.fixture
def entry(sim):
    """Make an entry of a ``model_list``."""

    def make(name, model):
        root = sim.openai_url.removesuffix("/v1")
        params = {"model": model, "api_base": root, "api_key": "k", "api_version": "2024-10-21"}
        return {"model_name": name, "litellm_params": params}

    return make


@pytest.mark.parametrize("deployment", ["gpt-5-mini", "eu--gpt-5-mini"])
def test_chats_whole_and_streamed(make_harness, entry, sim, deployment):
    harness = make_harness(platforms=PLATFORMS)
    router = harness.router([entry("small", f"azure/{deployment}")])
    router.completion("small", MESSAGES, max_tokens=100)
    for _ in router.completion("small", MESSAGES, max_tokens=100, stream=True):
        pass
    asyncio.run(router.acompletion("small", MESSAGES, max_tokens=100))
    assert {record.provider for record in harness.pipeline.records()} == {"azure"}
    assert len(harness.pipeline.records()) == 3
    harness.agree()


def test_a_group_of_two_places_is_booked_at_the_one_that_answered(make_harness, entry, sim):
    harness = make_harness(platforms=PLATFORMS)
    router = harness.router([entry("small", "azure/gpt-5-mini"), entry("small", "azure/eu--gpt-5-mini")])
    for _ in range(10):
        router.completion("small", MESSAGES, max_tokens=100)
    assert len({line.geo for line in sim.bill.lines}) == 2
    harness.agree()


def test_a_group_mixed_with_openai_agrees(make_harness, entry, sim):
    harness = make_harness(platforms=PLATFORMS)
    own = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
    models = [entry("small", "azure/eu--gpt-5-mini"), {"model_name": "small", "litellm_params": own}]
    router = harness.router(models)
    for _ in range(10):
        router.completion("small", MESSAGES, max_tokens=100)
    assert {record.provider for record in harness.pipeline.records()} == {"azure", "openai"}
    harness.agree()


def test_a_full_deployment_is_asked_again_by_us(make_harness, entry, sim):
    harness = make_harness(platforms=PLATFORMS)
    router = harness.router([entry("small", "azure/eu--gpt-5-mini")])
    sim.script(Fault.status(429, headers={"retry-after-ms": "5"}))
    router.completion("small", MESSAGES, max_tokens=100)
    assert sim.request_count == 2
    harness.agree()


def test_a_deployment_in_an_address_is_the_one_that_is_called(make_harness, entry, sim):
    """LiteLLM sends to the address as it is, whatever the model says."""
    named = entry("small", "azure/eu--gpt-5-mini")
    named["litellm_params"]["api_base"] += "/openai/deployments/gpt-5-mini"
    harness = make_harness(platforms=PLATFORMS)
    harness.router([named]).completion("small", MESSAGES, max_tokens=100)
    assert [record.model for record in harness.pipeline.records()] == ["global/gpt-5-mini"]
    harness.agree()
    inside = make_harness(platforms=PLATFORMS, routing={"regions": ["eu"]})
    sent = sim.request_count
    with pytest.raises(NoEligibleModelError):
        inside.router([named]).completion("small", MESSAGES, max_tokens=100)
    assert sim.request_count == sent


ELSEWHERE = [
    {"deployment_id": "eu--gpt-5-mini"},
    {"custom_llm_provider": "openai"},
    {"model_list": [{"model_name": "x"}]},
]


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=[next(iter(one)) for one in ELSEWHERE])
def test_a_call_reaches_no_other_deployment_than_its_groups(make_harness, entry, sim, elsewhere):
    router = make_harness(platforms=PLATFORMS).router([entry("small", "azure/gpt-5-mini")])
    with pytest.raises(UnsupportedRequestError):
        router.completion("small", MESSAGES, max_tokens=100, **elsewhere)
    assert sim.request_count == 0


@pytest.mark.parametrize("elsewhere", [{"azure": True}, {"custom_llm_provider": "azure"}, {"deployment_id": "x"}])
def test_a_call_of_openais_group_does_not_go_to_azure(make_harness, sim, elsewhere):
    own = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
    router = make_harness(platforms=PLATFORMS).router([{"model_name": "small", "litellm_params": own}])
    with pytest.raises(UnsupportedRequestError):
        router.completion("small", MESSAGES, max_tokens=100, **elsewhere)
    assert sim.request_count == 0


def test_a_deployment_id_of_a_deployment_is_what_is_called(make_harness, entry, sim):
    named = entry("small", "azure/gpt-5-mini")
    named["litellm_params"]["deployment_id"] = "eu--gpt-5-mini"
    harness = make_harness(platforms=PLATFORMS)
    harness.router([named]).completion("small", MESSAGES, max_tokens=100)
    assert [record.model for record in harness.pipeline.records()] == ["swedencentral/gpt-5-mini"]
    harness.agree()


@pytest.mark.parametrize("more", [{}, {"model_info": {"base_model": "azure/gpt-5-mini"}}])
def test_a_deployment_whose_model_nobody_says_is_refused_with_advice(make_harness, entry, sim, more):
    router = make_harness(platforms=PLATFORMS).router(
        [entry("small", "azure/ours") | more, entry("known", "azure/gpt-5-mini")]
    )
    for call in (
        lambda: router.completion("small", MESSAGES, max_tokens=100),
        lambda: asyncio.run(router.acompletion("small", MESSAGES, max_tokens=100)),
        lambda: router.embedding("small", ["a"]),
        lambda: router.responses(model="small", input="a"),
    ):
        with pytest.raises(UnsupportedRequestError, match=r'deployments\] "ours" = "MODEL"'):
            call()
    assert sim.request_count == 0
    router.completion("known", MESSAGES, max_tokens=100)
    assert sim.request_count == 1


def test_a_group_of_openais_at_an_address_of_azure_is_refused_with_advice(make_harness, sim):
    own = {"model": "openai/gpt-5.1", "api_base": "https://ours.openai.azure.com/openai/v1/", "api_key": "k"}
    router = make_harness(platforms=PLATFORMS).router([{"model_name": "small", "litellm_params": own}])
    with pytest.raises(UnsupportedRequestError, match=r"call it azure/gpt-5\.1"):
        router.completion("small", MESSAGES, max_tokens=100)
    assert sim.request_count == 0
