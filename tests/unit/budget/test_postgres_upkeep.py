"""Old rows leave a ledger in PostgreSQL, a person is erased: nothing that anybody can ask it changes by that."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random

import psycopg
import pytest
from bystanders import working
from ledger_histories import DAY, START, live, reports, told

from llm_cost_middleware.budget import archive_file
from llm_cost_middleware.budget.backends.postgres import archive as archiving
from llm_cost_middleware.budget.backends.postgres import erasure
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.ledger.upkeep import prune_journal, restore
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import ConfigurationError, LedgerError, ReservationConflictError
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit

_TENANTS = itertools.count()


@pytest.fixture
def clock():
    return FakeClock(START)


@pytest.fixture
def ledger(postgres_server, clock, monkeypatch):
    monkeypatch.setattr(archiving, "STEP", 20)
    monkeypatch.setattr(erasure, "STRETCH", 50)
    with Ledger.open(postgres_server.url, clock=clock, tenant=f"upkeep{next(_TENANTS)}") as ledger:
        yield ledger


def do(ledger, text, *values):
    with psycopg.connect(ledger.url, autocommit=True) as db:
        cursor = db.execute(text, values)
        return cursor.fetchall() if cursor.description else []


def free(ledger):
    """The lease of a process that is gone ends."""
    do(ledger, "DELETE FROM llm_cost.upkeep WHERE tenant = %s", ledger.backend.protocol.number)


@pytest.mark.parametrize(("seed", "kept"), [(0, True), (1, False), (2, True)])
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
    ledger.settle(ledger.reserve("0.1", id="corrected").id, "0.1", status="estimated")
    ledger.reconcile("corrected", "0.2")
    receipt, correction = ledger.settle("held", "0.25"), ledger.reconcile("corrected", "0.2")
    clock.advance(10)
    ledger.archive(clock.now(), MemoSummary(), keep=False)
    assert [row.kind for row in ledger.rows()] == ["carried"] * 2
    assert (ledger.settle("held", "0.25"), ledger.reconcile("corrected", "0.2")) == (receipt, correction)
    assert ledger.reserve("0.5", ["user:a"], id="held").state == "settled"
    for again in (
        lambda: ledger.reconcile("held", "0.3"), lambda: ledger.settle("held", "0.3"), lambda: ledger.void("held"),
        lambda: ledger.reserve("0.6", ["user:a"], id="held"), lambda: ledger.extend("held", 5),
    ):  # fmt: skip
        with pytest.raises(ReservationConflictError):
            again()


class Killed(BaseException):
    """The process is gone."""


def dying(ledger, monkeypatch, work):
    """Do some work again and again, killed at its first query, then at a later one; yield after each death."""
    kept, moment, left = type(ledger.backend).drive, 0, [0]

    def drive(self, make):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return kept(self, make)

    while True:
        moment += 1
        left[0] = moment
        with monkeypatch.context() as patched:
            patched.setattr(type(ledger.backend), "drive", drive)
            try:
                work()
            except Killed:
                pass
            else:
                assert moment > 8
                return
        free(ledger)
        yield


@pytest.mark.parametrize("kept", [True, False])
def test_cut_short_at_any_step_the_next_call_completes_it(ledger, clock, tmp_path, monkeypatch, kept):
    live(ledger, clock, 5, 40, 60)
    balances, rows, path = ledger.balances(), set(ledger.rows()), tmp_path / "old.jsonl" if kept else None
    cut = clock.now() - DAY

    def work():
        known = do(ledger, "SELECT state FROM llm_cost.archive WHERE tenant = %s", ledger.backend.protocol.number)
        if known != [("moved",)]:
            ledger.archive(cut, MemoSummary(), path, keep=kept)

    for _ in dying(ledger, monkeypatch, work):
        assert ledger.balances() == balances
        seen = list(ledger.rows())
        audit(ledger.backend.read(None), seen)
        assert {row for row in seen if row.kind != "carried"} <= rows
    assert ledger.archive(cut, MemoSummary(), tmp_path / "more.jsonl" if kept else None, keep=kept).rows == 0
    if kept:
        gone = rows - set(ledger.rows())
        assert sum(1 for _ in archive_file.read(path)) == len(gone) > 0


def test_an_erasure_that_was_cut_short_is_completed(ledger, clock, monkeypatch):
    for number in range(60):
        ledger.book("0.5", ["user:alice"], id=str(number))
    people = [f"user:bob{number}" for number in range(30)] + ["team:x"]
    for person in people:
        ledger.book("1", [person])
    held = ledger.reserve("0.5", ["user:alice"])
    ledger.journal.append("response", "x", 1.0, b'["user:alice"]')
    for _ in dying(ledger, monkeypatch, lambda: ledger.erase("user:alice")):
        assert ledger.balance("global").settled_nanousd == 61 * 10**9
        begun = "SELECT alias FROM llm_cost.erasure WHERE tenant = %s AND state = 'open'"
        if (found := do(ledger, begun, ledger.backend.protocol.number)) and people:
            other = ledger.erase(person := people.pop())  # of the same kind, too: an erasure of its own
            assert other.unfinished == found[0]
            assert ledger.balance(other.alias).settled_nanousd == 10**9
            assert not any(person in row.scopes for row in ledger.rows())
    assert len(people) < 27
    ledger.settle(held.id, "0.25")
    audit(ledger.backend.read(None), list(ledger.rows()))
    assert ledger.balance("global").settled_nanousd == 61_250_000_000
    assert not any("user:alice" in row.scopes for row in ledger.rows())
    digests = "SELECT count(digest) FROM llm_cost.erasure WHERE tenant = %s"
    assert do(ledger, digests, ledger.backend.protocol.number) == [(0,)]
    assert b"alice" not in next(ledger.journal.read("response")).data


def test_rows_are_changed_by_nobody_else(ledger, clock):
    ledger.book("1", ["user:a"], id="a")
    clock.advance(10)
    statements = ("UPDATE llm_cost.entry SET scopes = 'x'", "DELETE FROM llm_cost.entry", "TRUNCATE llm_cost.entry")
    for text in (*statements, "UPDATE llm_cost.entry SET memo_kind = 7"):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            do(ledger, text)
    number = ledger.backend.protocol.number
    do(ledger, "INSERT INTO llm_cost.erasure (tenant, alias, last) VALUES (%s, 'user:x', 1)", number)
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        do(ledger, "UPDATE llm_cost.entry SET amount = 1 WHERE tenant = %s", number)


def test_it_is_archived_month_by_month(ledger, clock, tmp_path):
    """Each file holds the attempts of its month, none twice; what is asked of the ledger stays as it was."""
    live(ledger, clock, 3, 150, 120)
    clock.advance(31 * DAY)  # what is left open expires
    ledger.sweep()
    spans = [(None, None)]
    before, rows = reports(ledger, spans), list(ledger.rows())
    first = dt.datetime.fromtimestamp(rows[0].at, dt.UTC)
    months = [(first.year + (first.month + at) // 12, (first.month + at) % 12 + 1) for at in range(4)]
    ends = [dt.datetime(year, month, 1, tzinfo=dt.UTC).timestamp() for year, month in months]
    files = []
    for (year, month), end in zip(months, ends, strict=True):
        path = ledger.archive(end, MemoSummary(), tmp_path / f"before-{year}-{month:02}.jsonl").path
        files.append({row.seq: row for row in archive_file.read(path)})
        assert reports(ledger, spans) == before
    begin = 0.0
    for found, end in zip(files, ends, strict=True):
        resolved = [row.at / 1000 for row in found.values() if row.kind not in {"reserve", "reduce"}]
        assert resolved
        assert max(resolved) < end
        late = [row.id for row in found.values() if row.kind == "settle" and row.at / 1000 < begin]
        assert not late, "it was in the file of the month before"
        begin = end
    assert sum(map(len, files)) == len({seq for found in files for seq in found}) > 100
    left = {row.seq for row in ledger.rows() if row.kind != "carried"}
    assert left | {seq for found in files for seq in found} >= {row.seq for row in rows}
    audit(ledger.backend.read(None), list(ledger.rows()))


def test_one_process_at_a_time_and_a_file_has_a_name(ledger, clock, tmp_path):
    live(ledger, clock, 1, 30, 30)
    number = ledger.backend.protocol.number
    do(ledger, "INSERT INTO llm_cost.upkeep VALUES (%s, 'another', llm_cost.moment(NULL) + 9000)", number)
    for work in (lambda: ledger.archive(clock.now(), MemoSummary(), keep=False), lambda: ledger.erase("user:0")):
        with pytest.raises(LedgerError, match="another process"):
            work()
    do(ledger, "UPDATE llm_cost.upkeep SET until = 0 WHERE tenant = %s", number)
    with pytest.raises(ConfigurationError, match="name a file"):
        ledger.archive(clock.now(), MemoSummary())
    path = ledger.archive(clock.now(), MemoSummary(), tmp_path / "old.jsonl").path
    with Ledger.open(tmp_path / "again.db") as again:
        assert restore(path, again.backend, empty=True) > 0
        audit(again.backend.read(None), list(again.rows()))
    with pytest.raises(ConfigurationError, match="a new SQLite ledger"):
        restore(path, ledger.backend, empty=True)


def test_calls_go_on_while_it_is_archived(ledger, clock, tmp_path):
    live(ledger, clock, 2, 60, 60)
    paid, before = [0, 0], ledger.balance("global").settled_nanousd

    def work(number):
        ledger.settle(ledger.reserve(NanoUSD(100), [f"user:{number}"]).id, NanoUSD(60))
        paid[number] += 60

    with working(work):
        for number in range(4):
            ledger.archive(clock.now() - (40 - number * 10) * DAY, MemoSummary(), tmp_path / f"{number}.jsonl")
    assert ledger.balance("global").settled_nanousd == before + sum(paid)
    audit(ledger.backend.read(None), list(ledger.rows()))


def test_the_journal_and_the_register_go_along(ledger, clock, tmp_path):
    ledger.set_budget(Budget("global", "5"))
    for number in range(300):
        ledger.journal.append(("decision", "outcome")[number % 2], f"c{number}", clock.now(), b"\xff{}")
        clock.advance(3600)
    ledger.book("1", ["user:a"])
    clock.advance(10)
    moved = ledger.archive(clock.now(), MemoSummary(), tmp_path / "old.jsonl")
    lines = list(archive_file.read_lines(tmp_path / "old-journal.jsonl"))
    assert moved.lines == len(lines)
    kept = [line.id for kind in ("decision", "outcome") for line in ledger.journal.read(kind)]
    assert sorted(kept + [line.id for line in lines]) == sorted(f"c{number}" for number in range(300))
    assert 8 * 24 - 2 <= len(kept) <= 8 * 24, "what a later bill may need stays"
    assert archive_file.header(tmp_path / "old.jsonl")["register"]["history"]
    last = json.loads((tmp_path / "old.jsonl").read_text().splitlines()[-1])
    assert list(last["days"].values()) == [{"global": 10**9, "user:a": 10**9}]
    assert prune_journal(ledger.backend, keep=100, most=40) == 40
    assert prune_journal(ledger.backend, keep=100) == len(kept) - 140
