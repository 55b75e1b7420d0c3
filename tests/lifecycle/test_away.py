"""A Redis that is away, or frozen: no refused call leaves anything pending, and what was allowed is booked later."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest
import redis
from plain_call import BOTH, COST, answer, request
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.budget.backends.redis import connections
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.scripted import patience, protocol
from llm_cost_middleware.errors import LedgerUnavailableError
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit

BINARIES = server_binaries()
pytestmark = pytest.mark.skipif(not BINARIES, reason="no Redis server is installed")


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """What is kept for the next process lies in the test's own folder; a second is long enough to wait."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for module in (patience, protocol):
        monkeypatch.setattr(module, "PATIENCE_MS", 600)
    for module in (patience, connections):
        monkeypatch.setattr(module, "TIMEOUT_S", 0.2)


@pytest.fixture
def server(tmp_path):
    made = RedisServer(next(iter(BINARIES.values())), tmp_path)
    made.start()
    yield made
    made.kill()


def freeze(server):
    server._process.send_signal(signal.SIGSTOP)


def thaw(server):
    server._process.send_signal(signal.SIGCONT)
    redis.Redis(port=server.port).ping()


def pipeline(url, clock=None, **ledger):
    config = CostConfig(ledger={"url": url, **ledger}, budgets=[{"scope": "global", "limit": 9}])
    return CostPipeline(config, clock=clock, rng=Random(3))


def test_a_call_refused_by_a_frozen_server_leaves_nothing_pending(server):
    with Ledger.open(server.url) as ledger:
        ledger.book("1")
        freeze(server)
        started = time.monotonic()
        with pytest.raises(LedgerUnavailableError):
            ledger.reserve("0.5", id="frozen")
        assert time.monotonic() - started < 9.0  # as long as in production, of which a loaded machine may need some
        time.sleep(0.2)
        thaw(server)
        assert ledger.balance("global").pending == 0
        assert ledger.reserve("0.5", id="later").amount == ledger.balance("global").pending
        assert "frozen" not in {row.id for row in ledger.rows()}


def test_a_clock_of_the_server_that_was_set_refuses_no_call(server):
    with Ledger.open(server.url) as ledger:
        ledger.backend.protocol._ahead_ms -= 3_600_000  # a fail-over to a machine whose clock is an hour ahead
        assert ledger.reserve("0.5", id="a").amount == ledger.balance("global").pending


def test_a_reserve_whose_answer_never_came_is_given_back(server, monkeypatch):
    """It was carried out in time, and the answer was lost: the call was refused, so nothing may stay held."""
    clock = FakeClock()
    with pipeline(server.url, clock) as pipe:
        plain = type(pipe.ledger.backend).reserve

        def lost(self, *args, **options):
            plain(self, *args, **options)
            raise LedgerUnavailableError(server.url, "no answer")

        with monkeypatch.context() as patched:
            patched.setattr(type(pipe.ledger.backend), "reserve", lost)
            with pytest.raises(LedgerUnavailableError):
                pipe.run(request(), lambda _: answer(), providers=BOTH)
        clock.advance(1)
        assert pipe.ledger.balance("global").pending == 0


def test_where_it_is_allowed_a_pipeline_starts_without_its_ledger(tmp_path, caplog):
    server, clock = RedisServer(next(iter(BINARIES.values())), tmp_path), FakeClock()
    with pytest.raises(LedgerUnavailableError):
        pipeline(server.url, clock)
    pipe = pipeline(server.url, clock, on_unavailable="allow")
    assert "until the ledger can be opened" in caplog.text
    for _ in range(3):
        assert pipe.run(request(), lambda _: answer(), providers=BOTH) == "fine"
    with server:
        clock.advance(40)
        pipe.run(request(), lambda _: answer(), providers=BOTH)
        ledger = pipe.ledger
        assert ledger.budgets()[0].limit == 9  # in force before the first call that is held against them
        assert ledger.balance("global").settled_nanousd == 4 * COST
        assert sorted(row.kind for row in ledger.rows()) == ["book"] * 3 + ["reserve", "settle"]
        audit(ledger._backend.read(None), list(ledger.rows()))
        pipe.close()


def test_the_calls_of_an_outage_are_found_by_the_next_process(server, tmp_path):
    clock = FakeClock()
    killed = pipeline(server.url, clock, on_unavailable="allow")
    server.kill()
    for _ in range(2):
        killed.run(request(), lambda _: answer(), providers=BOTH)
    (kept,) = Path(os.environ["XDG_STATE_HOME"], "llm-cost-middleware").iterdir()
    assert "secret" not in kept.read_text()
    server.start()
    with pipeline(server.url, clock) as other:
        assert other.ledger.balance("global").settled_nanousd == 2 * COST
