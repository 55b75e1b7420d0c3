"""Leases of real processes on real storages: a race to the end of a budget, and ``kill -9``. Long form: ``--soak``."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import lease_worker
import pytest
from lease_worker import leased
from redis_servers import RedisServer, server_binaries

import llm_cost_middleware
from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
from llm_cost_middleware.budget.ledger.leased import aleased_amounts, leased_amounts, leased_balances
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.cli.doctor import _ledger
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock

WORKER = Path(lease_worker.__file__)
STORAGES = ["sqlite", "redis", "postgres"]


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(300 if metafunc.config.getoption("--soak", default=False) else 1))


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    found = server_binaries()
    if not found:
        pytest.skip("no Redis at hand")
    with RedisServer(next(iter(found.values())), tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def url(storage, request, tmp_path, monkeypatch):
    """An empty ledger of a storage; what processes leave lies in the folder of the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if storage == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    if storage == "postgres":
        return request.getfixturevalue("postgres_url")
    import redis

    server = request.getfixturevalue("redis_server")
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


def start(url, folder, seed, refusals):
    root = Path(llm_cost_middleware.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(WORKER.parent)])}
    arguments = [sys.executable, str(WORKER), url, str(folder), str(seed), str(refusals)]
    return subprocess.Popen(arguments, env=environment)


def told(folder, kind):
    found = {}
    for path in folder.glob(f"{kind}-*"):
        whole = path.read_text().rpartition("\n")[0]  # a kill may have cut the last line
        for line in whole.splitlines():
            id_, amount = line.split(" ")
            found[id_] = int(amount)
    return found


def watch(ledger, limit, processes):
    """Look at the storage while they run: a block counts as pending."""
    while any(process.poll() is None for process in processes):
        balance = ledger.balance("global")
        assert balance.settled_nanousd + balance.pending_nanousd <= limit, balance
        time.sleep(0.02)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_race_to_the_end_of_a_budget_never_passes_it(storage, url, tmp_path, seed):
    """And leaves no more of it than a thousandth, and a hold."""
    limit = 2_000_000
    ledger = Ledger.open(url)
    ledger.set_budget({"scope": "global", "limit": NanoUSD(limit), "window": "day"})
    ledger.set_budget({"scope": "user:*", "limit": NanoUSD(limit), "window": "none"})
    workers = [start(url, tmp_path, 10 * seed + number, 5) for number in range(4)]
    watch(ledger, limit, workers)
    assert [worker.wait(timeout=120) for worker in workers] == [0] * 4
    balance, bill = ledger.balance("global"), told(tmp_path, "bill")
    assert balance.pending == 0
    assert balance.settled_nanousd == sum(bill.values()) <= limit
    assert limit - balance.settled_nanousd <= limit // 1000 + 1000, "what fitted was refused"
    admitted, calls = (
        sum(sums)
        for sums in zip(*(map(int, path.read_text().split()) for path in tmp_path.glob("done-*")), strict=True)
    )
    assert admitted > calls / 4, "hardly anything was admitted from a block"
    ledger.close()


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_leased_is_told_apart_from_what_calls_hold(storage, url, capsys):
    limit = NanoUSD(10**12)
    with Ledger.open(url) as plain, leased(url) as ledger:
        plain.set_budget({"scope": "global", "limit": limit, "window": "day"})
        assert leased_amounts(plain) == {}
        for _ in range(6):
            for _ in range(20):
                ledger.settle(ledger.reserve(NanoUSD(1000), ["user:a"]).id, NanoUSD(100))
            ledger.backend.shipping.tick()
        plain.reserve(NanoUSD(5000), ["user:b"])
        ledger.backend.shipping.flush()
        block = ledger.backend.desk.blocks["global"]
        ledger.backend.keeper._closed = True  # nothing moves while it is looked at
        amounts = leased_amounts(plain)
        assert amounts["global", "day"] == block.held > 0
        assert plain.balance("global").pending_nanousd == block.held + 5000
        assert leased_amounts(ledger) == {}, "its own is not others'"
        (one,) = [one for one in leased_balances(plain) if one.scope == "global"]
        assert (one.leased_nanousd, one.balance.pending_nanousd) == (block.held, block.held + 5000)

        async def from_a_loop():
            async with AsyncLedger.open(url) as aledger, AsyncLedger.over(ledger) as own:
                return await aleased_amounts(aledger), await aleased_amounts(own)

        assert asyncio.run(from_a_loop()) == (amounts, {})
        app(["budgets", "--ledger", url, "--json"], standalone_mode=False)
        (told,) = json.loads(capsys.readouterr().out)
        assert told["leased"] == f"{NanoUSD(block.held).usd:f}"
        rows = {what: told for _, what, told in _ledger(None, url, CostConfig())}
        opens, blocks = rows["ledger"], rows["leases"]  # what ``llm-cost doctor`` says of it
        assert "opens" in opens
        assert "in blocks of processes" in blocks
        ledger.backend.keeper._closed = False
    with Ledger.open(url) as plain:
        assert leased_amounts(plain) == {}


@pytest.mark.parametrize("storage", STORAGES)
def test_after_kill_9_the_next_process_ships_what_was_left(storage, url, tmp_path, seed):
    limit, chance = 10**12, random.Random(seed)
    ledger = Ledger.open(url)
    ledger.set_budget({"scope": "global", "limit": NanoUSD(limit), "window": "day"})
    ledger.set_budget({"scope": "user:*", "limit": NanoUSD(limit // 3), "window": "none"})
    workers = [start(url, tmp_path, 10 * seed + number, 1) for number in range(3)]
    began = time.monotonic()
    while len(told(tmp_path, "acks")) < 200 + chance.randrange(3000) and time.monotonic() < began + 60:
        time.sleep(0.05)
    for worker in workers:
        time.sleep(chance.random() * 0.1)
        worker.kill()
        worker.wait()
    balance = ledger.balance("global")
    assert balance.settled_nanousd + balance.pending_nanousd <= limit
    ledger.close()

    successor = leased(url)
    successor.backend.shipping.tick()
    successor.close()
    assert not list(tmp_path.rglob("*-leases/*")), "a journal was left"
    # Its owners are gone: what they had sent expires under its own name, as without leases.
    with Ledger.open(url, clock=FakeClock(time.time() + 3600)) as ledger:
        rows = list(ledger.rows())
        booked = {row.id: int(row.amount_nanousd) for row in rows if row.kind in {"book", "settle"}}
        for id_, amount in told(tmp_path, "acks").items():
            assert booked[id_] == amount, "what was acknowledged is gone"
        assert ledger.sweep() <= len(workers)
        assert ledger.balance("global").pending == 0
        bill = told(tmp_path, "bill")
        ended = {row.id for row in ledger.rows() if row.kind == "expire" and not row.id.startswith("lease:")}
        for id_ in ended:
            ledger.reconcile(id_, NanoUSD(bill.get(id_, 0)))
        assert ledger.balance("global").settled_nanousd == sum(bill.values())
