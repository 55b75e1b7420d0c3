"""Middleware inside a client of Anthropic's: it sees every request, and sends none that nothing is held for."""

from __future__ import annotations

import asyncio

import anthropic
import pytest

from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.simulator import Fault

CLAUDE = {"model": "claude-haiku-4-5", "max_tokens": 40, "messages": [{"role": "user", "content": "Hello"}]}
pytestmark = pytest.mark.skipif(
    not hasattr(anthropic.Anthropic, "with_middleware"), reason="this version of the SDK has no middleware"
)


def twice(request, call_next):
    call_next(request)
    return call_next(request)


async def atwice(request, call_next):
    await call_next(request)
    return await call_next(request)


def once(request, call_next):
    return call_next(request)


def made(harness, middleware, way):
    plain = {"base_url": harness.sim.anthropic_url, "api_key": "k"}
    if way == "own":
        return wrap_anthropic(anthropic.Anthropic(**plain, middleware=[once, middleware]), harness.pipeline)
    wrapped = wrap_anthropic(anthropic.Anthropic(**plain, middleware=[once]), harness.pipeline)
    return wrapped.with_middleware(middleware) if way == "added" else wrapped.with_options(middleware=[middleware])


every_way = pytest.mark.parametrize("way", ["own", "added", "optioned"])


@every_way
def test_a_second_request_in_one_attempt_is_not_sent(harness, way):
    client = made(harness, twice, way)
    with pytest.raises(LLMCostError, match="middleware"):
        client.messages.create(**CLAUDE)
    assert harness.sim.request_count == 1
    assert harness.settled >= harness.sim.bill.total_nanousd > 0


@every_way
def test_what_sends_once_is_served_as_ever(harness, way):
    client = made(harness, once, way)
    client.messages.create(**CLAUDE)
    list(client.messages.create(**CLAUDE, stream=True))
    client.with_options(timeout=20).messages.with_raw_response.create(**CLAUDE).parse()
    client.messages.count_tokens(**{name: CLAUDE[name] for name in ("model", "messages")})
    assert harness.sim.request_count == 4
    assert len(harness.pipeline.records()) == 3
    harness.agree()


def test_each_of_our_own_attempts_may_leave(harness):
    client = made(harness, once, "own")
    harness.sim.script(Fault.status(529), times=2)
    client.messages.create(**CLAUDE)
    assert harness.sim.request_count == 3
    harness.agree()


def test_the_asynchronous_client_too(harness):
    async def ask():
        plain = anthropic.AsyncAnthropic(base_url=harness.sim.anthropic_url, api_key="k", middleware=[atwice])
        async with plain:
            await wrap_anthropic(plain, harness.pipeline).messages.create(**CLAUDE)

    with pytest.raises(LLMCostError, match="middleware"):
        asyncio.run(ask())
    assert harness.sim.request_count == 1
    assert harness.settled >= harness.sim.bill.total_nanousd > 0
