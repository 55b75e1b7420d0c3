"""Redis killed and started again under load, a lost script cache, a flushed server, a cluster."""

from __future__ import annotations

import threading
import time

import pytest
import redis
from redis_servers import RedisServer

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import LedgerUnavailableError, LedgerVersionError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.oracle import audit


def wait_until_up(ledger):
    for _ in range(1_000):
        try:
            return ledger.balance("global")
        except LedgerUnavailableError:
            time.sleep(0.05)
    raise AssertionError("it does not come back")


def written_out(server):
    """Until nothing of the append-only file is held back in the server's memory: a kill cannot reach the rest."""
    with redis.Redis.from_url(server.url) as client:
        for _ in range(1_000):
            found = client.info("persistence")
            if not found["aof_buffer_length"] and not found["aof_pending_bio_fsync"]:
                return
            time.sleep(0.05)
    raise AssertionError("it does not write")


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_what_was_acknowledged_survives_a_kill(redis_binary, tmp_path, fsync):
    """``always`` keeps all of it; ``everysec`` may lose its last second or two: a tail, never half a step."""
    with RedisServer(redis_binary, tmp_path, ("appendonly", "yes"), ("appendfsync", fsync)) as server:
        ledger = Ledger.open(server.url)
        ledger.set_budget(Budget("user:*", "5", "day"))
        written_out(server)  # the budget, too
        acknowledged, refusals = [[] for _ in range(4)], []
        killed = threading.Event()

        def work(name):
            while not killed.is_set():
                try:
                    held = ledger.reserve(NanoUSD(1000), [f"user:{name}"])
                    acknowledged[name].append(("reserve", held.id))
                    ledger.settle(held.id, NanoUSD(900))
                    acknowledged[name].append(("settle", held.id))
                except LedgerUnavailableError as error:
                    refusals.append(error)
                    return

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.4)
        server.kill()
        for thread in threads:
            thread.join(timeout=300)
        killed.set()
        assert len(refusals) == 4, "a server that is gone must be an error, never an open door"
        server.start()
        wait_until_up(ledger)
        rows = list(ledger.rows())
        audit(ledger._backend.read(None), rows)
        written = {(row.kind, row.id) for row in rows}
        for steps in acknowledged:
            kept = [step in written for step in steps]
            assert all(kept) if fsync == "always" else kept == sorted(kept, reverse=True)
        assert len(rows) == len({(row.kind, row.id) for row in rows})
        ledger.settle(ledger.reserve("0.1").id, "0.1")
        ledger.close()


def test_a_restart_under_load_is_bridged(redis_binary, tmp_path):
    with RedisServer(redis_binary, tmp_path, ("appendonly", "yes"), ("appendfsync", "always")) as server:
        ledger = Ledger.open(server.url)
        ledger.book("0.1", id="before")
        server.kill()
        revival = threading.Timer(0.05, server.start)
        revival.start()
        assert ledger.book("0.2", id="after").amount_nanousd == 200_000_000
        assert ledger.book("0.1", id="before").amount_nanousd == 100_000_000
        assert ledger.balance("global").settled_nanousd == 300_000_000
        revival.join()  # it looks for its answer: the server must not go before
        ledger.close()


def test_a_lost_script_cache_is_loaded_again(redis_binary, tmp_path):
    with RedisServer(redis_binary, tmp_path) as server, Ledger.open(server.url) as ledger:
        held = ledger.reserve("0.1")
        with redis.Redis.from_url(server.url) as client:
            client.script_flush()
        assert ledger.settle(held.id, "0.1").overrun_nanousd == 0


def test_a_flushed_server_is_an_error_and_not_an_unlimited_budget(redis_binary, tmp_path):
    with RedisServer(redis_binary, tmp_path) as server, Ledger.open(server.url) as ledger:
        ledger.set_budget(Budget("global", "1"))
        ledger.reserve("0.1")
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
        with pytest.raises(LedgerUnavailableError, match="keys are gone"):
            ledger.reserve("0.1")


def test_a_key_of_another_type_stops_a_verb_before_it_writes(redis_binary, tmp_path):
    with RedisServer(redis_binary, tmp_path) as server, Ledger.open(server.url) as ledger:
        ledger.set_budget(Budget("global", "1"))
        held = ledger.reserve("0.1")
        with redis.Redis.from_url(server.url) as client:
            client.set("{llm-cost:default}:a:user:a none", "something else")
        for verb in (lambda: ledger.reserve("0.1", ["user:a"]), lambda: ledger.book("0.1", ["user:a"])):
            with pytest.raises(LedgerUnavailableError):
                verb()
        ledger.settle(held.id, "0.05")
        assert [row.kind for row in ledger.rows()] == ["reserve", "settle"]
        assert ledger.balance("global").settled_nanousd == 50_000_000


def test_passwords_and_versions_are_checked(redis_binary, tmp_path):
    with RedisServer(redis_binary, tmp_path, ("requirepass", "right")) as server:
        address = server.url.removeprefix("redis://")
        with pytest.raises(LedgerUnavailableError) as caught:
            Ledger.open(f"redis://:very-secret@{address}")
        assert "very-secret" not in str(caught.value)
        Ledger.open(f"redis://:right@{address}").close()
        with redis.Redis.from_url(f"redis://:right@{address}") as client:
            client.hset("{llm-cost:default}:budgets", "schema", 99)
        with pytest.raises(LedgerVersionError):
            Ledger.open(f"redis://:right@{address}")


def test_a_server_that_does_not_answer_is_a_clear_error():
    with pytest.raises(LedgerUnavailableError):
        Ledger.open("redis://127.0.0.1:1/0")


def test_a_cluster_keeps_a_tenant_in_one_slot(redis_binary, tmp_path):
    with RedisServer(redis_binary, tmp_path, ("cluster-enabled", "yes")) as server:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            for _ in range(2_000):
                if _healthy(client):
                    break
                time.sleep(0.05)
        with Ledger.open(f"redis+cluster://127.0.0.1:{server.port}") as ledger:
            ledger.set_budget(Budget("user:*", "1", "day"))
            ledger.settle(ledger.reserve("0.5", ["user:a"]).id, "0.4")
            ledger.extend(ledger.reserve("0.1", ["user:a"]).id, 10)
            assert ledger.sweep() == 0
            audit(ledger._backend.read(None), list(ledger.rows()))


def _healthy(client):
    return client.cluster("info").get("cluster_state") == "ok"
