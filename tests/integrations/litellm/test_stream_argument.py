"""``stream`` in every way of writing it: what LiteLLM makes of it is what is read, and booked at what was used."""

from __future__ import annotations

import asyncio

import openai
import pytest

from llm_cost_middleware.integrations.openai import wrap_openai

ASK = [{"role": "user", "content": "Count to forty."}]
MODELS = {"gpt": "openai/gpt-5-mini", "claude": "anthropic/claude-haiku-4-5-20251001"}
WRITTEN = {
    "one": {"stream": 1},
    "text": {"stream": "true"},
    "text for no": {"stream": "false"},
    "none": {"stream": None},
    "zero": {"stream": 0},
    "in the body": {"extra_body": {"stream": True}},
    "in the body, with options": {"extra_body": {"stream": True, "stream_options": {"include_usage": True}}},
    "not in the body": {"stream": True, "extra_body": {"stream": False}},
    "both": {"stream": True, "extra_body": {"stream": True}},
}
WAYS = ("completion", "acompletion", "responses", "aresponses", "anthropic_messages")


async def asked(router, way, name, given):
    if "responses" in way:
        answer = getattr(router, way)(model=name, input="Count.", max_output_tokens=40, **given)
    else:
        answer = getattr(router, way)(model=name, messages=ASK, max_tokens=40, **given)
    answer = await answer if way.startswith("a") else answer
    if way.startswith("a") and hasattr(answer, "__anext__"):  # LiteLLM's chat stream has both
        return [chunk async for chunk in answer]
    return list(answer) if hasattr(answer, "__next__") else answer


def sampled():
    for number, written in enumerate(WRITTEN):
        for place, (way, name) in enumerate((way, name) for way in WAYS for name in MODELS):
            yield pytest.param(written, way, name, marks=() if (number + place) % 3 == 0 else pytest.mark.soak)


@pytest.mark.parametrize(("written", "way", "name"), list(sampled()))
def test_a_call_is_booked_at_what_it_used(written, way, name, harness):
    router = harness.router([harness.deployment(name, MODELS[name])])
    try:
        asyncio.run(asked(router, way, name, WRITTEN[written]))
    except Exception:  # noqa: BLE001 - what LiteLLM or the provider refuses costs nothing
        assert harness.sim.bill.total_nanousd == harness.settled == 0
        return
    assert harness.sim.request_count == 1
    harness.agree()


@pytest.mark.parametrize("written", ["in the body", "both"])
def test_a_wrapped_client_books_what_its_body_asked_for(written, harness):
    client = wrap_openai(openai.OpenAI(base_url=harness.sim.openai_url, api_key="k"), harness.pipeline)
    answer = client.chat.completions.create(
        model="gpt-5-mini", messages=ASK, max_completion_tokens=40, **WRITTEN[written]
    )
    assert list(answer)
    harness.agree()
