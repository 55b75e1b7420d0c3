"""What LiteLLM answers itself, out of a ``mock_response`` or its cache, costs nothing; what it sends is booked."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from llm_cost_middleware.simulator import Fault

ASK = [{"role": "user", "content": "Count to forty."}]
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(router, **more):
    answer = router.completion(model="m", messages=ASK, max_tokens=20, **more)
    return list(answer) if more.get("stream") else answer


async def achat(router, **more):
    answer = await router.acompletion(model="m", messages=ASK, max_tokens=20, **more)
    return [chunk async for chunk in answer] if more.get("stream") else answer


def responses(router, **more):
    return router.responses(model="m", input="Count.", max_output_tokens=20, **more)


async def aresponses(router, **more):
    answer = await router.aresponses(model="m", input="Count.", max_output_tokens=20, **more)
    return [event async for event in answer] if hasattr(answer, "__aiter__") else answer


async def messages(router, **more):
    answer = await router.anthropic_messages(model="m", messages=ASK, max_tokens=20, **more)
    return [event async for event in answer] if hasattr(answer, "__aiter__") else answer


def run(door, router, **more):
    if asyncio.iscoroutinefunction(door):
        return asyncio.run(door(router, **more))
    return door(router, **more)


DOORS = {
    "chat": (chat, {}), "chat stream": (chat, {"stream": True}), "achat": (achat, {}),
    "achat stream": (achat, {"stream": True}), "responses": (responses, {}), "aresponses": (aresponses, {}),
    "aresponses stream": (aresponses, {"stream": True}), "messages": (messages, {}),
    "messages stream": (messages, {"stream": True}),
}  # fmt: skip
every_door = pytest.mark.parametrize(("door", "how"), DOORS.values(), ids=DOORS)
every_model = pytest.mark.parametrize("model", ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5-20251001"])


@pytest.fixture
def once(make_harness):
    return make_harness(retry={"max_attempts": 1})


def settles_at(once, amount):
    for _ in range(200):  # a stream may be left to its finaliser
        if once.pipeline.ledger.balance("global").pending_nanousd == 0:
            break
        time.sleep(0.01)
    assert once.settled == amount


@every_door
@pytest.mark.parametrize(
    ("model", "where"),
    [
        ("openai/gpt-5-mini", "call"),
        ("anthropic/claude-haiku-4-5-20251001", "deployment"),
        ("openai/gpt-5-mini", "router"),
    ],
)
def test_a_mock_response_costs_nothing_wherever_it_is_set(door, how, model, where, once):
    asked = {"mock_response": "hello"}
    deployment = once.deployment("m", model, **(asked if where == "deployment" else {}))
    options = {"default_litellm_params": dict(asked)} if where == "router" else {}
    router = once.router([deployment], **options)
    run(door, router, **how, **(asked if where == "call" else {}))
    if once.sim.request_count:  # LiteLLM does not heed the router's defaults at every door
        assert where == "router"
        assert once.settled >= once.sim.bill.total_nanousd > 0
    else:
        settles_at(once, 0)
        assert once.statuses == ["exact"]


@pytest.mark.parametrize(("door", "how"), [DOORS[name] for name in ("chat", "achat", "achat stream")])
@pytest.mark.parametrize(
    "asked",
    [
        {"mock_tool_calls": [TOOL_CALL]},
        {"mock_response": "litellm.RateLimitError"},
        {"mock_response": "litellm.InternalServerError"},
        {"mock_response": ValueError("boom")},
        {"mock_timeout": True, "timeout": 0.01},
    ],
    ids=["tool calls", "rate limit", "500", "exception", "timeout"],
)
def test_other_mocks_of_chats_send_nothing_and_cost_nothing_whether_they_answer_or_fail(door, how, asked, once):
    router = once.router([once.deployment("m", "openai/gpt-5-mini")])
    with suppress(Exception):  # it may be asked to fail
        run(door, router, **how, **asked)
    assert once.sim.request_count == 0
    settles_at(once, 0)


@pytest.mark.parametrize(("door", "how"), [DOORS[name] for name in ("aresponses", "messages")])
@pytest.mark.parametrize("asked", [{"mock_tool_calls": [TOOL_CALL]}, {"mock_response": ""}], ids=["calls", "empty"])
def test_a_mock_that_litellm_does_not_heed_is_a_call_like_any_other(door, how, asked, once):
    run(door, once.router([once.deployment("m", "openai/gpt-5-mini")]), **how, **asked)
    assert once.sim.request_count == 1
    assert once.settled == once.sim.bill.total_nanousd > 0


@pytest.mark.parametrize(
    ("door", "how"), [DOORS[name] for name in ("chat", "chat stream", "achat stream", "aresponses")]
)
@every_model
def test_a_deployment_whose_key_is_called_like_that_of_a_mock_is_billed(door, how, model, once):
    for key in ("mock-key", "my-secret-key"):
        run(door, once.router([once.deployment("m", model) | {"litellm_params": {
            **once.deployment("m", model)["litellm_params"], "api_key": key}}]), **how)  # fmt: skip
    assert once.sim.request_count == 2
    assert once.settled == once.sim.bill.total_nanousd > 0


@pytest.fixture
def logged(once, listeners):
    from llm_cost_middleware.integrations.litellm import CostLogger

    listeners.append(CostLogger(once.pipeline))
    return once


async def _afterwards(coroutine, done):
    answer = await coroutine
    for _ in range(400):
        if done():
            break
        await asyncio.sleep(0.01)
    return answer


@pytest.mark.parametrize("name", ["chat", "chat stream", "achat", "achat stream", "aresponses", "messages"])
@every_model
@pytest.mark.parametrize("mocked", [True, False])
def test_the_logger_books_what_was_sent_and_no_mock(name, model, mocked, logged):
    import litellm

    own = f"{name} {model} {mocked}"
    params = logged.deployment("m", model)["litellm_params"] | {"api_key": "mock-key", "litellm_call_id": own}
    sent = params | ({"mock_response": "hello"} if mocked else {})

    class Direct:
        """LiteLLM's own functions, called as the doors call a router."""

        completion = staticmethod(lambda **kw: litellm.completion(**kw | sent))
        acompletion = staticmethod(lambda **kw: litellm.acompletion(**kw | sent))
        aresponses = staticmethod(lambda **kw: litellm.aresponses(**kw | sent))
        anthropic_messages = staticmethod(lambda **kw: litellm.anthropic_messages(**kw | sent))

    door, how = DOORS[name]
    if "stream" in name:
        how = how | {"stream_options": {"include_usage": True}}
    booked = lambda: [
        row.amount_nanousd for row in logged.pipeline.ledger.rows() if row.id.startswith(f"logged.{own[:48]}")
    ]
    if asyncio.iscoroutinefunction(door):
        asyncio.run(_afterwards(door(Direct, **how), lambda: bool(booked()) or (mocked and _idle())))
    else:
        door(Direct, **how)
        for _ in range(200 if not mocked else 30):
            if booked():
                break
            time.sleep(0.01)
    assert logged.sim.request_count == (0 if mocked else 1)
    assert sum(booked()) == (0 if mocked else logged.sim.bill.total_nanousd)
    assert bool(booked()) is not mocked


