"""Every way to ask a governed host for an answer, and the counts that are none: what their product is made of."""

from __future__ import annotations

import asyncio
from functools import cache

import anthropic
import openai

from llm_cost_middleware import CostConfig, CostPipeline, CostTracker, process
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.langchain import CostCallbackHandler, guard, instrument
from llm_cost_middleware.integrations.openai import wrap_openai

HAIKU, MINI = "claude-haiku-4-5-20251001", "gpt-5-mini"
ASK = [{"role": "user", "content": "Count."}]


class Asker:
    """A pipeline on a simulated provider, and the clients to ask it through.

    Args:
        sim: The provider.
        limit: The budget, in USD.
    """

    def __init__(self, sim, limit="5"):
        self.sim = sim
        self.wrapped, self.router = cache(self._wrapped), cache(self._router)  # a client takes long to make
        self.pipeline = CostPipeline(CostConfig(
            budgets=[{"scope": "global", "limit": limit}], retry={"max_attempts": 1},
            providers={"anthropic": {"base_url": sim.anthropic_url}, "openai": {"base_url": sim.openai_url}},
        ))  # fmt: skip

    def awrapped(self, provider):
        """An asynchronous client, of one event loop."""
        return self._wrapped(provider, asynchronous=True)

    def _wrapped(self, provider, *, asynchronous=False):
        if provider == "anthropic":
            kind = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
            return wrap_anthropic(kind(base_url=self.sim.anthropic_url, api_key="k", max_retries=0), self.pipeline)
        kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
        return wrap_openai(kind(base_url=self.sim.openai_url, api_key="k", max_retries=0), self.pipeline)

    def claude(self):
        from langchain_anthropic import ChatAnthropic

        return ChatAnthropic(model=HAIKU, base_url=self.sim.anthropic_url, api_key="k", max_tokens=40, max_retries=0)

    def gpt(self, **more):
        from langchain_openai import ChatOpenAI

        more = {"max_completion_tokens": 40, **more}
        return ChatOpenAI(model=MINI, base_url=self.sim.openai_url, api_key="k", max_retries=0, **more)

    def _router(self):
        from llm_cost_middleware.integrations.litellm import CostAwareRouter

        urls = {f"anthropic/{HAIKU}": self.sim.anthropic_url, f"openai/{MINI}": self.sim.openai_url}
        models = [
            {"model_name": name.partition("/")[2], "litellm_params": {"model": name, "api_base": url, "api_key": "k"}}
            for name, url in urls.items()
        ]
        return CostAwareRouter(models, pipeline=self.pipeline)


# --- the SDKs ---------------------------------------------------------------------------------------------------------


def _messages(**more):
    def call(asker):
        answer = asker.wrapped("anthropic").messages.create(model=HAIKU, max_tokens=40, messages=ASK, **more)
        return answer.content[0].text if not more else "".join(_text_of(event) for event in answer)

    return call


def _amessages(**more):
    async def call(asker):
        client = asker.awrapped("anthropic")
        answer = await client.messages.create(model=HAIKU, max_tokens=40, messages=ASK, **more)
        return answer.content[0].text if not more else "".join([_text_of(event) async for event in answer])

    return lambda asker: asyncio.run(call(asker))


def _messages_helper(asker):
    with asker.wrapped("anthropic").messages.stream(model=HAIKU, max_tokens=40, messages=ASK) as stream:
        return "".join(stream.text_stream)


def _raw_messages(asker):
    raw = asker.wrapped("anthropic").messages.with_raw_response.create(model=HAIKU, max_tokens=40, messages=ASK)
    return raw.parse().content[0].text


def _chat(**more):
    def call(asker):
        create = asker.wrapped("openai").chat.completions.create
        answer = create(model=MINI, max_completion_tokens=40, messages=ASK, **more)
        return answer.choices[0].message.content if not more else "".join(map(_text_of, answer))

    return call


def _achat(**more):
    async def call(asker):
        create = asker.awrapped("openai").chat.completions.create
        answer = await create(model=MINI, max_completion_tokens=40, messages=ASK, **more)
        return answer.choices[0].message.content if not more else "".join([_text_of(each) async for each in answer])

    return lambda asker: asyncio.run(call(asker))


def _parsed_chat(asker):
    answer = asker.wrapped("openai").chat.completions.parse(model=MINI, messages=ASK)
    return answer.choices[0].message.content


def _chat_helper(asker):
    with asker.wrapped("openai").chat.completions.stream(
        model=MINI, messages=ASK, stream_options={"include_usage": True}
    ) as stream:
        return "".join(event.delta for event in stream if event.type == "content.delta")


def _responses(**more):
    def call(asker):
        answer = asker.wrapped("openai").responses.create(model=MINI, max_output_tokens=40, input="Count.", **more)
        return answer.output_text if not more else "".join(map(_text_of, answer))

    return call


def _aresponses(**more):
    async def call(asker):
        create = asker.awrapped("openai").responses.create
        answer = await create(model=MINI, max_output_tokens=40, input="Count.", **more)
        return answer.output_text if not more else "".join([_text_of(event) async for event in answer])

    return lambda asker: asyncio.run(call(asker))


def _parsed_response(asker):
    return asker.wrapped("openai").responses.parse(model=MINI, input="Count.").output_text


def _unread_response(asker):
    with asker.wrapped("openai").responses.with_streaming_response.create(model=MINI, input="Count.") as response:
        return response.parse().output_text


def _text_of(event):
    if hasattr(event, "choices"):
        return (event.choices[0].delta.content or "") if event.choices else ""
    delta = getattr(event, "delta", None)
    return delta if isinstance(delta, str) else getattr(delta, "text", None) or ""


