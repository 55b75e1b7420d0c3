"""The longest gap of an event loop, in milliseconds, while a pipeline's first calls run; and what making one costs.

``python tests/benchmarks/first_call.py``; milliseconds of this machine, so of use beside another run on it alone.
"""

import asyncio
import sys
import time

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

BODY = {"model": "smart", "messages": [{"role": "user", "content": "x" * 500}]}
USAGE = UsageReport(
    items=(BilledItem(TokenUsage(uncached_input=120, output=50)),), model="gpt-5-mini-2025-08-07", complete=True
)


async def send(_):
    await asyncio.sleep(0)
    return CallResult(object(), USAGE)


async def main():
    began = time.perf_counter()
    pipeline = CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "9000"}]))
    sys.stdout.write(f"making a pipeline      {1e3 * (time.perf_counter() - began):8.1f} ms\n")
    gaps, done = [], asyncio.Event()

    async def tick():
        last = time.perf_counter()
        while not done.is_set():
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticking = asyncio.create_task(tick())
    for name in ("first", "second"):
        await asyncio.sleep(0.05)
        gaps.clear()
        began = time.perf_counter()
        request = get_provider("openai").read_request(BODY, "chat.completions")
        await pipeline.arun(request, send, providers=frozenset({"anthropic", "openai"}))
        took = time.perf_counter() - began
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sys.stdout.write(f"{name:6} call            {1e3 * took:8.1f} ms, longest gap {1e3 * max(gaps):6.1f} ms\n")
    done.set()
    await ticking


if __name__ == "__main__":
    asyncio.run(main())