_waited = [0]


def _idle():
    """After a while, where nothing is to come."""
    _waited[0] += 1
    return _waited[0] % 40 == 0


@pytest.mark.parametrize("name", ["chat", "chat stream", "achat", "achat stream", "aresponses"])
@every_model
def test_an_answer_out_of_litellms_cache_costs_nothing(name, model, once, monkeypatch):
    import litellm

    pytest.importorskip("fastapi", reason="LiteLLM's cache imports it")
    from litellm.caching import Cache

    monkeypatch.setattr(litellm, "cache", Cache(type="local"))
    router = once.router([once.deployment("m", model)], cache_responses=True)
    door, how = DOORS[name]
    for _ in range(3):
        run(door, router, **how)
    billed = once.sim.bill.total_nanousd
    settles_at(once, billed)
    if name in ("chat", "achat"):  # of streams not in every version
        assert once.sim.request_count < 3, "LiteLLM answered some of them out of its cache"
    assert billed > 0


@pytest.mark.parametrize(("door", "how"), [DOORS[name] for name in ("chat", "achat", "achat stream", "aresponses")])
def test_an_error_of_the_provider_is_none_of_litellms_own(door, how, once):
    once.sim.script(Fault.status(200, body="<html>busy</html>"))
    with suppress(Exception):  # what LiteLLM makes of it differs by door
        run(door, once.router([once.deployment("m", "openai/gpt-5-mini")]), **how)
    assert once.settled > 0
