"""What governing adds to a call of ``litellm.Router``, as a share of the router's own CPU, in one run.

Prints its table; no time is asserted. Run with ``pytest tests/benchmarks/test_bench_litellm.py -s``.
"""

from __future__ import annotations

import gc
import statistics
import time
import warnings

import pytest

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.pipeline import CostPipeline

pytestmark = [
    pytest.mark.litellm,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ASK = [{"role": "user", "content": "word " * 100}]
ENTRY = {"model_name": "mini", "litellm_params": {"model": "openai/gpt-5-mini", "api_key": "k"}}


def cpu_each(call, times):
    """Median CPU seconds of this thread in rounds of ten calls."""
    rounds = []
    for _ in range(max(times // 10, 3)):
        start = time.thread_time()
        for _ in range(10):
            call()
        rounds.append((time.thread_time() - start) / 10)
    return statistics.median(rounds)


@pytest.fixture
def routers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litellm

        from llm_cost_middleware.integrations.litellm import CostAwareRouter

        plain = litellm.Router(model_list=[ENTRY], num_retries=0)
    pipeline = CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "1000"}]))
    yield plain, CostAwareRouter([ENTRY], pipeline=pipeline)
    plain.discard()


def test_overhead_over_a_plain_router(routers, soak):
    plain, governed = routers
    times = 600 if soak else 60

    def ask(router, model):
        return lambda: router.completion(model, ASK, max_tokens=64, mock_response="An answer of a few words.")

    calls = {
        "Router": ask(plain, "mini"),
        "CostAwareRouter": ask(governed, "mini"),
        "…, routed": ask(governed, "smart"),
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        cpu_each(call, 30)
    gc.collect()
    for _ in range(5):  # by turns, so that the machine's moods meet all alike
        for name, call in calls.items():
            found[name].append(cpu_each(call, times // 5))
    base = min(found["Router"])
    print(f"\n{'':22}{'CPU/call':>12}{'added':>12}{'share':>9}")
    for name, seconds in found.items():
        added = min(seconds) - base
        print(f"{name:22}{min(seconds) * 1e6:>9.0f} µs{added * 1e6:>9.0f} µs{added / base:>9.1%}")
    assert len(governed.pipeline.records()) > times
