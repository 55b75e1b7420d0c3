"""The files of a SQLite ledger: whose they are, what becomes of them under it, copies, and the erasure of a person."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from llm_cost_middleware.budget.backends.sqlite import erasure, old_lines
from llm_cost_middleware.budget.backends.sqlite.file_identity import FileIdentity
from llm_cost_middleware.budget.backends.sqlite.old_lines import OldLines
from llm_cost_middleware.budget.ledger import Ledger, LedgerOptions
from llm_cost_middleware.budget.ledger.upkeep import prune_journal
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import ConfigurationError, LedgerUnavailableError
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.routing.decision_log import DecisionLog
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit

DATA = Path(__file__).parent / "data"


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/l.db"


@pytest.fixture
def clock():
    return FakeClock()


def call(ledger, *scopes, amount="0.5", settle="0.2"):
    held = ledger.reserve(amount, scopes)
    return ledger.settle(held.id, settle) if settle else held


# --- whose they are --------------------------------------------------------------------------------------------------


def test_every_file_is_its_owners_alone(url, tmp_path, clock):
    before = os.umask(0o022)
    try:
        with Ledger.open(url, clock=clock) as ledger:
            ledger.set_budget(Budget("user:*", "5", "day"))
            call(ledger, "user:a")
            ledger.set_budget(Budget("team:*", "5", "day"))
            clock.advance(86_400 * 90)
            ledger.archive(clock.now(), MemoSummary())
            ledger.back_up(tmp_path / "copy.db")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert {"l.db", "l.db-wal", "l.db-queue", "l.db-filling", "copy.db"} < modes.keys()
    assert set(modes.values()) == {0o600}, modes


def test_who_may_write_a_ledger_that_was_opened_to_a_group_may_wait_in_its_queue(url, tmp_path):
    Ledger.open(url).close()
    (tmp_path / "l.db").chmod(0o660)
    with Ledger.open(url) as ledger:
        call(ledger)
        assert stat.S_IMODE((tmp_path / "l.db-queue").stat().st_mode) == 0o660


def test_options_show_no_password():
    shown = repr(LedgerOptions("redis://user:hunter2@host/0", "user:hunter2@host/0", None, "default", "full"))
    assert "hunter2" not in shown
    assert "host" in shown


# --- what becomes of them under it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "replaced", "truncated"])
def test_a_file_that_is_gone_while_it_is_open_is_noticed_and_refused(url, tmp_path, how):
    path = tmp_path / "l.db"
    ledger = Ledger.open(url)
    call(ledger)
    if how == "deleted":
        path.rename(tmp_path / "away.db")
    elif how == "replaced":
        Ledger.open(f"sqlite:///{tmp_path}/other.db").close()
        (tmp_path / "other.db").replace(path)
    else:
        os.truncate(path, 100)
    for verb in (lambda: ledger.reserve("1"), lambda: ledger.balance("global"), lambda: list(ledger.rows())):
        with pytest.raises(LedgerUnavailableError, match=f"was {how}"):
            verb()
    if how == "deleted":
        (tmp_path / "away.db").rename(path)
        assert call(ledger).amount
    ledger.close()


def test_a_file_that_another_thread_sees_grow_meanwhile_is_whole(url, tmp_path):
    Ledger.open(url).close()
    path = tmp_path / "l.db"
    identity = FileIdentity(path, url)

    class Slow:
        """The path as a thread has it that looks, waits, and goes on."""

        def stat(self):
            found = path.stat()
            with closing(sqlite3.connect(path)) as other:
                other.execute("CREATE TABLE ballast AS SELECT zeroblob(90000)")
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            identity._path = path
            identity.check()  # of the other thread
            return found

        def open(self, mode):
            return path.open(mode)

    identity._path = Slow()
    identity.check()
    identity.check()


def test_what_vacuum_makes_smaller_is_whole(url, tmp_path):
    path = tmp_path / "l.db"
    with Ledger.open(url) as ledger:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE ballast (text)")
            other.execute("INSERT INTO ballast VALUES (zeroblob(900000))")
            other.commit()
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            call(ledger, settle="0.2")
            grown = path.stat().st_size
            other.execute("DELETE FROM ballast")
            other.commit()
            other.execute("VACUUM")
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.stat().st_size < grown
        call(ledger, settle="0.2")
        assert ledger.balance("global").settled == Decimal("0.4")
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(LedgerUnavailableError, match="was truncated"):
            call(ledger)


# --- copies ----------------------------------------------------------------------------------------------------------


def test_a_copy_that_is_made_under_way_is_a_whole_ledger(url, tmp_path):
    with Ledger.open(url, durability="normal") as ledger:
        ledger.set_budget(Budget("user:*", "50", "day"))
        call(ledger, "user:a")
        done = threading.Event()

        def work():
            while not done.is_set():
                call(ledger, "user:a", amount="0.001", settle="0.0005")

        crew = [threading.Thread(target=work) for _ in range(3)]
        for thread in crew:
            thread.start()
        copies = [ledger.back_up(tmp_path / f"copy{number}.db") for number in range(3)]
        done.set()
        for thread in crew:
            thread.join()
        with pytest.raises(ConfigurationError, match="exists"):
            ledger.back_up(copies[0])
        now = sum(1 for _ in ledger.rows())
    for path in copies:
        with Ledger.open(f"sqlite:///{path}") as copy:
            rows = list(copy.rows())
            audit(copy.backend.read(None), rows)
            assert 0 < len(rows) <= now
    # Restored: in the place of the file, without what the old one had beside it.
    for name in ("l.db-wal", "l.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    copies[1].replace(tmp_path / "l.db")
    with Ledger.open(url) as ledger:
        call(ledger, "user:a")
        audit(ledger.backend.read(None), list(ledger.rows()))


def test_a_memory_ledger_makes_no_copy(tmp_path):
    with Ledger.open("memory://") as ledger, pytest.raises(ConfigurationError):
        ledger.back_up(tmp_path / "x")


# --- old lines of the journal ---------------------------------------------------------------------------------------


def lines(ledger):
    return [(line.kind, line.id, line.data) for kind in ("decision", "odd") for line in ledger.journal.read(kind)]


def test_an_archive_takes_the_journal_along(url, tmp_path, clock):
    with Ledger.open(url, clock=clock) as ledger:
        for number in range(3):
            call(ledger, "user:a")
            ledger.journal.append("decision", f"c{number}", clock.now(), b'{"v":1}')
            ledger.journal.append("odd", f"o{number}", clock.now(), bytes([255, number]))
            clock.advance(86_400 * 40)
        ledger.journal.append("decision", "young", clock.now(), b"y")
        moved = ledger.archive(clock.now() - 86_400 * 50, MemoSummary())
        assert moved.lines == 4
        assert lines(ledger) == [
            ("decision", "c2", b'{"v":1}'),
            ("decision", "young", b"y"),
            ("odd", "o2", b"\xff\x02"),
        ]
        file = moved.path.with_name(f"{moved.path.stem}-journal.jsonl")
        found = [json.loads(line) for line in file.read_text().splitlines()]
        assert [(line["kind"], line["id"]) for line in found] == [
            ("decision", "c0"), ("odd", "o0"), ("decision", "c1"), ("odd", "o1"),
        ]  # fmt: skip
        assert found[1]["data"].encode(errors="surrogateescape") == b"\xff\x00"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        # What is young stays, whatever is asked for: a bill may come days later.
        assert ledger.archive(clock.now() + 1, MemoSummary()).lines == 2
        assert lines(ledger) == [("decision", "young", b"y")]


def test_lines_are_moved_again_where_an_archive_was_cut_short_and_nothing_is_written_over(url, monkeypatch, clock):
    with Ledger.open(url, clock=clock) as ledger:
        ledger.journal.append("decision", "c", clock.now(), b"x")
        call(ledger, "user:a")
        clock.advance(86_400 * 90)
        with monkeypatch.context() as killed:
            killed.setattr(OldLines, "_drop", None)
            with pytest.raises(TypeError):
                ledger.archive(clock.now(), MemoSummary())
        call(ledger, "user:a")
        clock.advance(86_400 * 90)
        moved = ledger.archive(clock.now(), MemoSummary())
        assert moved.lines == 1
        assert not lines(ledger)


def test_a_journal_is_pruned_by_age_and_by_count(url, clock, monkeypatch):
    monkeypatch.setattr(old_lines, "_CHUNK", 2)
    with Ledger.open(url, clock=clock) as ledger:
        for number in range(9):
            ledger.journal.append("decision", f"c{number}", clock.now(), b"x")
            clock.advance(10)
        call(ledger)
        with pytest.raises(ConfigurationError):
            prune_journal(ledger.backend)
        assert prune_journal(ledger.backend, before=clock.now() - 65) == 3
        assert prune_journal(ledger.backend, keep=2) == 4
        assert [id_ for _, id_, _ in lines(ledger)] == ["c7", "c8"]
        assert prune_journal(ledger.backend, keep=0) == 2
        audit(ledger.backend.read(None), list(ledger.rows()))
    with pytest.raises(ConfigurationError, match="prunes no journal"):
        prune_journal(Ledger.open("memory://").backend, keep=1)


# --- a person --------------------------------------------------------------------------------------------------------


def test_an_erasure_that_was_cut_short_is_completed(url, monkeypatch, tmp_path):
    """By its own name: that of another scope, of the same kind or not, is one of its own and says so."""
    monkeypatch.setattr(erasure, "_STRETCH", 3)
    with Ledger.open(url) as ledger, Ledger.open(url) as other:
        for _ in range(6):
            call(ledger, "user:alice")
            call(ledger, "user:bob")
            call(ledger, "team:x")
        before = ledger.balance("user:bob").settled_nanousd

        def stop(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as killed:
            killed.setattr(erasure.ScopeEraser, "_through", stop)
            with pytest.raises(KeyboardInterrupt):
                ledger.erase("user:alice")
        call(other, "user:alice")  # by a process that had her account in mind
        with closing(sqlite3.connect(tmp_path / "l.db")) as db:
            ((alias, digest),) = db.execute("SELECT alias, digest FROM erasure WHERE state = 'open'").fetchall()
            assert "alice" not in digest
        bob = ledger.erase("user:bob")
        assert bob.unfinished == ledger.erase("team:x").unfinished == (alias,)
        assert bob.alias != alias
        assert ledger.balance(bob.alias).settled_nanousd == before
        names = {scope for row in ledger.rows() for scope in row.scopes}
        assert not names & {"user:bob", "team:x"}
        done = ledger.erase("user:alice")
        assert (done.alias, done.unfinished) == (alias, ())
        assert done.rows >= 12
        audit(ledger.backend.read(None), list(ledger.rows()))
        with closing(sqlite3.connect(tmp_path / "l.db")) as db:
            assert db.execute("SELECT count(*) FROM erasure WHERE digest IS NOT NULL").fetchone() == (0,)


def test_rows_change_in_nothing_but_a_name_and_only_then(url, tmp_path):
    with Ledger.open(url) as ledger:
        call(ledger, "user:alice")
    named = ("UPDATE entry_row SET scopes = 'global user:x'", "UPDATE scope_list SET scopes = 'global user:x'")
    changes = ("amount = 1", "memo = x'00'", "settled = 0, scopes = 'global'", "id = 'z'", "at = 1", "scope_list = 7")
    never = ["UPDATE entry_row SET " + change for change in changes]  # noqa: S608 - fixed texts
    never += ["UPDATE entry SET amount = 1", "DELETE FROM entry", "DELETE FROM scope_list"]
    never += ["UPDATE scope_list SET id = 7", "UPDATE scope_list SET tenant = 2, scopes = 'global'"]
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        for statement in (*never, *named):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)
        db.execute("INSERT INTO erasure (tenant, at, alias) VALUES (1, 1, 'user:x')")
        for statement in never:
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)
        for statement in named:
            db.execute(statement)
        assert {scopes for (scopes,) in db.execute("SELECT scopes FROM entry")} == {"global user:x"}


# --- what the package wrote before -----------------------------------------------------------------------------------


def test_the_ledger_of_a_pipeline_of_a_former_version_goes_on(tmp_path):
    """Calls, an expiry, a feedback and a cut answer, written by the code of that version."""
    path = tmp_path / "l.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((DATA / "pipeline_schema_3.sql").read_text())
    clock = FakeClock(1_768_478_765.2)
    with Ledger.open(f"sqlite:///{path}", clock=clock) as ledger:
        rows = list(ledger.rows())
        audit(ledger.backend.read(None), rows)
        assert len(rows) == 21
        assert ledger.balance("global").settled_nanousd == 103_393_800
        assert ledger.balance("user:a", "day").pending_nanousd == 250_000_000
        assert list(ledger.rows(since=1_768_478_700)) == [row for row in rows if row.at >= 1_768_478_700]
        calls = list(DecisionLog(ledger.journal).read())
        assert len(calls) == 7
        assert calls[0].feedback == 0.5
        assert ledger.settle("open", "0.2").amount_nanousd == 2 * 10**8
        assert ledger.settle("lapsed", "0.05").late
        ledger.set_budget(Budget("user:*", "4", "month"))
        audit(ledger.backend.read(None), list(ledger.rows()))