# --- LangChain --------------------------------------------------------------------------------------------------------


def _models(kind):
    return {
        "claude": lambda asker: asker.claude(),
        "gpt": lambda asker: asker.gpt(),
        "gpt responses": lambda asker: asker.gpt(use_responses_api=True),
    }[kind]


def _guarded(kind):
    return lambda asker: guard(_models(kind)(asker), asker.pipeline, pinned=True).invoke("hi").text


def _guarded_stream(kind):
    def call(asker):
        chat = guard(_models(kind)(asker), asker.pipeline, pinned=True)
        return "".join(chunk.text for chunk in chat.stream("hi"))

    return call


def _aguarded(kind):
    async def call(asker):
        return (await guard(_models(kind)(asker), asker.pipeline, pinned=True).ainvoke("hi")).text

    return lambda asker: asyncio.run(call(asker))


def _aguarded_stream(kind):
    async def call(asker):
        chat = guard(_models(kind)(asker), asker.pipeline, pinned=True)
        return "".join([chunk.text async for chunk in chat.astream("hi")])

    return lambda asker: asyncio.run(call(asker))


def _instrumented(kind):
    return lambda asker: instrument(_models(kind)(asker) | (lambda message: message.text), asker.pipeline).invoke("hi")


def _handled(kind):
    return lambda asker: _models(kind)(asker).invoke("hi", {"callbacks": [CostCallbackHandler(asker.pipeline)]}).text


# --- LiteLLM, and the classic door ------------------------------------------------------------------------------------


def _routed(model, **more):
    def call(asker):
        answer = asker.router().completion(model, ASK, max_tokens=40, **more)
        return answer.choices[0].message.content if not more else "".join(map(_text_of, answer))

    return call


def _arouted(model, **more):
    async def call(asker):
        answer = await asker.router().acompletion(model, ASK, max_tokens=40, **more)
        return answer.choices[0].message.content if not more else "".join([_text_of(each) async for each in answer])

    return lambda asker: asyncio.run(call(asker))


def _routed_response(asker):
    said = asker.router().responses(model=MINI, input="Count.", max_output_tokens=40).output[-1]
    # LiteLLM leaves what it cannot validate as it came
    return said["content"][0]["text"] if isinstance(said, dict) else said.content[0].text


def _routed_message(asker):
    async def call():
        return await asker.router().anthropic_messages(model=HAIKU, messages=ASK, max_tokens=40)

    return asyncio.run(call())["content"][0]["text"]


def _processed(provider):
    def call(asker):
        kind = anthropic.Anthropic if provider == "anthropic" else openai.OpenAI
        url = asker.sim.anthropic_url if provider == "anthropic" else asker.sim.openai_url
        client = kind(base_url=url, api_key="k", max_retries=0)
        return process("Count.", asker.pipeline, CostTracker("1"), client=client)[0].text

    return call


HOSTS = {
    "messages": _messages(), "messages async": _amessages(), "messages stream": _messages(stream=True),
    "messages async stream": _amessages(stream=True), "messages helper": _messages_helper,
    "messages raw": _raw_messages,
    "chat": _chat(), "chat async": _achat(), "chat stream": _chat(stream=True),
    "chat async stream": _achat(stream=True),
    "chat asked for usage": _chat(stream=True, stream_options={"include_usage": True}),
    "chat parsed": _parsed_chat, "chat helper": _chat_helper,
    "responses": _responses(), "responses async": _aresponses(), "responses stream": _responses(stream=True),
    "responses async stream": _aresponses(stream=True), "responses parsed": _parsed_response,
    "responses unread": _unread_response,
    **{
        f"guard {kind}{how}": make(kind)
        for kind in ("claude", "gpt", "gpt responses")
        for how, make in {
            "": _guarded, " async": _aguarded, " stream": _guarded_stream, " async stream": _aguarded_stream,
        }.items()
    },
    **{f"instrument {kind}": _instrumented(kind) for kind in ("claude", "gpt", "gpt responses")},
    **{f"handler {kind}": _handled(kind) for kind in ("claude", "gpt", "gpt responses")},
    "router claude": _routed(HAIKU), "router claude async": _arouted(HAIKU),
    "router claude stream": _routed(HAIKU, stream=True), "router gpt": _routed(MINI),
    "router gpt async": _arouted(MINI), "router gpt stream": _routed(MINI, stream=True),
    "router gpt async stream": _arouted(MINI, stream=True), "router responses": _routed_response,
    "router messages": _routed_message,
    "process claude": _processed("anthropic"), "process gpt": _processed("openai"),
}  # fmt: skip

NO_COUNTS = {
    "missing": "gone", "null": None, "negative": -50, "absurd": 10**18, "text": "12", "words": "many", "empty": "",
    "boolean": True, "fraction": 12.5, "list": [12],
}  # fmt: skip
PLACES = ("input", "output", "part")
"""The two counts of every usage, and one that is part of them."""


def values_of(place):
    """The counts that are none at a place: a part of another count may be left out, and is zero then."""
    return [name for name in NO_COUNTS if place != "part" or name not in ("missing", "null")]


def cells(host, *, soak):
    """What to put where for one host: every pair of host and value, of host and place, and of the two; or all."""
    at = sorted(HOSTS).index(host)
    for row, name in enumerate(NO_COUNTS):
        for column, place in enumerate(PLACES):
            if name in values_of(place) and (soak or (at + row) % len(PLACES) == column):
                yield place, name
