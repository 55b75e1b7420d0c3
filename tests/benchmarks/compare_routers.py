"""Compare the router of another tree of this project with this one's, in one run, alternately::

    python tests/benchmarks/compare_routers.py PATH_OF_THE_OTHER_TREE [rounds]

Each tree runs in a process of its own, both at once, and answers one round at a time, so that what the machine does
meanwhile falls on both. Answers are LiteLLM's own mocks: nothing is sent. Prints the median CPU time of a call through
each router and their ratio, for completion, its stream, and acompletion.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
DOORS = ("completion", "stream", "acompletion")
ROUNDS, CALLS = 15, 20
WORKER = f"""
import asyncio, logging, os, sys, time, warnings
warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", OPENAI_API_KEY="k", ANTHROPIC_API_KEY="k")
from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.litellm import CostAwareRouter
entry = {{"model_name": "mini", "litellm_params": {{"model": "openai/gpt-5-mini", "api_key": "k"}}}}
pipeline = CostPipeline(CostConfig(budgets=[{{"scope": "global", "limit": "100000"}}]))
router = CostAwareRouter([entry], pipeline=pipeline)
ask = dict(model="mini", messages=[{{"role": "user", "content": "word " * 100}}], max_tokens=64,
           mock_response="An answer of a few words.")
async def many():
    for _ in range({CALLS}): await router.acompletion(**ask)
def completion():
    for _ in range({CALLS}): router.completion(**ask)
def stream():
    for _ in range({CALLS}): list(router.completion(**ask, stream=True))
loop = asyncio.new_event_loop()
doors = dict(completion=completion, stream=stream, acompletion=lambda: loop.run_until_complete(many()))
for line in sys.stdin:
    began = time.thread_time()
    doors[line.strip()]()
    print((time.thread_time() - began) / {CALLS} * 1e6, flush=True)
"""


def start(tree: Path) -> subprocess.Popen[str]:
    """A process that runs rounds with the package of a tree."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", WORKER]
    return subprocess.Popen(command, env=environment, cwd=tree, stdin=pipe, stdout=pipe, text=True)


def ask(worker: subprocess.Popen[str], door: str) -> float:
    """Microseconds of CPU a call, over one round."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{door}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def main(other: Path, rounds: int) -> None:
    """Run and print."""
    workers = {"other": start(other), "this": start(HERE)}
    for door in DOORS:
        for worker in workers.values():  # warm
            ask(worker, door)
        taken: dict[str, list[float]] = {name: [] for name in workers}
        for turn in range(rounds):
            for name in sorted(workers, reverse=turn % 2 == 1):  # each goes first as often as second
                taken[name].append(ask(workers[name], door))
        old, new = (statistics.median(taken[name]) for name in ("other", "this"))
        print(f"{door}: other {old:.0f} µs, this {new:.0f} µs, ratio {new / old:.3f}", flush=True)
    for worker in workers.values():
        worker.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else ROUNDS)
