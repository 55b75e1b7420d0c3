"""``kill -9`` at every step of a call's life, four processes working on one file. Long form: ``--soak``."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from redis_servers import RedisServer, server_binaries

import llm_cost_middleware
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit

WORKER = Path(__file__).with_name("ledger_worker.py")
STEPS = [
    "before the reserve", "inside a transaction", "reserved", "sent", "settled, not acknowledged", "settled", "voided",
]  # fmt: skip


def start(url, folder, seed, *step):
    root = Path(llm_cost_middleware.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, str(WORKER), url, str(folder), str(seed), *map(str, step)], env=environment
    )


def lines(folder, kind):
    for path in sorted(folder.glob(f"{kind}-*")):
        for line in path.read_text().splitlines():
            yield line.split(" ")


def pytest_generate_tests(metafunc):
    soak = metafunc.config.getoption("--soak", default=False)
    if "redis_seed" in metafunc.fixturenames:
        metafunc.parametrize("redis_seed", range(300 if soak else 3))
    elif "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(300 if soak else 8))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = server_binaries()
    if not found:
        pytest.skip("no Redis at hand")
    with RedisServer(next(iter(found.values())), tmp_path_factory.mktemp("redis")) as server:
        yield server


def test_after_kill_9_no_money_is_missing_and_none_counted_twice(tmp_path, seed):
    _killed(f"sqlite:///{tmp_path}/ledger.db", tmp_path, seed, STEPS)


def test_after_kill_9_of_clients_of_redis_as_well(server, tmp_path, redis_seed):
    """Its scripts are whole or not at all; what a dead client had sent may be carried out still."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    _killed(server.url, tmp_path, redis_seed, [step for step in STEPS if step != "inside a transaction"])


def _killed(url, tmp_path, seed, steps):
    chance = random.Random(seed)
    Ledger.open(url).close()
    # two workers kill themselves at a step, two are killed from outside, somewhere
    workers = [
        start(url, tmp_path, 1000 * seed + n, steps[(2 * seed + n) % len(steps)], chance.randrange(1, 40))
        for n in (0, 1)
    ]
    victims = [start(url, tmp_path, 1000 * seed + n) for n in (2, 3)]
    for worker in workers:
        worker.wait(timeout=300)
    time.sleep(chance.random() * 0.2)
    for victim in victims:
        victim.kill()
        victim.wait()

    ledger = Ledger.open(url, clock=FakeClock(time.time() + 3600))
    rows = list(ledger.rows())
    audit(ledger._backend.read(None), rows)
    written = {(row.kind, row.id): int(row.amount_nanousd) for row in rows}
    assert len(written) == len(rows), "a step was written twice"
    for kind, id_, amount in lines(tmp_path, "acks"):
        assert written[kind, id_] == int(amount), "what was acknowledged is gone"

    in_flight = {row.id for row in rows if row.kind == "reserve"} - {row.id for row in rows if row.kind != "reserve"}
    assert ledger.sweep() == len(in_flight) <= 4
    balance = ledger.balance("global")
    assert balance.pending == 0, "something is pending for ever"
    bill = {id_: int(amount) for id_, amount in lines(tmp_path, "bill")}
    resolved = {row.id: int(row.amount_nanousd) for row in ledger.rows() if row.kind != "reserve"}
    for id_ in bill:
        assert id_ in resolved, "a billed call is unknown to the ledger"
    for id_ in in_flight:  # the provider's own export says what they cost
        ledger.reconcile(id_, NanoUSD(bill.get(id_, 0)))
    assert ledger.balance("global").settled_nanousd == sum(bill.values())
    audit(ledger._backend.read(None), list(ledger.rows()))
    ledger.close()


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_this_step(tmp_path, step):
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.open(url).close()
    assert start(url, tmp_path, 7, step, 3).wait(timeout=300) == -9
    with Ledger.open(url, clock=FakeClock(time.time() + 3600)) as ledger:
        audit(ledger._backend.read(None), list(ledger.rows()))
        pending = ledger.sweep()
        assert pending == (step in {"reserved", "sent"} or (step == "inside a transaction" and pending))
        assert ledger.balance("global").pending == 0
        audit(ledger._backend.read(None), list(ledger.rows()))
