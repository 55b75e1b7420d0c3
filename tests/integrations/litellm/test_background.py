"""Answers in the background through a router: held until they are retrieved through it, or by any wrapped client."""

from __future__ import annotations

import asyncio

import openai
import pytest

from llm_cost_middleware.integrations.litellm.mocks import provider_id
from llm_cost_middleware.integrations.openai import wrap_openai

ASK = {"model": "m", "input": "Count.", "max_output_tokens": 40}


@pytest.fixture
def router(harness):
    return harness.router([harness.deployment("m", "openai/gpt-5-mini")])


def pending(harness):
    return harness.pipeline.ledger.balance("global").pending_nanousd


def test_one_is_settled_once_when_it_is_retrieved_through_the_router(harness, router):
    async def ask():
        answer = await router.aresponses(**ASK, background=True)
        assert harness.statuses == []
        assert pending(harness) >= harness.sim.bill.total_nanousd > 0
        states = []
        for _ in range(3):
            states.append((await router.aget_responses(response_id=answer.id, model="m")).status)  # noqa: PERF401
        return states

    assert asyncio.run(ask()) == ["in_progress", "incomplete", "incomplete"]
    harness.agree()
    assert len(harness.statuses) == 1


def test_one_that_is_cancelled_is_booked_at_what_was_set_aside(harness, router):
    async def ask():
        answer = await router.aresponses(**ASK, background=True)
        held = pending(harness)
        await router.acancel_responses(response_id=answer.id, model="m")
        return held

    assert asyncio.run(ask()) == harness.settled >= harness.sim.bill.total_nanousd
    assert harness.statuses == ["unconfirmed"]


def test_one_is_settled_by_a_wrapped_client_that_knows_the_providers_own_id(harness, router):
    answer = asyncio.run(router.aresponses(**ASK, background=True))
    with openai.OpenAI(base_url=harness.sim.openai_url, api_key="k") as client:
        wrapped = wrap_openai(client, harness.pipeline)
        for _ in range(2):
            wrapped.responses.retrieve(provider_id(answer.id))
    harness.agree()


DEAR = {"input_cost_per_token": 1e-4, "output_cost_per_token": 3e-4}


@pytest.mark.parametrize("reader", ["router", "wrapped client", "another process's client"])
@pytest.mark.parametrize("name", ["m", "smart"])
def test_one_of_a_deployment_with_a_price_of_its_own_is_booked_at_that_price(harness, reader, name):
    router = harness.router([harness.deployment("m", "openai/gpt-5-mini", **DEAR)])
    answer = asyncio.run(router.aresponses(**{**ASK, "model": name}, background=True))

    if reader == "router":
        for _ in range(3):
            done = asyncio.run(router.aget_responses(response_id=answer.id, model="m"))
    else:
        if reader != "wrapped client":  # it knows of the call what the journal does
            harness.pipeline._flow.stages.deferred._known.clear()
        with openai.OpenAI(base_url=harness.sim.openai_url, api_key="k") as client:
            wrapped = wrap_openai(client, harness.pipeline)
            for _ in range(3):
                done = wrapped.responses.retrieve(provider_id(answer.id))
    expected = 100_000 * done.usage.input_tokens + 300_000 * done.usage.output_tokens
    assert harness.settled == expected > harness.sim.bill.total_nanousd
    assert harness.statuses == ["exact"]
