"""A person is erased from every storage: named nowhere, and every sum as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
import redis
from bystanders import working
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware.budget.backends.redis.maintenance import RedisEraser
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import BudgetExceededError, ConfigurationError
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit

DAY = 86_400


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = server_binaries()
    if not found:
        pytest.skip("no Redis at hand")
    with RedisServer(next(iter(found.values())), tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
def url(request, tmp_path):
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    if request.param != "redis":
        return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/l.db"
    found = request.getfixturevalue("server").url
    with redis.Redis.from_url(found) as client:
        client.flushall()
    return found


@pytest.fixture
def clock():
    return FakeClock(1_780_000_000)


def everything(ledger):
    """Every byte that the storage keeps."""
    kind, _, path = ledger.url.partition("://")
    if kind == "memory":
        state = ledger.backend._state
        parts = state.rows, state.open, state.closed, state.accounts, state.budget_index.budgets, state.register
        names = [account.key for account in state.accounts.values()]
        return repr((*parts, names, state.journal._entries, list(state.routes)))
    if kind == "sqlite":
        with closing(sqlite3.connect(path[1:])) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return "\n".join(db.iterdump())
    if kind == "postgresql":
        import psycopg

        with psycopg.connect(ledger.url) as db:
            names = db.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'llm_cost'")
            tables = [name for (name,) in names.fetchall()]
            found = [db.execute(f"TABLE llm_cost.{name}").fetchall() for name in tables]
        return repr(found)
    with redis.Redis.from_url(ledger.url) as client:
        read = {b"hash": client.hgetall, b"string": client.get, b"stream": client.xrange, b"set": client.smembers}
        read |= {b"zset": lambda key: client.zrange(key, 0, -1), b"list": lambda key: client.lrange(key, 0, -1)}
        return repr([(key, read[client.type(key)](key)) for key in client.scan_iter()])


def call(ledger, *scopes, amount="0.5", settle="0.2"):
    held = ledger.reserve(amount, scopes)
    return ledger.settle(held.id, settle) if settle else held


def test_an_erased_person_is_named_nowhere_and_every_sum_stays(url, tmp_path, clock):
    with Ledger.open(url, clock=clock) as ledger:
        ledger.set_budget(Budget("global", "100", reserve={"user:alice": 0.1}))
        ledger.set_budget(Budget("user:alice", "5", "day", warn_at=0.01))
        ledger.set_budget(Budget("user:*", "5", "month"))
        old = call(ledger, "user:alice", "team:a")
        archived = url != "memory://"
        if archived:
            clock.advance(100 * DAY)
            ledger.archive(clock.now(), MemoSummary(), tmp_path / "old.jsonl")
        for _ in range(5):
            call(ledger, "user:alice", "team:a")
            call(ledger, "user:alicette", "team:a")
        held = call(ledger, "user:alice", settle=None)
        guess = ledger.book("0.3", ["user:alice"], id="guess", status="estimated")
        with pytest.raises(BudgetExceededError):
            ledger.reserve("50", ["user:alice"], id="refused")
        ledger.journal.append("response", "openai.x", clock.now(), b'[{"scopes":["user:alice","team:a"],"v":1}]')
        before = {scope: ledger.balance(scope, None) for scope in ("global", "team:a")}
        mine = ledger.balance("user:alice", "day")
        done = ledger.erase("user:alice")
        assert done.alias.startswith("user:erased-")
        assert done.rows == 5 * 2 + 1 + 1 + (1 if archived else 2)
        assert done.archives == ((str(tmp_path / "old.jsonl"),) if archived else ())
        assert {scope: ledger.balance(scope, None) for scope in before} == before
        assert ledger.balance(done.alias, "day") == mine
        audit(ledger.backend.read(None), list(ledger.rows()))
        assert ledger.settle(old.id, "0.2").repeated
        assert ledger.settle(held.id, "0.1").warnings == (), "it was warned of under the old name"
        ledger.reconcile(guess.id, "0.25")  # what was booked is corrected where it was booked
        audit(ledger.backend.read(None), list(ledger.rows()))
        assert "user:alice" not in everything(ledger).replace("user:alicette", "")
        assert ledger.balance("user:alicette", "month").settled == 1
        call(ledger, "user:alice")  # who comes back is somebody new
        assert ledger.balance("user:alice", "month").settled_nanousd == 2 * 10**8
        audit(ledger.backend.read(None), list(ledger.rows()))
        for wrong in ("global", "user:*", "alice"):
            with pytest.raises(ConfigurationError):
                ledger.erase(wrong)


def test_calls_go_on_meanwhile_and_no_sum_is_split(url, clock):
    paid = [0, 0]
    with Ledger.open(url, clock=clock) as ledger:
        for _ in range(30):
            call(ledger, "user:alice", settle="0.1", amount="0.1")

        def work(number):
            held = ledger.reserve(NanoUSD(100), ["user:alice", f"team:{number}"])
            ledger.settle(held.id, NanoUSD(60))
            paid[number] += 60

        with working(work):
            aliases = [ledger.erase("user:alice").alias for _ in range(3)]
        audit(ledger.backend.read(None), list(ledger.rows()))
        shares = [ledger.balance(scope).settled_nanousd for scope in (*aliases, "user:alice")]
        assert sum(shares) == sum(paid) + 3 * 10**9
        assert shares[0] >= 3 * 10**9
        assert ledger.balance("global").pending == 0


def test_an_erasure_on_redis_that_was_cut_short_is_completed(server, clock, monkeypatch):
    with redis.Redis.from_url(server.url) as client, Ledger.open(server.url, clock=clock) as ledger:
        moment = 0
        do = RedisEraser.do
        script = RedisEraser.script
        while True:
            client.flushall()
            with Ledger.open(server.url, clock=clock) as fresh:
                for _ in range(4):
                    call(fresh, "user:alice")
                call(fresh, "user:bob")
                held = call(fresh, "user:alice", settle=None)
            left = [moment := moment + 1]

            def dying(method, left=left):
                def run(self, *args):
                    left[0] -= 1
                    if left[0] == 0:
                        raise KeyboardInterrupt
                    return method(self, *args)

                return run

            with monkeypatch.context() as patched:
                patched.setattr(RedisEraser, "do", dying(do))
                patched.setattr(RedisEraser, "script", dying(script))
                try:
                    ledger.erase("user:alice")
                    break
                except KeyboardInterrupt:
                    client.delete("{llm-cost:default}:archiving")  # its lease ends
            begun = [client.hget(key, "alias").decode() for key in client.keys("{llm-cost:default}:erasure:*")]
            bob = ledger.erase("user:bob")  # of the same kind: an erasure of its own
            assert bob.unfinished == tuple(begun)
            assert "user:bob" not in everything(ledger)
            done = ledger.erase("user:alice")
            assert done.alias in begun or not begun
            assert not done.unfinished
            assert not client.keys("*erasure*")
            ledger.settle(held.id, "0.1")
            audit(ledger.backend.read(None), list(ledger.rows()))
            assert "user:alice" not in everything(ledger)
            assert ledger.balance("global").settled_nanousd == 11 * 10**8
        assert moment > 10
