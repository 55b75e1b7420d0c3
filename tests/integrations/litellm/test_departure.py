"""The moment before a request leaves LiteLLM is seen at every door, and never after it: it decides about money."""

from __future__ import annotations

import asyncio
import gc

import litellm
import pytest

from llm_cost_middleware.integrations.litellm import departure
from llm_cost_middleware.integrations.litellm.signed_ids import signed
from llm_cost_middleware.request import ModelRef

ASK = [{"role": "user", "content": "Count to forty."}]
DEPLOYMENTS = {
    "gpt": ("openai/gpt-5-mini", ModelRef("openai", "gpt-5-mini")),
    "claude": ("anthropic/claude-haiku-4-5", ModelRef("anthropic", "claude-haiku-4-5")),
    "by responses": ("openai/responses/gpt-5-mini", ModelRef("openai", "gpt-5-mini")),
}


async def drained(stream):
    async for _ in await stream:
        pass


def chat(router, name, ids, **more):
    return router.completion(name, ASK, max_tokens=20, metadata=ids, **more)


def achat(router, name, ids, **more):
    return asyncio.run(router.acompletion(name, ASK, max_tokens=20, metadata=ids, **more))


def responses(router, name, ids, **more):
    return router.responses(model=name, input="Count.", max_output_tokens=20, litellm_metadata=ids, **more)


def aresponses(router, name, ids, **more):
    return asyncio.run(
        router.aresponses(model=name, input="Count.", max_output_tokens=20, litellm_metadata=ids, **more)
    )


def messages(router, name, ids, **more):
    call = router.anthropic_messages(model=name, messages=ASK, max_tokens=20, litellm_metadata=ids, **more)
    return asyncio.run(call)


DOORS = {
    "chat": chat,
    "chat, stream": lambda *call: list(chat(*call, stream=True)),
    "achat": achat,
    "achat, stream": lambda router, name, ids: asyncio.run(
        drained(router.acompletion(name, ASK, max_tokens=20, metadata=ids, stream=True))
    ),
    "responses": responses,
    "responses, stream": lambda *call: list(responses(*call, stream=True)),
    "aresponses": aresponses,
    "messages": messages,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_request_is_seen_before_it_leaves(door, name, harness, monkeypatch):
    model, target = DEPLOYMENTS[name]
    router = litellm.Router(model_list=[harness.deployment(name, model)], num_retries=0)
    expected = departure.expect("a call")
    seen, watch = [], departure._watch.log_pre_api_call

    def look(**notice):
        seen.append(harness.sim.request_count)
        watch(**notice)

    monkeypatch.setattr(departure._watch, "log_pre_api_call", look)
    assert expected.never_left
    DOORS[door](router, name, {"llm_cost_governed": signed("a call")})
    assert seen[0] == 0
    assert harness.sim.request_count == 1
    assert (expected.left, expected.never_left, expected.target) == (True, False, target)


def test_a_call_is_told_from_others_and_from_forged_ids(harness):
    router = litellm.Router(model_list=[harness.deployment("gpt", "openai/gpt-5-mini")], num_retries=0)
    expected = departure.expect("a call")
    for ids in ({}, {"llm_cost_governed": "a call"}, {"llm_cost_governed": signed("another")}):
        chat(router, "gpt", ids)
    assert expected.never_left


def test_where_the_list_was_emptied_nothing_is_claimed(harness, monkeypatch):
    monkeypatch.setattr(litellm, "input_callback", [])
    expected = departure.expect("a call")
    litellm.input_callback.clear()
    assert not expected.never_left


def test_one_watch_serves_every_call_and_keeps_none(harness):
    before = litellm.input_callback.count(departure._watch)
    for number in range(10):
        departure.expect(f"call {number}")
    gc.collect()
    assert litellm.input_callback.count(departure._watch) == max(before, 1)
    assert not [name for name in departure._departures if name.startswith("call ")]
