"""What fits is served: money for 5.2 calls, fifty at once, through both SDKs. The fire table runs every other door."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from llm_cost_middleware.simulator import Answer, CountingRules, Simulator, fill

_PATH = Path(__file__).parents[2] / "benchmarks" / "fire_table.py"


@pytest.fixture(scope="module")
def fire_table():
    spec = importlib.util.spec_from_file_location("fire_table", _PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sim(fire_table):
    encode = fire_table.tiktoken_encoding("o200k_base").encode_ordinary
    with Simulator(latency_s=0.2, openai_vocabulary=encode) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "k")


def _fire(fire_table, sim, door, way, cap, wait):
    """How many were served; the bill is inside the budget, and nothing that was paid for is lost."""
    sim.responder = fill if cap else (lambda _: Answer("so it went", output_tokens=fire_table.CAP))
    sim.counting = CountingRules()
    limit = fire_table.WORTH * fire_table.true_price(sim, door, cap) / 1e9
    sim.reset()
    with fire_table.pipeline_for(limit, wait) as pipeline:
        served = fire_table.fire(door, way, sim.url, pipeline, cap)
        balance = pipeline.ledger.balance("global")
    assert (balance.settled_nanousd, balance.pending_nanousd) == (sim.bill.total_nanousd, 0)
    assert sim.bill.total_nanousd <= balance.limit_nanousd
    assert served == len(sim.bill.lines)
    return served


@pytest.mark.parametrize("way", ["sequence", "threads", "tasks"])
def test_five_declared_calls_are_served_by_openai(fire_table, sim, way):
    assert _fire(fire_table, sim, "wrap_openai", way, fire_table.CAP, 0) == 5


@pytest.mark.parametrize("way", ["sequence", "tasks"])
def test_declared_calls_are_served_by_claude_whose_counts_come_five_a_second(fire_table, sim, way):
    served = _fire(fire_table, sim, "wrap_anthropic", way, fire_table.CAP, 0)
    assert served >= 4, "a count that takes more than its second on a busy machine leaves the byte bound"


@pytest.mark.parametrize(("way", "wait"), [("sequence", 0), ("threads", 60), ("tasks", 60)])
def test_five_undeclared_calls_are_served_one_after_another_and_at_once_where_they_may_wait(fire_table, sim, way, wait):
    assert _fire(fire_table, sim, "wrap_openai", way, None, wait) == 5


def test_an_undeclared_burst_that_may_not_wait_is_served_as_far_as_its_caps_allow(fire_table, sim):
    assert 1 <= _fire(fire_table, sim, "wrap_openai", "tasks", None, 0) <= 5
