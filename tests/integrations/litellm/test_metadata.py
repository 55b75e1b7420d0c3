"""Metadata in process: they are the application's own, and what is odd in them breaks no call that LiteLLM serves."""

from __future__ import annotations

import asyncio
import copy
from uuid import UUID

import pytest

from llm_cost_middleware.errors import LLMCostError

ASK = [{"role": "user", "content": "Count to forty."}]


def chat(router, **more):
    return router.completion("gpt", ASK, max_tokens=20, **more)


def achat(router, **more):
    return asyncio.run(router.acompletion("gpt", ASK, max_tokens=20, **more))


def stream(router, **more):
    return list(router.completion("gpt", ASK, max_tokens=20, stream=True, **more))


def responses(router, **more):
    return router.responses(model="gpt", input="Count.", max_output_tokens=20, **more)


def aresponses(router, **more):
    return asyncio.run(router.aresponses(model="gpt", input="Count.", max_output_tokens=20, **more))


def messages(router, **more):
    return asyncio.run(router.anthropic_messages(model="claude", messages=ASK, max_tokens=20, **more))


every_door = pytest.mark.parametrize(
    "door", [chat, achat, stream, responses, aresponses, messages], ids=lambda door: door.__name__
)
ODD = {
    "null": {"metadata": None},
    "both null": {"metadata": None, "litellm_metadata": None},
    "nested": {"metadata": {"a": {"b": [None, 1]}}},
    "forged id": {"metadata": {"llm_cost_governed": "x"}, "litellm_metadata": {"llm_cost_governed": ["x"]}},
    "tags of odd types": {"metadata": {"tags": [None, 1, {}], "trace_id": 3}},
    "a list": {"metadata": ["x"]},
    "text": {"metadata": "x"},
    "LiteLLM's a list": {"litellm_metadata": ["x"]},
}


@pytest.fixture
def models(harness):
    return [
        harness.deployment("gpt", "openai/gpt-5-mini"),
        harness.deployment("claude", "anthropic/claude-haiku-4-5"),
    ]


def tried(door, router, more):
    try:
        door(router, **more)
    except Exception as error:  # noqa: BLE001 - whichever of LiteLLM's
        assert not isinstance(error, LLMCostError)  # noqa: PT017 - either end is right
        return False
    return True


@every_door
@pytest.mark.parametrize("kind", ODD)
def test_odd_metadata_break_nothing_that_the_plain_router_serves(door, kind, harness, models):
    import litellm

    served = tried(door, litellm.Router(model_list=copy.deepcopy(models), num_retries=0), copy.deepcopy(ODD[kind]))
    billed = harness.sim.bill.total_nanousd
    given = copy.deepcopy(ODD[kind])
    answered = tried(door, harness.router(models), given)
    assert answered or not served
    assert harness.settled == harness.sim.bill.total_nanousd - billed
    assert given == ODD[kind]  # they are the caller's


BAD = {
    "conversation": [{}, {"a": 1}, [], b"x", True],
    "user": [{}, ["a"], True, ""],
    "site": [{"a": 1}, ["a"]],
    "tags": ["abc", {"a": 1}, 3],
    "force_model": [{}, 3, ["a"]],
    "item_count": ["x", True, 0],
    "max_cost": ["x", "1e999999999", -1, True],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_an_attribute_that_cannot_be_meant_is_refused_before_anything_is_set_aside(name, value, harness, models):
    with pytest.raises(LLMCostError):
        chat(harness.router(models), metadata={"llm_cost": {name: value}})
    assert (harness.sim.request_count, list(harness.pipeline.ledger.rows())) == (0, [])


def test_names_are_whatever_is_written_as_one_word(harness, models):
    person = UUID(int=7)
    chat(harness.router(models), metadata={"llm_cost": {"user": person, "conversation": person, "end_user": 42}})
    (record,) = harness.pipeline.records()
    assert {f"user:{person}", "end_user:42"} <= set(record.scopes)


def test_a_forged_id_hides_nothing_from_the_logger(harness):
    import litellm

    from llm_cost_middleware.integrations.litellm import CostLogger

    logger = CostLogger(harness.pipeline)
    params = {"model": "openai/gpt-5-mini", "api_base": harness.sim.openai_url, "api_key": "k"}
    for metadata in ({"llm_cost_governed": "x"}, {"llm_cost_governed": "a.b"}, {"llm_cost_governed": None}):
        reported = []

        class Seen(litellm.integrations.custom_logger.CustomLogger):
            def log_success_event(self, kwargs, response_obj, start_time, end_time):
                reported.append((kwargs, response_obj))  # noqa: B023 - called before the next round

        answer = litellm.completion(messages=ASK, max_tokens=20, metadata=dict(metadata), **params)
        kwargs = {"custom_llm_provider": "openai", "model": "gpt-5-mini", "litellm_params": {"metadata": metadata}}
        logger.log_success_event({**kwargs, "litellm_call_id": answer.id}, answer, None, None)
    harness.agree()
