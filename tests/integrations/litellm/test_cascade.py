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


def cascade(make_books, accept):
    return make_books(tiers=TIERS, routing={"policy": "cascade", "accept": accept})


@every_door
@pytest.mark.parametrize(("second", "asked"), [("paris.", 2), ("Lyon", 3)])
def test_the_strong_model_is_asked_only_where_two_cheap_ones_disagree(door, second, asked, make_books):
    books = cascade(make_books, "agreement")
    said = iter(["Paris", second, "Paris"])
    books.sim.responder = lambda _: Answer(text=next(said))
    door(books.router())
    models = [request.body["model"] for request in books.sim.requests]
    assert set(models[:2]) == {HAIKU, MINI}
    assert models[2:] == [STRONG] * (asked - 2)
    assert [record.model for record in books.pipeline.records()] == models
    books.agree()


@pytest.mark.parametrize("door", [completion, acompletion], ids=lambda door: door.__name__)
@pytest.mark.parametrize("fits", [True, False])
def test_an_answer_that_does_not_fit_its_schema_goes_up_a_tier(door, fits, make_books):
    books = cascade(make_books, "schema")
    said = iter([json.dumps({"city": "Paris"} if fits else {"town": "Paris"}), json.dumps({"city": "Paris"})])
    books.sim.responder = lambda _: Answer(text=next(said))
    answer = door(books.router(), response_format=FORMAT)
    assert books.sim.request_count == (1 if fits else 2)
    assert (books.sim.requests[-1].body["model"] == STRONG) is not fits
    assert json.loads(answer.choices[0].message.content) == {"city": "Paris"}
    books.agree()


def test_a_group_that_was_named_is_asked_once(make_books):
    books = cascade(make_books, "agreement")
    books.router().completion(MINI, ASK, max_tokens=40)
    assert books.sim.request_count == 1
