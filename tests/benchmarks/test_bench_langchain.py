"""What a guard and a handler add to a call of LangChain, beside the bare model and LangChain's own handlers.

``pytest -s --soak tests/benchmarks/test_bench_langchain.py`` runs it; the last full run is kept in
``results/langchain.txt``. All figures are CPU time of the calling thread, taken in rounds in which every candidate has
its turn; an addition is the median over the rounds of its difference to the bare model in the same round. The model is
the user's own class with its sending cut off, so that what remains is Python on both sides: LangChain's runs and
callbacks here, the same and the whole pipeline (route, plan, bound, reserve, settle, record) there.
"""

from __future__ import annotations

import asyncio
import gc
import time
from statistics import median

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.sections import DEFAULT_TIERS
from llm_cost_middleware.integrations.langchain import CostCallbackHandler, guard
from llm_cost_middleware.pipeline import CostPipeline

pytestmark = pytest.mark.soak
ROUNDS, CALLS = 25, 40
HAIKU = "claude-haiku-4-5-20251001"
SHORT = [HumanMessage("word " * 100)]
TURNS = [turn for at in range(20) for turn in (HumanMessage(f"{at} " + "ask " * 60), AIMessage("answer " * 40))]
LONG = [SystemMessage("rule " * 1_200), *TURNS[:-1]]
RAW = {"input_tokens": 140, "output_tokens": 30, "service_tier": "standard"}
COUNTED = {"input_tokens": 140, "output_tokens": 30, "total_tokens": 170}


class Cut(ChatAnthropic):
    """A ChatAnthropic that sends nothing: its answers are made on the spot, with usage."""

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        told = {"model_name": HAIKU, "model_provider": "anthropic"}
        message = AIMessage("fine", response_metadata=told, usage_metadata=dict(COUNTED))
        output = {"id": "msg_1", "model": HAIKU, "stop_reason": "end_turn", "usage": RAW, "model_name": HAIKU}
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output=output)

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        return self._generate(messages)

    def _chunks(self, count):
        for _ in range(count):
            yield ChatGenerationChunk(
                message=AIMessageChunk("token", response_metadata={"model_provider": "anthropic"})
            )
        said = {"stop_reason": "end_turn", "model_name": HAIKU}
        last = AIMessageChunk("", usage_metadata=dict(COUNTED), response_metadata=said, chunk_position="last")
        yield ChatGenerationChunk(message=last)

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        yield from self._chunks(len(messages[-1].content) // 5)

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for chunk in self._chunks(len(messages[-1].content) // 5):
            yield chunk


class Least(BaseCallbackHandler):
    """The least a handler can be."""

    run_inline = True

    def on_chat_model_start(self, *args, **kwargs):
        pass

    def on_llm_end(self, *args, **kwargs):
        pass


def cpu(call):
    start = time.thread_time()
    for _ in range(CALLS):
        call()
    return (time.thread_time() - start) / CALLS * 1e6


def compare(candidates):
    """Microseconds of the first candidate, and what each of the others adds to it."""
    for call in candidates.values():
        call()
    gc.collect()
    rounds = [{name: cpu(call) for name, call in candidates.items()} for _ in range(ROUNDS)]
    base = next(iter(candidates))
    return median(r[base] for r in rounds), {
        name: median(r[name] - r[base] for r in rounds) for name in candidates if name != base
    }


def calls(make):
    """The candidates: ``make(model, config)`` is what is measured."""
    plain = Cut(model=HAIKU, api_key="k")
    config = CostConfig(budgets=[{"scope": "global", "limit": "100000"}], tiers=list(DEFAULT_TIERS))
    metering = CostConfig(budgets=[{"scope": "global", "limit": "100000"}])
    return {
        "bare model": make(plain, None),
        "+ guard": make(guard(plain, CostPipeline(config)), None),
        "+ CostCallbackHandler": make(plain, {"callbacks": [CostCallbackHandler(CostPipeline(metering))]}),
        "+ LangChain's UsageMetadataCallbackHandler": make(plain, {"callbacks": [UsageMetadataCallbackHandler()]}),
        "+ a handler that does nothing": make(plain, {"callbacks": [Least()]}),
    }


@pytest.fixture
def table(capsys, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def show(title, base, added, unit="us a call"):
        with capsys.disabled():
            print(f"\n{title}: {base:8.1f} {unit}, bare")
            for name, more in added.items():
                print(f"  {name:46} {more:+9.1f}   {more / base:+8.1%}")

    return show


@pytest.mark.parametrize(("name", "messages"), [("one short turn", SHORT), ("40 messages", LONG)])
def test_invoke(name, messages, table):
    table(f"invoke, {name}", *compare(calls(lambda model, config: lambda: model.invoke(messages, config))))


def test_ainvoke(table):
    with asyncio.Runner() as runner:
        table(
            "ainvoke, one short turn",
            *compare(calls(lambda model, config: lambda: runner.run(model.ainvoke(SHORT, config)))),
        )


def drain(chunks):
    for _ in chunks:
        pass


async def adrain(chunks):
    async for _ in chunks:
        pass


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_streamed_chunk(way, table):
    """The slope between a short and a long answer: what one more chunk costs."""
    few, many = [HumanMessage("x" * 5 * 10)], [HumanMessage("x" * 5 * 110)]
    with asyncio.Runner() as runner:

        def make(messages):
            if way == "stream":
                return lambda model, config: lambda: drain(model.stream(messages, config))
            return lambda model, config: lambda: runner.run(adrain(model.astream(messages, config)))

        (low, low_added), (high, high_added) = compare(calls(make(few))), compare(calls(make(many)))
    base = (high - low) / 100
    table(f"{way}, one chunk", base, {k: (high_added[k] - low_added[k]) / 100 for k in low_added}, "us a chunk")
