"""``[routing] regions`` in a router: nothing leaves them, whatever the method, and whether it costs anything or not."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from llm_cost_middleware.errors import NoEligibleModelError

pytestmark = pytest.mark.litellm
ASK = [{"role": "user", "content": "Hi"}]
OUTSIDE = {
    "completion": {"messages": ASK, "max_tokens": 9},
    "embedding": {"input": "x"},
    "aembedding": {"input": "x"},
    "image_generation": {"prompt": "a cat"},
    "aspeech": {"input": "x", "voice": "alloy"},
    "text_completion": {"prompt": "x"},
    "amoderation": {"input": "x"},
    "acreate_file": {"file": b"{}", "purpose": "batch"},
}
DEPLOYMENTS = {"eu--text-embedding-3-small": {"model": "text-embedding-3-small", "region": "swedencentral"}}


@pytest.mark.parametrize("choice", ["warn", "allow"])
@pytest.mark.parametrize("method", OUTSIDE)
def test_nothing_leaves(make_harness, method, choice):
    harness = make_harness(routing={"regions": ["eu"]}, on_ungoverned=choice)
    model = "openai/text-embedding-3-small" if "embedding" in method else "openai/gpt-5-mini"
    router = harness.router([harness.deployment("m", model)])
    with pytest.raises(NoEligibleModelError, match="eu"):
        answer = getattr(router, method)(model="m", **OUTSIDE[method])
        if inspect.isawaitable(answer):

            async def awaited():
                return await answer

            asyncio.run(awaited())
    assert harness.sim.request_count == 0


def test_an_embedding_inside_is_served(make_harness):
    harness = make_harness(routing={"regions": ["eu"]}, platforms={"azure": {"deployments": DEPLOYMENTS}})
    where = {"api_base": harness.sim.openai_url.removesuffix("/v1"), "api_key": "k", "api_version": "2024-10-21"}
    model = f"azure/{next(iter(DEPLOYMENTS))}"
    router = harness.router([{"model_name": "m", "litellm_params": {"model": model, **where}}])
    router.embedding(model="m", input="x")
    harness.agree()


@pytest.mark.parametrize("method", ["completion", "acompletion"])
def test_a_list_of_models_of_a_call_is_refused(make_harness, method):
    """LiteLLM would call all of its deployments at once, wherever they are, under the one hold."""
    deployments = {"eu--gpt-5-mini": {"model": "gpt-5-mini", "region": "swedencentral"}}
    harness = make_harness(routing={"regions": ["eu"]}, platforms={"azure": {"deployments": deployments}})
    where = {"api_base": harness.sim.openai_url.removesuffix("/v1"), "api_key": "k", "api_version": "2024-10-21"}
    router = harness.router([{"model_name": "m", "litellm_params": {"model": "azure/eu--gpt-5-mini", **where}}])
    elsewhere = [{"model_name": "azure/eu--gpt-5-mini", "litellm_params": {"model": "azure/gpt-5.1", **where}}] * 2

    async def awaited(answer):
        return await answer

    with pytest.raises(Exception, match="model_list in a call"):
        answer = getattr(router, method)(model="m", messages=ASK, max_tokens=9, model_list=elsewhere)
        if inspect.isawaitable(answer):
            asyncio.run(awaited(answer))
    assert (harness.sim.request_count, harness.settled) == (0, 0)
