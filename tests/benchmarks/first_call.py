"""The longest gap of an event loop while a pipeline's first calls run, and what making the pipeline costs.

``python tests/benchmarks/first_call.py [TREE …]``: the pipeline is made before the loop runs, and then on it. Gaps are
milliseconds of the clock, and the most CPU that was taken in one by the loop's own thread, and by the process: on a
busy machine only these say what held it up. Compiled modules are there before, as after an installation.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time

BODY = {"model": "smart", "messages": [{"role": "user", "content": "x" * 500}]}
PROVIDERS = frozenset({"anthropic", "openai"})
RICH, POOR = "9000", "1e-7"  # US dollars
MADE = ("before the loop runs", "on the loop")


def usage():
    from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

    items = (BilledItem(TokenUsage(uncached_input=120, output=50)),)
    return UsageReport(items=items, model="gpt-5-mini-2025-08-07", complete=True)


async def send(_):
    from llm_cost_middleware.request import CallResult

    await asyncio.sleep(0)
    return CallResult(object(), usage())


class Stream:
    """Ten chunks."""

    async def __aiter__(self):
        for chunk in range(10):
            await asyncio.sleep(0)
            yield chunk

    def reading(self):
        return usage()

    def close(self):
        pass

    async def aclose(self):
        pass


async def open_stream(_):
    return Stream()


class Refuses:
    """Fails the first of two attempts."""

    def __init__(self):
        self.fails = True

    async def __call__(self, attempt):
        self.fails = not self.fails
        if not self.fails:
            raise TimeoutError
        return await send(attempt)


class Gaps:
    """Ticks on the running loop, and notes the most that one tick had to wait, by each of the three clocks.

    Nothing is kept of the others: so many of them would call for collections of garbage that no program has.
    """

    def __init__(self):
        self.longest, self.done = (0, 0, 0), False

    async def tick(self):
        before = time.perf_counter(), time.thread_time(), time.process_time()
        while not self.done:
            await asyncio.sleep(0)
            now = time.perf_counter(), time.thread_time(), time.process_time()
            gap = (1e3 * (late - early) for late, early in zip(now, before, strict=True))
            self.longest = tuple(map(max, self.longest, gap))
            before = now

    async def of(self, work):
        await asyncio.sleep(0)
        self.longest = (0, 0, 0)
        began = time.perf_counter()
        try:
            answer = await work
            if hasattr(answer, "__aiter__"):
                async for _ in answer:
                    pass
        except RuntimeError:  # refused
            pass
        took = time.perf_counter() - began
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return 1e3 * took, *self.longest


def make(limit):
    from llm_cost_middleware import CostConfig, CostPipeline

    config = CostConfig(budgets=[{"scope": "global", "limit": limit}])
    began, worked = time.perf_counter(), time.thread_time()
    pipeline = CostPipeline(config)
    took, own = 1e3 * (time.perf_counter() - began), 1e3 * (time.thread_time() - worked)
    sys.stdout.write(f"  making it     {took:8.1f} ms, CPU {own:5.1f} own\n")
    return pipeline


async def measure(pipeline):
    from llm_cost_middleware.providers import get_provider

    request, gaps = get_provider("openai").read_request(BODY, "chat.completions"), Gaps()
    ticking = asyncio.create_task(gaps.tick())
    for name, sent in {"call": send, "stream": open_stream, "retry": Refuses(), "refusal": send}.items():
        if pipeline is None or name == "refusal":
            pipeline = make(POOR if name == "refusal" else RICH)
        for which in ("first", "second"):
            took, gap, own, whole = await gaps.of(pipeline.arun(request, sent, providers=PROVIDERS))
            sys.stdout.write(
                f"  {which:6} {name:8}{took:8.1f} ms, gap {gap:6.1f} ms; CPU {own:5.1f} own, {whole:5.1f} of all\n"
            )
    gaps.done = True
    await ticking


def main(trees):
    for tree in trees:
        with tempfile.TemporaryDirectory() as compiled:
            kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
            env = kept | {"PYTHONPATH": tree, "PYTHONPYCACHEPREFIX": compiled, "FIRST_CALL": "1"}
            for run, made in enumerate((MADE[0], *MADE)):
                command = [sys.executable, __file__, made]
                done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
                if run:  # the first compiles
                    sys.stdout.write(f"{tree}, made {made}\n{done.stdout}")


if __name__ == "__main__":
    if os.environ.get("FIRST_CALL"):
        asyncio.run(measure(make(RICH) if sys.argv[1] == MADE[0] else None))
    else:
        main(sys.argv[1:] or [os.curdir])
