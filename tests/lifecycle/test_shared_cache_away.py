"""What was learned of prompt caches lies on a storage that dies, freezes or is locked in mid-traffic.

No call fails for it, none waits longer than the storage's patience, every call is booked, and caching goes on from what
this process knows itself.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing

import anthropic
import pytest
import redis
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.budget.backends.redis import connections
from llm_cost_middleware.budget.backends.sqlite import connection
from llm_cost_middleware.budget.scripted import patience, protocol
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.simulator import Answer, SimClock, Simulator

MODEL = "claude-sonnet-4-6"
SYSTEM = "You book and change flights for passengers, by the rules of the house. " * 100
BINARIES = server_binaries()
on_redis = pytest.mark.skipif(not BINARIES, reason="no Redis server is installed")
PATIENCE_S, TIMEOUT_S = 0.15, 0.05


class Watch:
    """The simulator's clock as a pipeline wants one."""

    def __init__(self, clock):
        self.now = self.monotonic = clock.now
        self.sleep = clock.advance


class Shop:
    """An application that asks, and notes how long each call took."""

    def __init__(self, sim, clock, url):
        config = CostConfig(
            ledger={"url": url, "on_unavailable": "allow"},
            budgets=[{"scope": "global", "limit": 9}],
            providers={"anthropic": {"base_url": sim.anthropic_url, "api_key_env": "AWAY_KEY"}},
        )
        self.sim, self.clock, self.took = sim, clock, []
        self.pipeline = CostPipeline(config, clock=Watch(clock))
        self.client = anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k", max_retries=0)
        self.wrapped = wrap_anthropic(self.client, self.pipeline)

    def ask(self, times):
        """Ask so many questions over one system prompt, twenty seconds apart."""
        for _ in range(times):
            self.clock.advance(20.0)
            question = [{"role": "user", "content": f"Question {self.clock.now()}"}]
            started = time.monotonic()
            self.wrapped.messages.create(model=MODEL, max_tokens=9, system=SYSTEM, messages=question)
            self.took.append(time.monotonic() - started)

    def close(self):
        self.pipeline.close()
        self.client.close()

    def read(self):
        """Whether each call that arrived read its system prompt from the cache."""
        return [line.tokens.read > 1_000 for line in self.sim.bill.lines]


@pytest.fixture
def open_shop(tmp_path, monkeypatch):
    monkeypatch.setenv("AWAY_KEY", "k")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for module in (patience, protocol):
        monkeypatch.setattr(module, "PATIENCE_MS", int(PATIENCE_S * 1_000))
    for module in (patience, connections):
        monkeypatch.setattr(module, "TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(connection, "_BUSY_MS", int(PATIENCE_S * 1_000))
    clock, made = SimClock(), []
    with Simulator(responder=lambda _: Answer(text="ok", output_tokens=1), clock=clock) as sim:

        def open_shop(url):
            made.append(Shop(sim, clock, url))
            return made[-1]

        yield open_shop
        for shop in made:
            shop.close()


@pytest.fixture
def server(tmp_path):
    with RedisServer(next(iter(BINARIES.values())), tmp_path) as made:
        yield made


def check(shop, calls):
    """All calls were answered, all but the first from the cache, and none waited with the patience of production."""
    assert shop.read() == [False, *[True] * (calls - 1)]
    # A call has five turns at the storage. In production one alone may take 9 s; a disk that is busy takes some itself.
    assert max(shop.took) < 9.0


def check_books(shop, calls):
    """All that the provider billed is on record."""
    records = shop.pipeline.records()
    assert len(records) == calls
    assert sum(record.cost_nanousd for record in records) == shop.sim.bill.total_nanousd


@on_redis
def test_a_server_that_is_killed_costs_no_call_and_no_mark(open_shop, server):
    shop = open_shop(server.url)
    shop.ask(3)
    server.kill()
    shop.ask(2)
    server.start()
    shop.clock.advance(61.0)  # it is asked again
    shop.ask(2)
    check(shop, 7)
    with redis.Redis(port=server.port) as db:
        assert list(db.scan_iter("*s:?p.*"))  # what was learned is on the new server


@on_redis
def test_a_server_that_freezes_holds_up_a_bounded_time(open_shop, server):
    shop = open_shop(server.url)
    shop.ask(3)
    os.kill(server._process.pid, signal.SIGSTOP)
    try:
        shop.ask(2)
    finally:
        os.kill(server._process.pid, signal.SIGCONT)
    shop.clock.advance(61.0)
    shop.ask(2)
    check(shop, 7)
    check_books(shop, 7)


@on_redis
def test_shared_values_that_cannot_be_written_leave_the_money_exact(open_shop, server):
    shop = open_shop(server.url)
    shop.ask(2)
    with redis.Redis(port=server.port) as db:
        (index,) = [key for key in db.scan_iter("*shared") if db.type(key) == b"zset"]
        db.delete(index)
        db.set(index, "no set of keys")
    shop.ask(5)
    assert [record.status for record in shop.pipeline.records()] == ["exact"] * 7
    check(shop, 7)
    check_books(shop, 7)


def test_a_file_that_another_process_has_locked(open_shop, tmp_path):
    shop = open_shop(f"sqlite:///{tmp_path}/ledger.db")
    shop.ask(3)
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        shop.ask(1)
        db.execute("ROLLBACK")
    shop.clock.advance(61.0)
    shop.ask(3)
    check(shop, 7)
    check_books(shop, 7)
