"""Under trio, with the ledger in memory that its error advises: every course of a call, through clients of the SDKs."""

from __future__ import annotations

import gc

import anthropic
import openai
import pytest

from llm_cost_middleware import BudgetExceededError, ConfigurationError, CostConfig, CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.patterns import aprocess_many
from llm_cost_middleware.simulator import Answer, Fault, fill
from llm_cost_middleware.tracker import CostTracker

trio = pytest.importorskip("trio", reason="needs trio; the extra test brings it")
ASK = [{"role": "user", "content": "hello there, and a few words more " * 20}]
DOORS = {
    "claude": lambda a, _, **more: a.messages.create(model="claude-haiku-4-5", max_tokens=300, messages=ASK, **more),
    "gpt": lambda _, o, **more: o.chat.completions.create(
        model="gpt-5-mini", max_completion_tokens=300, messages=ASK, **more
    ),
}
every_door = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


class Trio:
    def __init__(self, sim, limit="10", **config):
        self.sim = sim
        output = {"on_insufficient": ["raise"], **config.pop("output", {})}
        retry = {"base_s": 0.01, "throttle_base_s": 0.01, **config.pop("retry", {})}
        budgets = [{"scope": "global", "limit": limit}]
        self.pipeline = CostPipeline(CostConfig(budgets=budgets, output=output, retry=retry, **config))

    def run(self, main):
        async def around():
            async with (
                anthropic.AsyncAnthropic(base_url=self.sim.anthropic_url, api_key="k") as claude,
                openai.AsyncOpenAI(base_url=self.sim.openai_url, api_key="k") as gpt,
                self.pipeline,
            ):
                ended = await main(wrap_anthropic(claude, self.pipeline), wrap_openai(gpt, self.pipeline))
                gc.collect()
                self.balance = self.pipeline.ledger.balance("global")
                return ended

        return trio.run(around)

    def agree(self):
        assert self.balance.pending_nanousd == 0
        assert self.balance.settled_nanousd == self.sim.bill.total_nanousd
        assert {record.status for record in self.pipeline.records()} == {"exact"}

    def cover(self):
        assert self.balance.pending_nanousd == 0
        assert self.balance.settled_nanousd >= self.sim.bill.total_nanousd


@pytest.fixture
def make(sim):
    sim.responder = fill
    return lambda *limit, **config: Trio(sim, *limit, **config)


async def listed(stream):
    return [chunk async for chunk in stream]


@every_door
def test_a_call_a_stream_and_a_retry_are_booked_as_billed(door, make, sim):
    sim.responder = lambda _: Answer("fine")
    under = make()

    async def main(a, o):
        await door(a, o)
        assert await listed(await door(a, o, stream=True))
        sim.script(Fault.status(500))
        await door(a, o)
        sim.script(Fault.status(500))
        return await listed(await door(a, o, stream=True))

    assert under.run(main)
    assert sim.request_count == 6
    under.agree()


@every_door
def test_twenty_at_once_are_served_from_what_is_left_for_a_few(door, make, sim):
    sim.responder = lambda _: Answer("fine")
    under = make("0.01", output={"max_wait_for_budget_s": 60})

    async def main(a, o):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(lambda: door(a, o))

    under.run(main)
    assert len(under.pipeline.records()) == 20
    under.agree()


@every_door
def test_where_money_is_short_calls_are_counted_and_served_or_refused(door, make, sim):
    under = make("0.0045")
    ends = []

    async def one(a, o):
        try:
            await door(a, o)
            ends.append("served")
        except BudgetExceededError:
            ends.append("refused")

    async def main(a, o):
        for _ in range(8):
            await one(a, o)
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(one, a, o)

    under.run(main)
    assert set(ends) == {"served", "refused"}
    assert under.balance.settled_nanousd <= under.balance.limit_nanousd
    under.agree()


@every_door
@pytest.mark.parametrize("stream", [False, True])
def test_a_cancelled_call_leaves_nothing_behind(door, stream, make, sim):
    sim.responder = lambda _: Answer("a few words")
    sim.script(Fault.stall(after=1) if stream else Fault.hang())
    under = make()

    async def main(a, o):
        with trio.move_on_after(1) as scope:
            answer = await door(a, o, stream=stream)
            await listed(answer)
        return scope.cancelled_caught

    assert under.run(main)
    under.cover()


@every_door
def test_a_stream_that_is_dropped_is_settled_by_the_next_call(door, make, sim):
    under = make()

    async def main(a, o):
        stream = await door(a, o, stream=True)
        await anext(aiter(stream))
        del stream
        gc.collect()
        await door(a, o)

    under.run(main)
    assert under.balance.pending_nanousd == 0
    assert sorted(record.status for record in under.pipeline.records()) == ["estimated", "exact"]


@every_door
def test_a_stream_ends_at_its_deadline(door, make, sim):
    sim.responder = lambda _: Answer("one two three four five six")
    sim.script(Fault.stall(after=1))
    under = make(retry={"stream_deadline_s": 1})

    async def main(a, o):
        with pytest.raises(TimeoutError, match="deadline"):
            await listed(await door(a, o, stream=True))

    under.run(main)
    under.cover()


def test_a_waiting_call_that_is_cancelled_leaves_the_line(make, sim):
    sim.responder = lambda _: Answer("fine")
    sim.latency_s = 1
    under = make("0.001", output={"max_wait_for_budget_s": 60})
    door = DOORS["gpt"]

    async def cancelled(a, o):
        with trio.move_on_after(0.3):
            await door(a, o)

    async def main(a, o):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door, a, o)
            await trio.sleep(0.1)
            nursery.start_soon(cancelled, a, o)
            await trio.sleep(0.5)
            nursery.start_soon(door, a, o)

    under.run(main)
    under.cover()


def test_a_batch_of_the_classic_functions_runs(make, sim):
    sim.responder = lambda _: Answer("fine")
    under = make()

    async def main(_, o):
        return await aprocess_many([f"item {n}" for n in range(6)], under.pipeline, CostTracker(), client=o)

    assert len(under.run(main).done) == 6
    under.agree()


def test_a_run_on_a_file_is_refused_before_money_is_set_aside(tmp_path, make):
    under = make(ledger={"url": f"sqlite:///{tmp_path}/l.db"})

    async def main(a, o):
        with pytest.raises(ConfigurationError, match="needs asyncio"):
            async with under.pipeline.slice("0.50"):
                raise AssertionError
        for door in DOORS.values():
            with pytest.raises(ConfigurationError, match="needs asyncio"):
                await door(a, o)

    under.run(main)
    assert (under.balance.settled_nanousd, under.balance.pending_nanousd) == (0, 0)
    assert under.sim.request_count == 0
