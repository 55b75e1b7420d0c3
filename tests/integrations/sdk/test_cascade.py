"""Cheap models first through wrapped clients: agreement and schemas decide on what the SDKs' own answers say."""

from __future__ import annotations

import json

import pytest

from llm_cost_middleware.simulator import Answer

ASK = [{"role": "user", "content": "Capital of France?"}]
CHEAP = {
    "anthropic": ["anthropic/claude-haiku-4-5-20251001", "anthropic/claude-sonnet-5"],
    "openai": ["openai/gpt-5-nano", "openai/gpt-5-mini"],
}
STRONG = {"anthropic": "claude-opus-4-6", "openai": "gpt-5.1"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def cascade(make_harness, sdk, accept):
    tiers = [{"name": "small", "models": CHEAP[sdk]}, {"name": "large", "models": [f"{sdk}/{STRONG[sdk]}"]}]
    return make_harness(tiers=tiers, routing={"policy": "cascade", "accept": accept})


def messages(client, schema=None, **kwargs):
    said = {} if schema is None else {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    return client.messages.create(model="smart", max_tokens=400, messages=ASK, **said, **kwargs)


def raw_messages(client, schema=None, **kwargs):
    return messages(type("Raw", (), {"messages": client.messages.with_raw_response}), schema, **kwargs).parse()


def chat(client, schema=None, **kwargs):
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    said = {} if schema is None else {"response_format": form}
    return client.chat.completions.create(model="smart", max_completion_tokens=400, messages=ASK, **said, **kwargs)


def responses(client, schema=None, **kwargs):
    said = {} if schema is None else {"text": {"format": {"type": "json_schema", "name": "city", "schema": schema}}}
    return client.responses.create(model="smart", max_output_tokens=400, input="Capital of France?", **said, **kwargs)


DOORS = {messages: "anthropic", raw_messages: "anthropic", chat: "openai", responses: "openai"}
every_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)


@every_door
@pytest.mark.parametrize(("second", "asked"), [("paris.", 2), ("Lyon", 3)])
def test_the_strong_model_is_asked_only_where_two_cheap_ones_disagree(door, second, asked, make_harness, clients):
    sdk = DOORS[door]
    harness = cascade(make_harness, sdk, "agreement")
    said = iter(["Paris", second, "Paris"])
    harness.sim.responder = lambda _: Answer(text=next(said))
    answer = door(harness.wrap(clients)[sdk])
    assert harness.sim.request_count == len(harness.statuses) == asked
    models = [request.body["model"] for request in harness.sim.requests]
    assert len(set(models)) == asked
    assert (STRONG[sdk] in models) is (asked == 3)
    assert answer.model.startswith(models[-1] if asked == 3 else models[0])
    harness.agree()


@every_door
@pytest.mark.parametrize("fits", [True, False])
def test_an_answer_that_does_not_fit_its_schema_escalates_one_tier(door, fits, make_harness, clients):
    sdk = DOORS[door]
    harness = cascade(make_harness, sdk, "schema")
    said = iter([json.dumps({"city": "Paris"} if fits else {"town": "Paris"}), json.dumps({"city": "Paris"})])
    harness.sim.responder = lambda _: Answer(text=next(said))
    answer = door(harness.wrap(clients)[sdk], SCHEMA)
    assert harness.sim.request_count == (1 if fits else 2)
    assert answer.model.startswith(STRONG[sdk]) is not fits
    harness.agree()


@pytest.mark.parametrize("sdk", ["anthropic", "openai"])
async def test_asynchronous_clients_escalate_too(sdk, make_harness, async_clients):
    harness = cascade(make_harness, sdk, "agreement")
    said = iter(["Paris", "Lyon", "Paris"])
    harness.sim.responder = lambda _: Answer(text=next(said))
    client = harness.wrap(async_clients)[sdk]
    answer = await (messages if sdk == "anthropic" else chat)(client)
    assert harness.sim.request_count == 3
    assert answer.model.startswith(STRONG[sdk])
    harness.agree()


def test_a_model_that_was_named_is_asked_once(make_harness, clients):
    harness = cascade(make_harness, "anthropic", "agreement")
    harness.wrap(clients)["anthropic"].messages.create(model="claude-haiku-4-5", messages=ASK, max_tokens=16)
    assert harness.sim.request_count == 1
