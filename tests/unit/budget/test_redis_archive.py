"""Old rows of a Redis ledger leave for a file, or are rolled up: nothing that anybody can ask it changes by that."""

from __future__ import annotations

import json
import random
import time

import pytest
import redis
from ledger_histories import DAY, START, live, reports, told
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware.budget import archive_file
from llm_cost_middleware.budget.backends.redis import archive as archiving
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.scripted.commands import Script
from llm_cost_middleware.errors import ConfigurationError, LedgerError, ReservationConflictError
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = server_binaries()
    if not found:
        pytest.skip("no Redis at hand")
    with RedisServer(next(iter(found.values())), tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def clock():
    return FakeClock(START)


@pytest.fixture
def ledger(server, clock, monkeypatch):
    monkeypatch.setattr(archiving, "STEP", 20)
    with Ledger.open(server.url, clock=clock) as ledger:
        yield ledger
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kept", [True, False])
def test_no_balance_budget_or_report_changes(ledger, clock, tmp_path, seed, kept):
    chance = random.Random(seed)
    ledger.set_budget(Budget("global", "5", "month", "Asia/Kathmandu"))
    ledger.set_budget(Budget("user:*", "1", "week"))
    days = chance.choice([2, 40, 500])
    live(ledger, clock, seed, days, 90)
    now = clock.now()
    midnights = [(now - chance.random() * days * DAY) // DAY * DAY for _ in range(3)]
    spans = [(None, None), *((since, None) for since in midnights), (None, midnights[0])]
    before, balances, rows = reports(ledger, spans), ledger.balances(), list(ledger.rows())
    sums = {(since, scope): told(ledger, since, scope) for since, _ in spans for scope in (None, "user:1")}

    for number, cut in enumerate((*sorted(now - chance.random() * days * DAY for _ in range(2)), now)):
        path = tmp_path / f"{number}.jsonl" if kept else None
        moved = ledger.archive(cut, MemoSummary(), path, keep=kept)
        assert not moved.resumed
        assert ledger.balances() == balances
        audit(ledger.backend.read(None), list(ledger.rows()))
        assert reports(ledger, spans) == before
        assert {(since, scope): told(ledger, since, scope) for since, scope in sums} == sums
    left = list(ledger.rows())
    kept_rows = {row for row in left if row.kind != "carried"}
    assert kept_rows < set(rows)
    if kept:
        filed = {(row.seq, row.kind, row.id) for path in tmp_path.glob("?.jsonl") for row in archive_file.read(path)}
        assert filed == {(row.seq, row.kind, row.id) for row in set(rows) - kept_rows}, "in both places, or in none"
    # A budget that is set later counts no less, and life goes on.
    ledger.set_budget(Budget("user:*", "5", "month"))
    ledger.settle(ledger.reserve(NanoUSD(9), ["user:1"]).id, NanoUSD(7))
    audit(ledger.backend.read(None), list(ledger.rows()))


def test_ids_stay_known_and_take_no_correction(ledger, clock):
    ledger.reserve("0.5", ["user:a"], id="held")
    ledger.settle("held", "0.25")
    ledger.book("0.125", ["user:a"], id="booked")
    ledger.void(ledger.reserve("0.1", id="given back").id)
    ledger.settle(ledger.reserve("0.1", id="corrected").id, "0.1", status="estimated")
    ledger.reconcile("corrected", "0.2")
    receipt, correction = ledger.settle("held", "0.25"), ledger.reconcile("corrected", "0.2")
    clock.advance(10)
    ledger.archive(clock.now(), MemoSummary(), keep=False)
    assert [row.kind for row in ledger.rows()] == ["carried"] * 2
    assert ledger.settle("held", "0.25") == receipt
    assert ledger.reconcile("corrected", "0.2") == correction
    assert ledger.reserve("0.5", ["user:a"], id="held").state == "settled"
    assert ledger.book("0.125", ["user:a"], id="booked").repeated
    assert ledger.void("given back").repeated
    for again in (
        lambda: ledger.reconcile("held", "0.3"), lambda: ledger.settle("held", "0.3"), lambda: ledger.void("held"),
        lambda: ledger.reserve("0.6", ["user:a"], id="held"), lambda: ledger.extend("held", 5),
    ):  # fmt: skip
        with pytest.raises(ReservationConflictError):
            again()
    assert ledger.reduce("held", "0.1").released_nanousd == 0


def test_a_report_over_old_days_reads_no_rows_but_sums(ledger, clock, monkeypatch):
    live(ledger, clock, 3, 60, 150)
    spans = [(START // DAY * DAY + day * DAY, START // DAY * DAY + 30 * DAY) for day in (1, 10)]
    before = reports(ledger, spans)
    assert any(before.values())
    ledger.archive(clock.now() - 20 * DAY, MemoSummary(), keep=False)
    read, execute = [], type(ledger.backend).execute

    def counted(self, command, patience=None):
        found = execute(self, command, patience)
        if isinstance(command, Script) and command.name == "block":
            read.append(len(found))
        return found

    monkeypatch.setattr(type(ledger.backend), "execute", counted)
    assert reports(ledger, spans) == before
    assert sum(read) <= len(before), "one row, to say that somebody reads"


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("kept", [True, False])
def test_cut_short_at_any_step_the_next_call_completes_it(ledger, clock, tmp_path, monkeypatch, kept):
    live(ledger, clock, 5, 40, 90)
    balances, rows = ledger.balances(), set(ledger.rows())
    execute, left, moment = type(ledger.backend).execute, [0], 0

    def dying(self, command, patience=None):
        if left[0] == 1:
            raise Killed
        left[0] -= 1
        return execute(self, command, patience)

    with redis.Redis.from_url(ledger.url) as client:
        while True:
            moment += 1 + moment // 8
            left[0] = moment
            with monkeypatch.context() as patched:
                patched.setattr(type(ledger.backend), "execute", dying)
                try:
                    path = tmp_path / "old.jsonl" if kept else None
                    ledger.archive(clock.now() - DAY, MemoSummary(), path, keep=kept)
                except Killed:
                    pass
                except ConfigurationError:  # it was done, and the file is there
                    assert (tmp_path / "old.jsonl").exists()
                    break
                else:
                    break
            client.delete("{llm-cost:default}:archiving")  # its lease ends
            assert ledger.balances() == balances
            seen = list(ledger.rows())
            audit(ledger.backend.read(None), seen)
            assert {row for row in seen if row.kind != "carried"} <= rows
    assert moment > 10
    done = ledger.archive(clock.now() - DAY, MemoSummary(), tmp_path / "more.jsonl" if kept else None, keep=kept)
    assert done.rows == 0
    if kept:
        gone = rows - set(ledger.rows())
        assert sum(1 for _ in archive_file.read(tmp_path / "old.jsonl")) == len(gone)


def test_nothing_is_archived_while_somebody_reads_or_archives(ledger, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(archiving, "_READERS_S", 0.1)
    live(ledger, clock, 1, 30, 40)
    reader = ledger.rows()
    next(reader)
    with pytest.raises(LedgerError, match="being read"):
        ledger.archive(clock.now(), MemoSummary(), keep=False)
    reader.close()
    with redis.Redis.from_url(ledger.url) as client:
        client.set("{llm-cost:default}:archiving", "another")
        with pytest.raises(LedgerError, match="another process"):
            ledger.archive(clock.now(), MemoSummary(), keep=False)
        client.delete("{llm-cost:default}:archiving")
    assert ledger.archive(clock.now(), MemoSummary(), keep=False).resumed
    with pytest.raises(ConfigurationError, match="name a file"):
        ledger.archive(clock.now(), MemoSummary())


def test_the_journal_and_the_register_go_along(ledger, clock, tmp_path):
    ledger.set_budget(Budget("global", "5"))
    for number in range(700):
        ledger.journal.append(("decision", "outcome")[number % 2], f"c{number}", clock.now(), b"\xff{}")
        clock.advance(3600)
    ledger.book("1", ["user:a"])
    clock.advance(10)
    moved = ledger.archive(clock.now(), MemoSummary(), tmp_path / "old.jsonl")
    lines = list(archive_file.read_lines(tmp_path / "old-journal.jsonl"))
    assert moved.lines == len(lines)
    assert {line.data for line in lines} == {b"\xff{}"}
    kept = [line.id for kind in ("decision", "outcome") for line in ledger.journal.read(kind)]
    assert sorted(kept + [line.id for line in lines]) == sorted(f"c{number}" for number in range(700))
    assert 8 * 24 - 2 <= len(kept) <= 8 * 24, "what a later bill may need stays"
    assert archive_file.header(tmp_path / "old.jsonl")["register"]["history"]
    last = json.loads((tmp_path / "old.jsonl").read_text().splitlines()[-1])
    assert list(last["days"].values()) == [{"global": 10**9, "user:a": 10**9}]


def test_a_ledger_of_the_version_before_is_brought_forward_and_its_processes_refuse(server, clock):
    """What its keys looked like: the scripts of both versions write rows and reservations alike."""
    tag = "{llm-cost:default}"
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.hset(f"{tag}:budgets", mapping={"schema": 4, "version": 3, "global none": '["5000000000", "UTC", null]'})
        client.hset(f"{tag}:budgets", "global none", '[5000000000, "UTC", null]')
        with Ledger.open(server.url, clock=clock) as ledger:
            assert [budget.limit for budget in ledger.budgets()] == [5]
            ledger.book("1")
        assert client.hget(f"{tag}:budgets", "schema") == b"5"
        assert client.hget(f"{tag}:budgets", "global none") == b'[0, "UTC", null]'
        client.flushall()


def test_it_takes_less_than_450_bytes_a_call(server, clock, tmp_path):
    """Counted between two sizes: a server takes some room for scripts and connections, whatever it holds."""
    sizes = []
    with redis.Redis.from_url(server.url) as client, Ledger.open(server.url, clock=clock) as ledger:
        for seed, calls in ((8, 500), (9, 2_000)):
            live(ledger, clock, seed, 40, calls)
            clock.advance(100 * DAY)
            ledger.archive(clock.now(), MemoSummary(), tmp_path / f"{seed}.jsonl")
            while client.info("memory")["lazyfree_pending_objects"]:
                time.sleep(0.01)
            sizes.append(client.info("memory")["used_memory"])
        client.flushall()
    each = (sizes[1] - sizes[0]) / 2_000
    assert each < 450, each
