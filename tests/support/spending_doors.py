"""Every door through which a call may be sent, as a function that sends one."""

from __future__ import annotations

import asyncio
import json

import anthropic
import openai

from llm_cost_middleware import aprocess, process, process_many
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.tracker import CostTracker

ASK = [{"role": "user", "content": "hi"}]
GPT, CLAUDE = {"model": "gpt-5-mini"}, {"model": "claude-haiku-4-5", "max_tokens": 20}


def sdk_doors(pipeline, sim, clients):
    gpt, claude = wrap_openai(clients["openai"], pipeline), wrap_anthropic(clients["anthropic"], pipeline)

    def later(call, kind=openai.AsyncOpenAI, url=sim.openai_url):
        async def once():
            async with kind(api_key="k", base_url=url, max_retries=0) as client:
                return await call(client)

        return lambda: asyncio.run(once())

    def claude_later(call):
        return later(call, anthropic.AsyncAnthropic, sim.anthropic_url)

    async def drained(client):
        stream = await wrap_openai(client, pipeline).chat.completions.create(**GPT, messages=ASK, stream=True)
        return [chunk async for chunk in stream]

    def claude_stream():
        with claude.messages.stream(**CLAUDE, messages=ASK) as stream:
            stream.get_final_message()

    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
            "body": {**GPT, "messages": ASK, "max_completion_tokens": 20}}  # fmt: skip
    uploaded = gpt.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = {"input_file_id": uploaded.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return {
        "openai chat": lambda: gpt.chat.completions.create(**GPT, messages=ASK),
        "openai stream": lambda: list(gpt.chat.completions.create(**GPT, messages=ASK, stream=True)),
        "openai raw": lambda: gpt.chat.completions.with_raw_response.create(**GPT, messages=ASK),
        "openai responses": lambda: gpt.responses.create(**GPT, input="hi"),
        "openai batch": lambda: gpt.batches.create(**batch),
        "openai chat, async": later(lambda c: wrap_openai(c, pipeline).chat.completions.create(**GPT, messages=ASK)),
        "openai stream, async": later(drained),
        "anthropic": lambda: claude.messages.create(**CLAUDE, messages=ASK),
        "anthropic stream": claude_stream,
        "anthropic, async": claude_later(lambda c: wrap_anthropic(c, pipeline).messages.create(**CLAUDE, messages=ASK)),
        "anthropic batch": lambda: claude.messages.batches.create(
            requests=[{"custom_id": "a", "params": {**CLAUDE, "messages": ASK}}]
        ),
        "process": lambda: process("hi", pipeline, CostTracker(1), client=clients["openai"]),
        "aprocess": later(lambda c: aprocess("hi", pipeline, CostTracker(1), client=c)),
        "process_many": lambda: finished(process_many(["hi"], pipeline, CostTracker(1), client=clients["anthropic"])),
    }


def finished(batch):
    """A batch ends softly where it is paused."""
    if batch.exhausted is not None:
        raise batch.exhausted


def langchain_doors(pipeline, sim):
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import CostCallbackHandler, CostMiddleware, guard, instrument

    def plain():
        return ChatOpenAI(**GPT, api_key="k", base_url=sim.openai_url, max_retries=0)

    guarded, handler = guard(plain(), pipeline), CostCallbackHandler(pipeline)
    agent = create_agent(plain(), [], middleware=[CostMiddleware(pipeline)])
    chain = instrument(plain() | (lambda message: message.text), pipeline)
    return {
        "guard": lambda: guarded.invoke("hi"),
        "guard stream": lambda: list(guarded.stream("hi")),
        "guard, async": lambda: asyncio.run(guarded.ainvoke("hi")),
        "guard batch": lambda: guarded.batch(["hi"]),
        "handler": lambda: plain().invoke("hi", config={"callbacks": [handler]}),
        "instrument": lambda: chain.invoke("hi"),
        "middleware": lambda: agent.invoke({"messages": [("user", "hi")]}),
    }


def router_doors(pipeline, sim):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    params = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
    router = CostAwareRouter([{"model_name": "fast", "litellm_params": params}], pipeline=pipeline)
    return {
        "router": lambda: router.completion("fast", messages=ASK),
        "router stream": lambda: list(router.completion("fast", messages=ASK, stream=True)),
        "router, async": lambda: asyncio.run(router.acompletion("fast", messages=ASK)),
        "router responses": lambda: router.responses(model="fast", input="hi"),
    }


DOORS = [
    "openai chat", "openai stream", "openai raw", "openai responses", "openai batch", "openai chat, async",
    "openai stream, async", "anthropic", "anthropic stream", "anthropic, async", "anthropic batch", "process",
    "aprocess", "process_many", "guard", "guard stream", "guard, async", "guard batch", "handler", "instrument",
    "middleware", "router", "router stream", "router, async", "router responses",
]  # fmt: skip
SAMPLE = ["openai chat", "openai batch", "process", "guard", "handler", "router, async"]


def all_doors(pipeline, sim, clients):
    found = sdk_doors(pipeline, sim, clients)
    found |= langchain_doors(pipeline, sim) | router_doors(pipeline, sim)
    assert list(found) == DOORS, "every door stands in the list"
    return found


def sent_by(sim):
    return sum("/files" not in exchange.path for exchange in sim.requests)  # reading a file costs nothing


def tried(door, sim):
    """What one call raised, and how many requests left."""
    before, error = sent_by(sim), None
    try:
        door()
    except Exception as raised:  # noqa: BLE001 - of any host's class
        error = raised
    return error, sent_by(sim) - before
