"""A thousand governed streams at once on one event loop: is every one of them booked at what the provider bills?

``python tests/benchmarks/thousand_streams.py [STREAMS]`` opens them all against the simulator, in a process of its own,
and reads each to its end. It prints what was held while all were open, the seconds, the memory that a stream took, and
the ledger beside the bill; it exits with 1 where they differ, a hold is left, or a stream was lost.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from typing import NamedTuple

import httpx
import openai

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator.process import SimulatorProcess

TURN = "Stream number {} says this back, a few words at a time, so that all of them are open together."


class Outcome(NamedTuple):
    """What became of them."""

    opened: int
    """Streams whose first chunk had come when the last was opened."""
    ended: int
    chunks: int
    held_nanousd: int
    """Pending in the budget while all were open."""
    pending_nanousd: int
    """Pending when all had ended."""
    booked_nanousd: int
    billed_nanousd: int
    records: int
    bill_lines: int
    kib_each: float
    """Growth of this process's peak memory, by stream: both sockets' ends, the SDK and the middleware."""
    seconds: float

    @property
    def is_right(self) -> bool:
        """Every stream was held, ended and booked at its bill, once."""
        return (
            self.opened == self.ended == self.records == self.bill_lines
            and self.held_nanousd > 0 == self.pending_nanousd
            and self.booked_nanousd == self.billed_nanousd
        )


async def run_streams(count: int, pipeline: CostPipeline, base_url: str) -> tuple[int, int, int, int]:
    """Open ``count`` streams, and read none to its end before all are open.

    Returns:
        Streams opened, streams ended, chunks, and nano-dollars pending while all were open.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    bare = httpx.AsyncClient(limits=limits, timeout=120)
    async with openai.AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0, http_client=bare) as client:
        governed = wrap_openai(client, pipeline)
        all_open = asyncio.Event()
        held = opened = ended = chunks = 0

        async def one(number: int) -> None:
            nonlocal held, opened, ended, chunks
            stream = await governed.chat.completions.create(
                model="gpt-5-mini", max_completion_tokens=200, stream=True,
                messages=[{"role": "user", "content": TURN.format(number)}],
            )  # fmt: skip
            opened += 1
            if opened == count:
                held = pipeline.ledger.balance("global").pending_nanousd
                all_open.set()
            await all_open.wait()
            async for _ in stream:
                chunks += 1
            ended += 1

        await asyncio.gather(*(one(number) for number in range(count)))
    return opened, ended, chunks, held


def play(count: int) -> Outcome:
    """Run them against a fresh simulator and a fresh ledger in memory."""
    config = CostConfig(budgets=[{"scope": "global", "limit": "1000"}])
    with SimulatorProcess() as simulator, CostPipeline(config) as pipeline:
        asyncio.run(run_streams(2, pipeline, simulator.openai_url))  # imports and tables are no stream's memory
        gc.collect()
        before, spent = _peak_kib(), pipeline.ledger.balance("global").settled_nanousd
        lines = len(simulator.lines)
        billed = sum(line.cost_nanousd for line in simulator.lines)
        began = time.perf_counter()
        opened, ended, chunks, held = asyncio.run(run_streams(count, pipeline, simulator.openai_url))
        seconds = time.perf_counter() - began
        balance, bill = pipeline.ledger.balance("global"), simulator.lines
        return Outcome(
            opened, ended, chunks, held, balance.pending_nanousd, balance.settled_nanousd - spent,
            sum(line.cost_nanousd for line in bill) - billed, len(pipeline.records()) - 2, len(bill) - lines,
            (_peak_kib() - before) / count, seconds,
        )  # fmt: skip


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(count: int) -> int:
    """Print what became of them; 0 where it is right."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * count + 512)), hard))
    found = play(count)
    for name, value in found._asdict().items():
        print(f"{name:16}{value:>16,.1f}" if isinstance(value, float) else f"{name:16}{value:>16,}")
    print("ledger = bill, none lost" if found.is_right else "WRONG")
    return 0 if found.is_right else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1_000))
