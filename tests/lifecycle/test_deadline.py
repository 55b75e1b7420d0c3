"""A stream that drips lasts no longer than its call may: it is closed, booked as interrupted, and times out."""

from __future__ import annotations

import asyncio

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.request import CallRequest, Message, Part
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

MODEL = "claude-haiku-4-5-20251001"
REQUEST = CallRequest("anthropic", MODEL, (Message("user", (Part("text", "Count."),)),), stream=True, model_pinned=True)
DONE = UsageReport(items=(BilledItem(TokenUsage(uncached_input=9, output=3)),), model=MODEL, complete=True)
ANTHROPIC = frozenset({"anthropic"})


class Drip:
    """A stream of ``chunks``; asynchronous, it then never says anything again, as ``silent`` is told."""

    def __init__(self, chunks=5, done_after=99, silent=lambda: None):
        self._chunks, self._done_after, self.told, self.closed = chunks, done_after, 0, False
        self._silent = silent

    def __iter__(self):
        while self.told < self._chunks:
            self.told += 1
            yield self.told

    async def __aiter__(self):
        for chunk in self:
            yield chunk
        self._silent()
        await asyncio.Event().wait()

    def reading(self):
        return DONE if self.told >= self._done_after else UsageReport()

    def close(self):
        self.closed = True

    async def aclose(self):
        self.closed = True


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def pipeline(clock):
    config = CostConfig(budgets=[{"scope": "global", "limit": "10"}], retry={"stream_deadline_s": 300})
    with CostPipeline(config, clock=clock) as pipeline:
        yield pipeline


def settled(pipeline):
    assert pipeline.ledger.balance("global").pending_nanousd == 0
    return [record.status for record in pipeline.records()]


def slowly(stream, clock):
    """The chunks, each of which takes two minutes."""
    for chunk in stream:
        yield chunk
        clock.advance(120)


def test_the_deadline_is_checked_between_chunks(pipeline, clock):
    drip, got = Drip(), []
    with pytest.raises(TimeoutError, match="deadline"):
        got.extend(slowly(pipeline.run(REQUEST, lambda _: drip, providers=ANTHROPIC), clock))
    assert drip.closed
    assert drip.told == 3, "the fourth would come after six minutes"
    assert settled(pipeline) == ["estimated"]


def test_what_was_paid_for_in_full_is_handed_over_late_or_not(pipeline, clock):
    drip = Drip(done_after=3)
    assert list(slowly(pipeline.run(REQUEST, lambda _: drip, providers=ANTHROPIC), clock)) == [1, 2, 3, 4, 5]
    assert settled(pipeline) == ["exact"]


def test_an_observed_stream_is_left_alone(clock):
    with CostPipeline(CostConfig(mode="observe"), clock=clock) as pipeline:
        assert len(list(slowly(pipeline.run(REQUEST, lambda _: Drip(), providers=ANTHROPIC), clock))) == 5


def late(drip, clock, left=0.05):
    """Sends; by the time the answer begins, there are ``left`` seconds to the deadline."""

    async def send(attempt):
        clock.advance(300 - left)
        return drip

    return send


async def test_no_wait_for_a_chunk_exceeds_the_deadline(pipeline, clock):
    drip, got = Drip(), []
    with pytest.raises(TimeoutError, match="deadline"):
        async for chunk in await pipeline.arun(REQUEST, late(drip, clock), providers=ANTHROPIC):
            got.append(chunk)  # noqa: PERF401 - what came before the error counts
    assert got == [1, 2, 3, 4, 5]
    assert drip.closed
    assert settled(pipeline) == ["estimated"]
    assert asyncio.current_task().cancelling() == 0, "the task goes on as if nobody had cancelled it"


async def test_a_cancellation_by_the_caller_stays_one(pipeline, clock):
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(None) as patience:
            drip = Drip(silent=lambda: patience.reschedule(0))  # it ends while a chunk is waited for, never before
            async for _ in await pipeline.arun(REQUEST, late(drip, clock, left=299), providers=ANTHROPIC):
                pass
    assert "deadline" not in str(caught.value)
    assert settled(pipeline) == ["estimated"]


async def test_a_stream_that_was_dropped_is_not_kept_by_its_deadline(pipeline, clock):
    answer = await pipeline.arun(REQUEST, late(Drip(), clock), providers=ANTHROPIC)
    assert await anext(answer) == 1
    del answer
    assert settled(pipeline) == ["estimated"]
