"""Old rows moved to a file: nothing that anybody can ask the ledger changes by it."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ledger_histories import DAY, MODELS, START, live, memo, told
from msgspec.structs import replace

from llm_cost_middleware.budget import archive_file as file
from llm_cost_middleware.budget.backends.sqlite import archive as archiving
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import (
    BudgetExceededError,
    ConfigurationError,
    LedgerError,
    LedgerUnavailableError,
    ReservationConflictError,
)
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.metering.memo import decode_memo
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit
from llm_cost_middleware.usage import TokenUsage


@pytest.fixture
def clock():
    return FakeClock(START)


@pytest.fixture
def ledger(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(archiving, "BLOCK", 20)
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", clock=clock, durability="normal") as ledger:
        yield ledger


def midnight(at):
    return at // DAY * DAY


@pytest.mark.parametrize("seed", range(6))
def test_no_balance_budget_or_report_changes(tmp_path, ledger, clock, seed):
    chance = random.Random(seed)
    ledger.set_budget(Budget("global", "5", "month", "Asia/Kathmandu"))
    ledger.set_budget(Budget("user:*", "1", "week"))
    days = chance.choice([2, 40, 500])
    live(ledger, clock, seed, days, 150)
    now = clock.now()
    sinces = [None, *(midnight(now - chance.random() * days * DAY) for _ in range(5))]
    asked = [(since, scope) for since in sinces for scope in (None, "user:1")]
    before = {question: told(ledger, *question) for question in asked}
    balances, rows = ledger.balances(), list(ledger.rows())
    shutil.copy(tmp_path / "ledger.db", tmp_path / "twin.db")
    shutil.copy(tmp_path / "ledger.db-wal", tmp_path / "twin.db-wal")

    cuts = sorted(now - chance.random() * days * DAY for _ in range(2))
    moved = [ledger.archive(cut, MemoSummary()) for cut in (*cuts, now + DAY)]
    assert all(done.rows and not done.resumed for done in moved)
    assert ledger.balances() == balances
    assert {question: told(ledger, *question) for question in asked} == before
    audit(ledger._backend.read(None), list(ledger.rows()))
    kept = [row for row in ledger.rows() if row.kind != "carried"]
    assert {row.id for row in rows if row.status in {"estimated", "unconfirmed"} and row.kind == "settle"} - {
        row.id for row in rows if row.kind == "reconcile"
    } <= {row.id for row in kept}
    assert "open" in {row.id for row in kept}
    filed = [line for done in moved for line in file.read(done.path)]
    assert sorted((line.seq, line.id, line.amount, line.memo) for line in filed) == sorted(
        (row.seq, row.id, row.amount_nanousd, row.memo) for row in set(rows) - set(kept)
    )

    with Ledger.open(f"sqlite:///{tmp_path}/twin.db", clock=clock) as twin:  # what was never archived
        for window, zone in [("day", "UTC"), ("week", "America/St_Johns"), ("month", "Pacific/Apia"), ("hour", "UTC")]:
            for one in (ledger, twin):
                one.set_budget(Budget("user:*", "1", window, zone))
                one.set_budget(Budget("global", "1", window, zone))
            assert ledger.balances() == twin.balances()
        for one in (ledger, twin):
            one.set_budget(Budget("global", "9", "259200s"))
        rolling = [one.balance("global", "259200s").settled_nanousd for one in (ledger, twin)]
        assert rolling[0] >= rolling[1]  # a sum counts until its last part would drop out
    audit(ledger._backend.read(None), list(ledger.rows()))


def test_the_sums_of_a_long_history_are_few_rows(ledger, clock):
    for number in range(400):
        id_ = ledger.reserve(NanoUSD(10), ["team:a"], memo=memo(MODELS[0])).id
        ledger.settle(id_, NanoUSD(number), memo=memo(MODELS[0], number))
        clock.advance(60)
    clock.advance(100 * DAY)
    moved = ledger.archive(clock.now(), MemoSummary())
    assert moved.rows == 800
    assert moved.settled_nanousd == sum(range(400))
    assert sum(1 for _ in ledger.rows()) == moved.carried < 800 / 7
    assert sum(decode_memo(row.memo).calls for row in ledger.rows()) == 400


def test_what_was_archived_is_still_known_but_closed(ledger, clock):
    ledger.settle(ledger.reserve("0.01", id="a").id, "0.004")
    ledger.book("0.5", id="b")
    ledger.void(ledger.reserve("0.01", id="c").id)
    ledger.set_budget(Budget("user:x", "0.001"))
    with pytest.raises(BudgetExceededError):
        ledger.reserve("0.1", ["user:x"], id="refused")
    clock.advance(1)
    receipt = ledger.settle("a", "0.004")
    assert ledger.archive(clock.now(), MemoSummary()).rows == 5
    assert ledger.settle("a", "0.004") == replace(receipt, repeated=True)
    assert ledger.reserve("0.01", id="a").state == "settled"
    assert ledger.book("0.5", id="b").amount_nanousd == 500_000_000
    assert ledger.void("c").kind == "void"
    with pytest.raises(ReservationConflictError, match="archived"):
        ledger.reconcile("a", "0.005")
    with pytest.raises(ReservationConflictError):
        ledger.settle("a", "0.005")
    with pytest.raises(BudgetExceededError):
        ledger.reserve("0.1", ["user:x"], id="refused")
    audit(ledger._backend.read(None), list(ledger.rows()))


def test_the_file_is_a_json_object_a_line(ledger, clock, tmp_path):
    ledger.book("0.5", ["user:ü"], memo=b"\xff\x00 any bytes")
    clock.advance(1)
    moved = ledger.archive(datetime.fromtimestamp(clock.now(), UTC), MemoSummary(), tmp_path / "old.jsonl")
    header, row, sums = [json.loads(line) for line in (tmp_path / "old.jsonl").read_text("ascii").splitlines()]
    assert (header["archive"], header["tenant"]) == (1, "default")
    assert (row["kind"], row["amount"], row["scopes"]) == ("book", 500_000_000, "global user:%C3%BC")
    assert header["register"] is None, "nothing was decided about a budget yet"
    days = {"2026-01-15": {"global": 500_000_000, "user:%C3%BC": 500_000_000}}
    assert sums == {"rows": 1, "settled": 500_000_000, "days": days}
    (line,) = file.read(moved.path)
    assert line.memo == b"\xff\x00 any bytes"
    assert told(ledger) == {"(no model)": (1, TokenUsage(), 500_000_000, {"exact": 1})}


def test_with_nothing_to_move_no_file_is_made(ledger, clock, tmp_path):
    ledger.reserve("0.01", id="open", ttl=10**6)
    ledger.settle(ledger.reserve("0.01").id, "0.01", status="estimated")
    clock.advance(DAY)
    moved = ledger.archive(clock.now(), MemoSummary())
    assert (moved.path, moved.rows, moved.skipped) == (None, 0, 2)
    assert not list(tmp_path.glob("*.jsonl*"))


def test_tenants_are_archived_apart(ledger, clock, tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", clock=clock, tenant="b") as other:
        ledger.book("0.5", id="same")
        other.book("0.7", id="same")
        clock.advance(1)
        assert ledger.archive(clock.now(), MemoSummary()).settled_nanousd == 500_000_000
        assert [row.kind for row in other.rows()] == ["book"]
        assert other.reconcile("same", "0.8").amount_nanousd == 800_000_000
        assert other.archive(clock.now() + 1, MemoSummary()).rows == 0  # corrected in this very moment
        clock.advance(1)
        assert other.archive(clock.now(), MemoSummary()).path == tmp_path / "ledger-archive-0002.jsonl"
        for one in (ledger, other):
            audit(one._backend.read(None), list(one.rows()))


def test_a_file_that_exists_is_left_alone(ledger, clock, tmp_path):
    ledger.book("0.5")
    clock.advance(1)
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists"):
        ledger.archive(clock.now(), MemoSummary(), tmp_path / "mine")
    with pytest.raises(ConfigurationError, match="directory"):
        ledger.archive(clock.now(), MemoSummary(), tmp_path / "no" / "where")
    assert (tmp_path / "mine").read_text() == "mine"
    assert [row.kind for row in ledger.rows()] == ["book"]
    assert ledger.reconcile(next(ledger.rows()).id, "0.6")  # nothing was closed


def test_a_file_that_was_put_in_the_way_meanwhile_is_left_alone(ledger, clock, tmp_path, monkeypatch):
    ledger.book("0.5")
    clock.advance(1)
    monkeypatch.setattr(file, "_flush", lambda _: (tmp_path / "old.jsonl").write_text("theirs"))
    with pytest.raises(LedgerError, match="another file"):
        ledger.archive(clock.now(), MemoSummary(), tmp_path / "old.jsonl")
    monkeypatch.undo()
    assert (tmp_path / "old.jsonl").read_text() == "theirs"
    assert [row.kind for row in ledger.rows()] == ["book"]
    (tmp_path / "old.jsonl").unlink()
    moved = ledger.archive(clock.now(), MemoSummary())
    assert moved.resumed
    assert moved.path == tmp_path / "old.jsonl"
    assert [row.kind for row in ledger.rows()] == ["carried"]


def test_what_does_not_read_back_leaves_the_rows_where_they_are(ledger, clock, monkeypatch):
    ledger.book("0.5")
    clock.advance(1)

    def torn(handle):
        handle.flush()
        handle.truncate(handle.tell() - 40)

    monkeypatch.setattr(file, "_flush", torn)
    with pytest.raises(LedgerError, match=r"not whole|read back"):
        ledger.archive(clock.now(), MemoSummary())
    monkeypatch.undo()
    assert [row.kind for row in ledger.rows()] == ["book"]
    assert ledger.archive(clock.now(), MemoSummary()).resumed


def test_a_full_disk_leaves_the_rows_where_they_are(ledger, clock, monkeypatch, tmp_path):
    ledger.book("0.5")
    clock.advance(1)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file, "_flush", full)
    with pytest.raises(LedgerUnavailableError, match="No space left"):
        ledger.archive(clock.now(), MemoSummary())
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.part"))
    assert [row.kind for row in ledger.rows()] == ["book"]
    assert ledger.archive(clock.now(), MemoSummary()).resumed


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a directory that nobody can write to")
def test_a_file_that_cannot_be_written_begins_no_archive(ledger, clock):
    ledger.book("0.5")
    clock.advance(1)
    with pytest.raises(ConfigurationError, match="cannot write"):
        ledger.archive(clock.now(), MemoSummary(), Path("/proc/self/old.jsonl"))
    assert ledger.reconcile(next(ledger.rows()).id, "0.6")  # nothing was closed
    clock.advance(1)
    assert not ledger.archive(clock.now(), MemoSummary()).resumed


def test_what_was_never_written_may_go_elsewhere(ledger, clock, monkeypatch, tmp_path):
    """The directory of an archive that was begun is gone for good: no later archive could be made either."""
    ledger.book("0.5")
    clock.advance(1)
    (tmp_path / "gone").mkdir()
    monkeypatch.setattr(file, "_flush", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ledger.archive(clock.now(), MemoSummary(), tmp_path / "gone" / "old.jsonl")
    monkeypatch.undo()
    (tmp_path / "gone").rmdir()
    with pytest.raises(LedgerUnavailableError, match="gone"):
        ledger.archive(clock.now(), MemoSummary())
    moved = ledger.archive(clock.now(), MemoSummary(), tmp_path / "here.jsonl")
    assert moved.resumed
    assert moved.path == tmp_path / "here.jsonl"
    assert [row.kind for row in ledger.rows()] == ["carried"]


def test_rows_leave_only_while_the_file_is_what_was_written(ledger, clock, tmp_path, monkeypatch):
    for _ in range(60):
        ledger.book("0.5")
    clock.advance(1)
    real, turns = archiving.Archive._carry, iter([True, True, False])

    def interrupted(*arguments):
        if not next(turns):
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(archiving.Archive, "_carry", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ledger.archive(clock.now(), MemoSummary())
    monkeypatch.undo()
    monkeypatch.setattr(archiving, "BLOCK", 20)
    audit(ledger._backend.read(None), list(ledger.rows()))
    (path,) = tmp_path.glob("*.jsonl")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    rows = list(ledger.rows())
    with pytest.raises(LedgerError, match="put it back"):
        ledger.archive(clock.now(), MemoSummary())
    assert list(ledger.rows()) == rows
    path.write_bytes(content)
    moved = ledger.archive(clock.now(), MemoSummary())
    assert moved.resumed
    assert moved.rows == 60
    assert {row.kind for row in ledger.rows()} == {"carried"}
    assert sum(row.amount_nanousd for row in ledger.rows()) == 30 * 10**9
    audit(ledger._backend.read(None), list(ledger.rows()))


def test_rows_that_are_read_meanwhile_are_of_one_moment(ledger, clock):
    for _ in range(1200):
        ledger.book("0.001")
    clock.advance(1)
    reading = ledger.rows()
    next(reading)
    ledger.archive(clock.now(), MemoSummary())
    assert sum(row.amount_nanousd for row in reading) == 1199 * 10**6
    assert sum(row.amount_nanousd for row in ledger.rows()) == 1200 * 10**6


def test_nothing_but_a_whole_archive_lets_a_row_go(ledger, clock, tmp_path):
    ledger.book("0.5", id="a")
    clock.advance(1)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.execute("INSERT INTO archive (id, tenant, before, path) VALUES (1, 1, 0, 'x')")
        db.execute("UPDATE reservation SET archived = 1")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute("DELETE FROM entry")
        db.rollback()
    ledger.archive(clock.now(), MemoSummary())
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("DELETE FROM entry")  # the rows that carry the sums


@pytest.mark.parametrize("url", ["memory://", "memory://shared"])
def test_a_storage_without_archives_raises(url):
    with Ledger.open(url) as ledger, pytest.raises(ConfigurationError, match="memory ledger has no archive"):
        ledger.archive(0, MemoSummary())
