"""Cheap models first through ``CostAwareRouter``: over both providers, on what LiteLLM's answers say."""

from __future__ import annotations

import asyncio
import json

import pytest

from llm_cost_middleware.simulator import Answer

ASK = [{"role": "user", "content": "Capital of France?"}]
HAIKU, MINI, STRONG = "claude-haiku-4-5-20251001", "gpt-5-mini", "claude-opus-4-5"
TIERS = [
    {"name": "small", "models": [f"anthropic/{HAIKU}", f"openai/{MINI}"]},
    {"name": "large", "models": [f"anthropic/{STRONG}"]},
]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}


def completion(router, **kwargs):
    return router.completion("smart", ASK, max_tokens=400, **kwargs)


def acompletion(router, **kwargs):
    return asyncio.run(router.acompletion("smart", ASK, max_tokens=400, **kwargs))


def responses(router):
    return router.responses(model="smart", input="Capital of France?", max_output_tokens=400)


def anthropic_messages(router):
    return asyncio.run(router.anthropic_messages(model="smart", messages=ASK, max_tokens=400))


every_door = pytest.mark.parametrize(
    "door", [completion, acompletion, responses, anthropic_messages], ids=lambda door: door.__name__
)


def cascade(make_harness, accept):
    return make_harness(tiers=TIERS, routing={"policy": "cascade", "accept": accept})


@every_door
@pytest.mark.parametrize(("second", "asked"), [("paris.", 2), ("Lyon", 3)])
def test_the_strong_model_is_asked_only_where_two_cheap_ones_disagree(door, second, asked, make_harness):
    harness = cascade(make_harness, "agreement")
    said = iter(["Paris", second, "Paris"])
    harness.sim.responder = lambda _: Answer(text=next(said))
    door(harness.router())
    models = [request.body["model"] for request in harness.sim.requests]
    assert set(models[:2]) == {HAIKU, MINI}
    assert models[2:] == [STRONG] * (asked - 2)
    assert [record.model for record in harness.pipeline.records()] == models
    harness.agree()


@pytest.mark.parametrize("door", [completion, acompletion], ids=lambda door: door.__name__)
@pytest.mark.parametrize("fits", [True, False])
def test_an_answer_that_does_not_fit_its_schema_escalates_one_tier(door, fits, make_harness):
    harness = cascade(make_harness, "schema")
    said = iter([json.dumps({"city": "Paris"} if fits else {"town": "Paris"}), json.dumps({"city": "Paris"})])
    harness.sim.responder = lambda _: Answer(text=next(said))
    answer = door(harness.router(), response_format=FORMAT)
    assert harness.sim.request_count == (1 if fits else 2)
    assert (harness.sim.requests[-1].body["model"] == STRONG) is not fits
    assert json.loads(answer.choices[0].message.content) == {"city": "Paris"}
    harness.agree()


def test_a_group_that_was_named_is_asked_once(make_harness):
    harness = cascade(make_harness, "agreement")
    harness.router().completion(MINI, ASK, max_tokens=40)
    assert harness.sim.request_count == 1
