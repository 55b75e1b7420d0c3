"""HTTP clients and timeouts that a caller hands in, of httpx2 and of the older httpx: governed as any other."""

from __future__ import annotations

import asyncio

import anthropic
import httpx
import httpx2
import openai
import pytest

from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai

ASK = [{"role": "user", "content": "Count to forty."}]
LIBRARIES = pytest.mark.parametrize("http", [httpx2, httpx], ids=lambda module: module.__name__)


def chat(client, **kwargs):
    return client.chat.completions.create(model="gpt-5-mini", max_completion_tokens=9, messages=ASK, **kwargs)


def claude(client, **kwargs):
    return client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=ASK, **kwargs)


@LIBRARIES
def test_openai_takes_clients_and_timeouts_of_either_library(http, harness):
    with http.Client() as given, http.Client() as other:
        client = openai.OpenAI(
            api_key="k", base_url=harness.sim.openai_url, http_client=given, timeout=http.Timeout(9, connect=1)
        )
        wrapped = wrap_openai(client, harness.pipeline)
        chat(wrapped)
        list(chat(wrapped, stream=True))
        chat(wrapped, timeout=http.Timeout(5))
        chat(wrapped.with_options(timeout=http.Timeout(5)))
        chat(wrapped.copy(http_client=other))
        wrapped.chat.completions.with_raw_response.create(
            model="gpt-5-mini", max_completion_tokens=9, messages=ASK
        ).parse()
    assert harness.sim.request_count == 6
    harness.agree()


@LIBRARIES
async def test_an_asynchronous_openai_client_is_no_different(http, harness):
    async with http.AsyncClient() as given:
        client = openai.AsyncOpenAI(
            api_key="k", base_url=harness.sim.openai_url, http_client=given, timeout=http.Timeout(9)
        )
        wrapped = wrap_openai(client, harness.pipeline)
        await chat(wrapped)
        async for _ in await chat(wrapped.with_options(timeout=http.Timeout(5)), stream=True):
            pass
    assert harness.sim.request_count == 2
    harness.agree()


async def test_a_stream_that_is_closed_by_the_newer_name_is_settled(harness):
    client = openai.AsyncOpenAI(api_key="k", base_url=harness.sim.openai_url)
    stream = await chat(wrap_openai(client, harness.pipeline), stream=True)
    await anext(aiter(stream))
    await (stream.aclose() if hasattr(stream, "aclose") else stream.close())  # openai 2 only knows close()
    await asyncio.to_thread(harness.cover)
    await client.close()


def test_anthropic_takes_clients_and_timeouts_of_httpx2(harness):
    with httpx2.Client() as given:
        client = anthropic.Anthropic(
            api_key="k", base_url=harness.sim.anthropic_url, http_client=given, timeout=httpx2.Timeout(9, connect=1)
        )
        wrapped = wrap_anthropic(client, harness.pipeline)
        claude(wrapped)
        list(claude(wrapped, stream=True))
        claude(wrapped, timeout=httpx2.Timeout(5))
        claude(wrapped.with_options(timeout=httpx2.Timeout(5)))
    assert harness.sim.request_count == 4
    harness.agree()
