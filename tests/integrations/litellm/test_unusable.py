"""Answers with HTTP 200 that LiteLLM cannot use: it raises an error of its own, and the provider has billed."""

from __future__ import annotations

import asyncio

import pytest

from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.simulator import Fault

ASK = [{"role": "user", "content": "Count to forty."}]
CHAT = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini", "choices": None,
    "usage": {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050},
}  # fmt: skip
CLAUDE = {
    "id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-4-5-20251001", "content": None,
    "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 1000, "output_tokens": 50},
}  # fmt: skip
MODELS = {"gpt-5-mini": 1000 * 250 + 50 * 2_000, "claude-haiku-4-5-20251001": 1000 * 1_000 + 50 * 5_000}
"""Each with what 1000 tokens of input and 50 of output cost, in nano-dollars."""
NONSENSE = {"list": [], "null": "null", "html": "<html>busy</html>", "cut": '{"id": "c", "usage": {"prompt_tok'}


def chat(router, model):
    return router.completion(model, ASK, max_tokens=20)


def achat(router, model):
    return asyncio.run(router.acompletion(model, ASK, max_tokens=20))


def responses(router, model):
    return router.responses(model=model, input="Count.", max_output_tokens=20)


def aresponses(router, model):
    return asyncio.run(router.aresponses(model=model, input="Count.", max_output_tokens=20))


def messages(router, model):
    return asyncio.run(router.anthropic_messages(model=model, messages=ASK, max_tokens=20))


DOORS = [chat, achat, responses, aresponses, messages]
every_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
every_model = pytest.mark.parametrize("model", MODELS)


@pytest.fixture
def once(make_harness):
    return make_harness(retry={"max_attempts": 1})


@every_door
@every_model
@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_booked_at_what_was_set_aside(door, model, kind, once):
    once.sim.script(Fault.status(200, body=NONSENSE[kind]))
    status = "unconfirmed"
    try:
        door(once.router(), model)
        status = "estimated"  # the messages API of Claude is handed on as it came, whatever it is
    except Exception as error:  # noqa: BLE001 - LiteLLM's classes differ by endpoint
        assert not isinstance(error, LLMCostError)  # noqa: PT017 - either end is right
    assert once.sim.request_count == 1
    (reserved,) = (row.amount_nanousd for row in once.pipeline.ledger.rows() if row.kind == "reserve")
    assert once.settled == reserved > 0
    assert once.statuses == [status]


@pytest.mark.parametrize("door", [chat, achat], ids=lambda door: door.__name__)
@every_model
def test_a_bill_in_the_body_is_the_one_that_is_booked(door, model, once):
    once.sim.script(Fault.status(200, body=CHAT if model.startswith("gpt") else CLAUDE))
    with pytest.raises(Exception, match=r"."):
        door(once.router(), model)
    assert once.settled == MODELS[model]


@every_door
@every_model
def test_a_500_of_the_provider_itself_is_distinguished_from_it(door, model, once):
    for body in (None, "<html>boom</html>"):
        once.sim.script(Fault.status(500, **({} if body is None else {"body": body})))
        with pytest.raises(Exception, match=r"."):
            door(once.router(), model)
    assert once.settled == 0
    assert [row.kind for row in once.pipeline.ledger.rows()] == ["reserve", "void"] * 2


@pytest.mark.parametrize("door", [chat, achat], ids=lambda door: door.__name__)
@every_model
def test_without_the_patch_of_synchronous_calls_nothing_that_was_billed_is_lost(door, model, once, monkeypatch):
    """The patch against a repeated POST stays: where LiteLLM repeats one, up to 1.105, it decides about money."""
    import litellm

    if (original := getattr(getattr(litellm.Router, "_completion", None), "__wrapped__", None)) is not None:
        monkeypatch.setattr(litellm.Router, "_completion", original)
    router = once.router()
    for fault in (Fault.status(200, body="<html>busy</html>"), Fault.reset(billed=True), Fault.cut(after=0)):
        once.sim.script(fault)
        with pytest.raises(Exception, match=r"."):
            door(router, model)
    door(router, model)
    assert once.settled >= once.sim.bill.total_nanousd > 0
    assert once.statuses == ["unconfirmed"] * 3 + ["exact"]


@pytest.mark.parametrize("caller", ["sync", "async"])
@every_model
def test_a_stream_that_is_cut_is_covered_and_its_error_reaches_the_caller(caller, model, once):
    import litellm

    once.sim.script(Fault.cut(after=6, clean=True))
    router = once.router()
    got, error = [], None

    async def consume():
        stream = await router.acompletion(model, ASK, max_tokens=40, stream=True)
        async for chunk in stream:
            got.append(chunk)  # noqa: PERF401 - what came before the error counts

    try:
        if caller == "async":
            asyncio.run(consume())
        else:
            for chunk in router.completion(model, ASK, max_tokens=40, stream=True):
                got.append(chunk)  # noqa: PERF402 - the same
    except Exception as raised:  # noqa: BLE001 - up to 1.109 LiteLLM ends such a stream as if it were whole
        error = raised
    assert got
    if hasattr(litellm.Router, "registry"):
        assert isinstance(error, litellm.APIConnectionError)
    once.cover()
