from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.cli.cache import cache
from llm_cost_middleware.prompt_cache.plan import CachePlan, CachePrices
from llm_cost_middleware.prompt_cache.trace import KIND, Tracer
from llm_cost_middleware.request import CallRequest, Message, ModelRef, Part
from llm_cost_middleware.usage import TokenUsage

MODEL = ModelRef("anthropic", "claude-sonnet-4-6")
PRICES = CachePrices(300_000, {"5m": 3_750_000, "1h": 6_000_000}, 3_000_000)


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(cache)
    return lambda *args: CliRunner().invoke(app, [*args], env={"COLUMNS": "200"})


@pytest.fixture
def ledger(tmp_path):
    """A ledger with ten calls whose system prompt carries the time."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    tracer = Tracer()
    with Ledger.open(url) as opened:
        for minute in range(10):
            system = Message("system", (Part("text", f"It is 09:{minute:02}. " + "Be exact. " * 500),))
            request = CallRequest(*MODEL, (system, Message("user", (Part("text", "Where is my bag?"),))))
            usage = TokenUsage(uncached_input=20, cache_write_5m=1_300)
            trace = tracer.trace(request, MODEL, CachePlan(prices=PRICES), usage, at=60.0 * minute)
            opened.journal.append(KIND, f"call{minute}", trace.at, trace.encode())
    return url


def test_the_command_names_what_broke_the_prefix_and_what_it_cost(run, ledger):
    result = run("--ledger", ledger)
    assert result.exit_code == 0, result.output
    assert "system 0 differs only in numbers or dates: a timestamp, counter or id (9 times)" in result.output
    assert "-$0.00975" in result.output


def test_the_same_as_json(run, ledger):
    (report,) = json.loads(run("--ledger", ledger, "--json").output)
    assert report["calls"] == 10
    assert report["hit_rate"] == 0.0
    assert float(report["net_usd"]) == -0.00975
    assert sum(report["breaks"].values()) == 9


def test_since_leaves_out_earlier_calls(run, ledger):
    (report,) = json.loads(run("--ledger", ledger, "--json", "--since", "1970-01-01T00:05:00").output)
    assert report["calls"] == 5


def test_an_empty_ledger_is_reported_as_empty(run, tmp_path):
    url = f"sqlite:///{tmp_path}/empty.db"
    Ledger.open(url).close()
    result = run("--ledger", url)
    assert result.exit_code == 0
    assert "No call" in result.output


def test_a_memory_ledger_is_explained(run):
    assert run("--ledger", "memory://").exit_code == 1
