"""A guarded model sends through the clients that the user's model holds: given, assigned, patched or governed ones."""

from __future__ import annotations

import asyncio
import copy
from unittest.mock import AsyncMock, MagicMock, patch

import anthropic
import openai
import pytest

from llm_cost_middleware.integrations.anthropic import paths as anthropic_paths
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.integrations.openai import paths as openai_paths
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.sdk_clients.middleware import COUNTING
from llm_cost_middleware.simulator import Fault

ELSEWHERE = "http://127.0.0.1:9/v1"  # nobody answers there
GPT = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "mocked"}}],
}  # fmt: skip
CLAUDE = {
    "id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-4-5-20251001",
    "content": [{"type": "text", "text": "mocked"}], "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}  # fmt: skip


def ask(model, how, *clients):
    """The text of an answer; the clients are closed where they were used."""
    if "async" in how:
        return asyncio.run(aask(model, how, clients))
    try:
        return model.invoke("x").text if how == "sync" else "".join(chunk.text for chunk in model.stream("x"))
    finally:
        for client in clients:
            client.close()


async def aask(model, how, clients):
    try:
        if how == "async":
            return (await model.ainvoke("x")).text
        return "".join([chunk.text async for chunk in model.astream("x")])
    finally:
        for client in clients:
            await client.close()


HOWS = ("sync", "stream", "async", "async stream")


def own_openai(sim, how, **options):
    kind = openai.AsyncOpenAI if "async" in how else openai.OpenAI
    return kind(api_key="mine", base_url=sim.openai_url, **options)


def own_anthropic(sim, how, **options):
    kind = anthropic.AsyncAnthropic if "async" in how else anthropic.Anthropic
    return kind(api_key="mine", base_url=sim.anthropic_url, **options)


def fields_of(client, how):
    prefix = "async_" if "async" in how else ""
    return {f"root_{prefix}client": client, f"{prefix}client": client.chat.completions}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("place", ["given", "assigned", "patched", "assigned before"])
@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_the_clients_of_chat_openai_are_used(make_harness, sim, how, place, responses):
    from langchain_openai import ChatOpenAI

    harness, mine = make_harness(), own_openai(sim, how)
    fields = fields_of(mine, how)
    plain = ChatOpenAI(
        model="gpt-5-mini", api_key="k", base_url=ELSEWHERE, use_responses_api=responses,
        **(fields if place == "given" else {}),
    )  # fmt: skip
    if place == "assigned before":
        for name, value in fields.items():
            setattr(plain, name, value)
    model = guard(plain, harness.pipeline, pinned=True)
    if place == "assigned":
        for name, value in fields.items():
            setattr(model, name, value)
    if place == "patched":
        with patch.multiple(model, **fields):
            assert ask(model, how, mine)
    else:
        assert ask(model, how, mine)
    assert sim.request_count == 1
    harness.check()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("place", ["assigned", "patched", "assigned before", "subclass"])
def test_the_clients_of_chat_anthropic_are_used(make_harness, sim, how, place):
    from langchain_anthropic import ChatAnthropic

    harness, mine = make_harness(), own_anthropic(sim, how)
    name = "_async_client" if "async" in how else "_client"
    kind = type("Mine", (ChatAnthropic,), {name: property(lambda _: mine)}) if place == "subclass" else ChatAnthropic
    plain = kind(model="claude-haiku-4-5-20251001", api_key="k", base_url=ELSEWHERE)
    if place == "assigned before":
        setattr(plain, name, mine)
    model = guard(plain, harness.pipeline, pinned=True)
    if place == "assigned":
        setattr(model, name, mine)
    if place == "patched":
        with patch.object(model, name, mine):
            assert ask(model, how, mine)
    else:
        assert ask(model, how, mine)
    assert sim.request_count == 1
    harness.check()


@pytest.mark.parametrize("what", ["client", "create", "create of the client before guarding", "raw create"])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_mocked_openai_client_is_asked_and_nobody_else(make_harness, gpt, sim, how, what):
    """As a user's unit test mocks it: the whole client, or one method of it."""
    harness, mock_kind = make_harness(), AsyncMock if how == "async" else MagicMock
    answer = openai.types.chat.ChatCompletion.model_validate(GPT)
    raw = MagicMock()
    raw.parse.return_value = answer
    plain, name = gpt(), "async_client" if how == "async" else "client"
    model = guard(plain, harness.pipeline, pinned=True)
    if what == "client":
        mock = MagicMock()
        mock.with_raw_response.create = mock_kind(return_value=raw)
        patched = patch.object(model, name, mock)
    elif what == "raw create":
        held = getattr(model, name).with_raw_response
        patched = patch.object(held, "create", mock_kind(return_value=raw))
    else:
        held = getattr(plain if "before" in what else model, name)
        patched = patch.object(held, "create", mock_kind(return_value=raw))
    with patched:
        assert ask(model, how) == "mocked"
    assert sim.request_count == 0
    assert ask(model, how) != "mocked", "and no longer than that"
    assert sim.request_count == 1


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_mocked_anthropic_client_is_asked_and_nobody_else(make_harness, claude, sim, how):
    harness, mock_kind = make_harness(), AsyncMock if how == "async" else MagicMock
    raw = MagicMock()
    raw.parse.return_value = anthropic.types.Message.model_validate(CLAUDE)
    model, name = guard(claude(), harness.pipeline, pinned=True), "_async_client" if how == "async" else "_client"
    held = getattr(model, name)
    with patch.object(held.messages.with_raw_response, "create", mock_kind(return_value=raw)):
        assert ask(model, how) == "mocked"
    assert sim.request_count == 0
    assert ask(model, how) != "mocked"
    assert sim.request_count == 1


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_governed_client_inside_a_guarded_model_is_booked_once(make_harness, sim, claude, gpt, how, provider):
    harness = make_harness()
    if provider == "openai":
        model = guard(gpt(), harness.pipeline, pinned=True)
        mine = wrap_openai(own_openai(sim, how), harness.pipeline)
        for name, value in fields_of(mine, how).items():
            setattr(model, name, value)
    else:
        model = guard(claude(), harness.pipeline, pinned=True)
        mine = wrap_anthropic(own_anthropic(sim, how), harness.pipeline)
        setattr(model, "_async_client" if "async" in how else "_client", mine)
    assert ask(model, how, mine)
    assert sim.request_count == 1
    harness.check()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_no_client_retries_on_its_own(make_harness, sim, claude, gpt, how, provider):
    """Each attempt has a reservation, also after the plain client has cached its resources and raw methods."""
    harness = make_harness(retry={"max_attempts": 2, "base_s": 0.01})
    if provider == "openai":
        client = own_openai(sim, how)
        assert client.with_raw_response.chat.completions.create is not None
        assert client.chat.completions.with_raw_response.create is not None
        model = guard(gpt(**fields_of(client, how)), harness.pipeline, pinned=True)
    else:
        model, client = guard(claude(), harness.pipeline, pinned=True), own_anthropic(sim, how)
        assert client.messages.with_raw_response.create is not None
        setattr(model, "_async_client" if "async" in how else "_client", client)
    sim.script(Fault.status(500), times=9)
    with pytest.raises(Exception, match="500"):
        ask(model, how, client)
    assert sim.request_count == 2
    assert client.max_retries == 2, "the user's client is as it was"
    harness.check(exact=False)


def test_connections_of_langchain_are_kept_apart_by_event_loop(make_harness, claude, gpt):
    harness = make_harness()
    for plain in (claude(), gpt()):
        model = guard(plain, harness.pipeline, pinned=True)
        for _ in range(3):
            assert asyncio.run(model.ainvoke("x")).text
    harness.check()


def twice(request, call_next):
    call_next(request)
    return call_next(request)


async def atwice(request, call_next):
    await call_next(request)
    return await call_next(request)


def counted(request):
    probe = copy.copy(request)
    probe.options = request.options.model_copy()
    probe.options.url = "/v1/messages/count_tokens"
    probe.options.json_data = {name: request.json[name] for name in ("model", "messages")}
    return probe


def counts_first(request, call_next):
    call_next(counted(request))
    return call_next(request)


async def acounts_first(request, call_next):
    await call_next(counted(request))
    return await call_next(request)


@pytest.mark.skipif(not hasattr(anthropic.Anthropic, "with_middleware"), reason="this SDK has no middleware")
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("governed", [False, True], ids=["plain", "wrapped"])
@pytest.mark.parametrize(("middleware", "amiddleware", "sent"), [(twice, atwice, 1), (counts_first, acounts_first, 2)])
def test_a_middleware_of_a_client_sends_what_is_held_for_once_and_may_count_first(
    make_harness, sim, how, governed, middleware, amiddleware, sent
):
    from langchain_anthropic import ChatAnthropic

    harness, name = make_harness(), "_async_client" if "async" in how else "_client"
    mine = own_anthropic(sim, how, middleware=[amiddleware if "async" in how else middleware])
    plain = ChatAnthropic(model="claude-haiku-4-5-20251001", api_key="k", base_url=ELSEWHERE)
    setattr(plain, name, wrap_anthropic(mine, harness.pipeline) if governed else mine)
    assert ask(guard(plain, harness.pipeline, pinned=True), how, mine)
    assert (sim.request_count, len(sim.bill.lines)) == (sent, 1)
    harness.check()


def test_the_paths_that_count_are_those_of_the_tables():
    told = [
        pattern for table in (anthropic_paths.FREE, openai_paths.FREE) for pattern in table["counting tokens is free"]
    ]
    assert [pattern.removeprefix("/v1") for pattern in told] == list(COUNTING)
