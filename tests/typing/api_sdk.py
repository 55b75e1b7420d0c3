"""Never run: type checkers must see the wrapped clients exactly as the SDKs' own."""

from __future__ import annotations

from typing import assert_type

from anthropic import Anthropic, AsyncAnthropic, AsyncStream, Stream
from anthropic.types import Message, RawMessageStreamEvent
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai


def synchronous(claude: Anthropic, gpt: OpenAI) -> None:
    """Clients, answers and streams keep their types."""
    assert_type(wrap_anthropic(claude), Anthropic)
    assert_type(wrap_openai(gpt), OpenAI)
    messages = wrap_anthropic(claude).messages
    assert_type(messages.create(model="smart", max_tokens=1, messages=[{"role": "user", "content": "x"}]), Message)
    assert_type(
        messages.create(model="smart", max_tokens=1, messages=[{"role": "user", "content": "x"}], stream=True),
        Stream[RawMessageStreamEvent],
    )
    chat = wrap_openai(gpt).chat.completions
    assert_type(chat.create(model="smart", messages=[{"role": "user", "content": "x"}]), ChatCompletion)
    assert_type(
        messages.create(model="smart", max_tokens=1, messages=[], extra_body={"llm_cost": {"user": "42"}}), Message
    )
    assert_type(wrap_openai(gpt).responses.create(model="smart", input="x"), Response)


async def asynchronous(claude: AsyncAnthropic, gpt: AsyncOpenAI) -> None:
    """The same, awaited."""
    assert_type(wrap_anthropic(claude), AsyncAnthropic)
    assert_type(wrap_openai(gpt), AsyncOpenAI)
    messages = wrap_anthropic(claude).messages
    assert_type(
        await messages.create(model="smart", max_tokens=1, messages=[{"role": "user", "content": "x"}], stream=True),
        AsyncStream[RawMessageStreamEvent],
    )
    chat = wrap_openai(gpt).chat.completions
    assert_type(await chat.create(model="smart", messages=[{"role": "user", "content": "x"}]), ChatCompletion)


def wrong(claude: Anthropic) -> None:
    """A mistake is still one."""
    wrap_anthropic(claude).messages.create(model="smart", messages=[])  # type: ignore[call-overload]  # no max_tokens
    # no keyword can be added to a method without writing all its overloads anew: the SDK's own signatures stand
    wrap_anthropic(claude).messages.create(  # type: ignore[call-overload]
        model="smart", max_tokens=1, messages=[], extra={"llm_cost": {"user": "42"}}
    )
    wrap_openai("client")  # type: ignore[type-var]  # no client
