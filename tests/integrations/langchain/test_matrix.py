"""Every way of calling, every kind of call, every API, every way of ending: requests, rows and bill agree."""

from __future__ import annotations

import asyncio
import gc
import itertools

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.simulator import Fault

MODES = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch", "events_v2", "events_v3", "transform")
KINDS = ("plain", "tools", "function_calling", "json_schema", "json_mode", "multimodal", "thinking")
APIS = ("claude", "chat", "responses")
ENDS = ("complete", "cancelled", "timed out", "abandoned", "dropped", "cut", "error event")
STREAMING = {"stream", "astream", "events_v2", "events_v3", "transform"}
ASYNC = {"ainvoke", "astream", "abatch", "events_v2"}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


class Joke(BaseModel):
    """A joke to tell."""

    setup: str
    punchline: str


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def makes_sense(mode, kind, api, end):
    if end == "cancelled" and mode not in ASYNC:
        return False
    if end in ("abandoned", "error event") and mode not in STREAMING:
        return False
    if mode == "events_v3" and kind in ("function_calling", "json_schema", "json_mode"):
        return False  # a sequence has no version 3
    if end == "abandoned" and kind in ("function_calling", "json_schema", "json_mode"):
        return False  # their parsers answer once, at the end
    return not (kind == "json_mode" and api == "claude")


ALL = [combination for combination in itertools.product(MODES, KINDS, APIS, ENDS) if makes_sense(*combination)]


def pairwise(combinations):
    """A small sample in which every pair of values that occurs together in the whole occurs together."""

    def pairs(combination):
        return set(itertools.combinations(enumerate(combination), 2))

    missing = set().union(*map(pairs, combinations))
    sample = []
    while missing:
        best = max(combinations, key=lambda combination: len(pairs(combination) & missing))
        sample.append(best)
        missing -= pairs(best)
    return sample


def pytest_generate_tests(metafunc):
    if "end" in metafunc.fixturenames:
        cases = ALL if metafunc.config.getoption("--soak") else pairwise(ALL)
        metafunc.parametrize(("mode", "kind", "api", "end"), cases, ids=map("-".join, cases))


def build(kind, api, claude, gpt, pipeline):
    settings = {}
    if kind == "thinking":
        settings = {
            "claude": {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048},
            "chat": {"reasoning_effort": "low"},
            "responses": {"reasoning": {"effort": "low"}},
        }[api]
    model = claude(**settings) if api == "claude" else gpt(use_responses_api=api == "responses", **settings)
    guarded = guard(model, pipeline, pinned=True)
    if kind == "tools":
        return guarded.bind_tools([weather])
    if kind in ("function_calling", "json_schema", "json_mode"):
        return guarded.with_structured_output(Joke, method=kind)
    return guarded


def question(kind):
    text = {"json_mode": "Tell a joke as JSON with `setup` and `punchline`."}.get(kind, "Tell me about Rome, please.")
    content = [{"type": "text", "text": text}]
    if kind == "multimodal":
        content.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}})
    return [SystemMessage("Be kind."), HumanMessage(content if kind == "multimodal" else text)]


def call(mode, runnable, messages, end, sim):
    """Call it in this mode, and leave it in this way. Raises what the caller would see."""
    first = end == "abandoned"
    if mode == "invoke":
        return runnable.invoke(messages)
    if mode == "batch":
        return runnable.batch([messages] * 3, return_exceptions=True)
    if mode == "stream":
        return consume(runnable.stream(messages), first)
    if mode == "transform":
        return consume(runnable.transform(iter([messages])), first)
    if mode == "events_v3":
        stream = runnable.stream_events(messages, version="v3")
        if not first:
            return stream.output
        next(iter(stream))
        del stream
        gc.collect()
        return None
    return asyncio.run(acall(mode, runnable, messages, end, sim))


def consume(chunks, first):
    if not first:
        return list(chunks)
    next(chunks)
    chunks.close()
    return None


async def acall(mode, runnable, messages, end, sim):
    if mode == "ainvoke":
        coroutine = runnable.ainvoke(messages)
    elif mode == "abatch":
        coroutine = runnable.abatch([messages] * 3, return_exceptions=True)
    else:
        chunks = runnable.astream(messages) if mode == "astream" else runnable.astream_events(messages, version="v2")
        coroutine = aconsume(chunks, end == "abandoned", mode)
    task = asyncio.create_task(coroutine)
    if end == "cancelled":
        while sim.request_count < (3 if mode == "abatch" else 1):  # noqa: ASYNC110 - the simulator has another loop
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # one request hangs at the provider; others are answered by now
        task.cancel()
    return await task


async def aconsume(chunks, first, mode):
    if not first:
        return [chunk async for chunk in chunks]
    async for chunk in chunks:
        if mode == "astream" or chunk["event"] == "on_chat_model_stream":
            break
    await chunks.aclose()
    return None


FAULTS = {
    "cancelled": Fault.hang(),
    "timed out": Fault.hang(),
    "dropped": Fault.reset(),
    "cut": Fault.cut(after=3),
    "error event": Fault.error_event(after=3),
}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # langchain-openai's own
@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_requests_rows_and_bill_agree(mode, kind, api, end, make_harness, claude, gpt, sim):
    harness = make_harness(retry={"max_attempts": 1}, timeout_s=0.5 if end == "timed out" else 20)
    runnable = build(kind, api, claude, gpt, harness.pipeline)
    if end in FAULTS:
        sim.script(FAULTS[end])
    failed = None
    try:
        answer = call(mode, runnable, question(kind), end, sim)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, the figures must agree
        failed = error
    gc.collect()
    if mode in ("batch", "abatch") and failed is None:
        failed = next((item for item in answer if isinstance(item, BaseException)), None)
    if end in ("complete", "abandoned"):
        assert failed is None, failed
    else:
        assert failed is not None, answer
    expected = 3 if mode in ("batch", "abatch") else 1
    harness.await_requests(expected)
    assert sim.request_count == expected
    harness.check(exact=end == "complete")
