from __future__ import annotations

import inspect
import os
import resource
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path

import pytest

import llm_cost_middleware
from llm_cost_middleware.budget.backends.sqlite import group_commit
from llm_cost_middleware.budget.backends.sqlite.connection import migrations
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import LedgerUnavailableError, LedgerVersionError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.oracle import audit


def test_a_database_of_version_one_is_brought_forward_with_its_money(tmp_path):
    with closing(sqlite3.connect(tmp_path / "old.db")) as db:
        db.executescript(f"{migrations()[0]}; PRAGMA user_version = 1;")
        db.executescript(
            "INSERT INTO tenant (id, name) VALUES (1, 'default');"
            "INSERT INTO account VALUES (1, 1, 'global', 'none', -1);"
            "INSERT INTO cell VALUES (1, 0, 0, 70);"
            "INSERT INTO reservation (tenant, id, scopes, amount, created, expires)"
            " VALUES (1, 'a', 'global', 70, 1000, 2000);"
            "INSERT INTO entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo)"
            " VALUES (1, 'reserve', 'a', 1000, 70, 'global', 'reserved', 1000, 0, 70, x'');"
        )
    with Ledger.open(f"sqlite:///{tmp_path}/old.db") as ledger:
        assert ledger.balance("global").pending_nanousd == 70
        assert ledger.settle("a", NanoUSD(50)).late
        ledger.journal.append("decision", "a", 1.0, b"x")
        audit(ledger._backend.read(None), list(ledger.rows()))


def test_a_newer_database_is_left_alone(tmp_path):
    with closing(sqlite3.connect(tmp_path / "new.db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerVersionError) as caught:
        Ledger.open(f"sqlite:///{tmp_path}/new.db")
    assert (caught.value.found, caught.value.supported) == (99, len(migrations()))


def test_the_database_of_another_program_is_left_alone(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(LedgerUnavailableError, match="theirs"):
        Ledger.open(f"sqlite:///{tmp_path}/other.db")


@pytest.mark.parametrize("path", ["missing/ledger.db", "", "text.db"])
def test_a_path_that_cannot_be_a_ledger_is_a_clear_error(tmp_path, path):
    (tmp_path / "text.db").write_text("this is no database, but it is long enough to look like one " * 20)
    with pytest.raises(LedgerUnavailableError):
        Ledger.open(f"sqlite:///{tmp_path}/{path}")


def test_rows_cannot_be_changed_or_deleted(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path}/l.db") as ledger:
        ledger.book("1")
        with closing(sqlite3.connect(tmp_path / "l.db")) as db:
            for statement in ("UPDATE entry SET amount = 0", "DELETE FROM entry"):
                with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                    db.execute(statement)


def test_a_full_disk_leaves_nothing_half_written_and_heals(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path}/l.db") as ledger:
        ledger.set_budget(Budget("user:*", "5", "day"))
        writer = ledger._backend._file._writing
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(LedgerUnavailableError, match="full"):
            for _ in range(1000):
                ledger.settle(ledger.reserve("0.001", ["user:a"], memo=b"x" * 500).id, "0.001")
        audit(ledger._backend.read(None), list(ledger.rows()))
        writer.execute("PRAGMA max_page_count = 100000")
        ledger.settle(ledger.reserve("0.001", ["user:b"]).id, "0.001")
        audit(ledger._backend.read(None), list(ledger.rows()))


SCRIPT = """
import os, resource, signal, sys
import llm_cost_middleware.budget.backends.sqlite
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.errors import LedgerUnavailableError
{before}
try:
    ledger = Ledger.open(sys.argv[1])
    for _ in range(2000):
        ledger.settle(ledger.reserve("0.001", memo=b"x" * 2000).id, "0.001")
except LedgerUnavailableError as error:
    print(error)
    os._exit(7)
"""


def run(before, url):
    root = Path(llm_cost_middleware.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before), url],
        env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_file_that_may_not_grow_is_a_clear_error(tmp_path):
    url = f"sqlite:///{tmp_path}/l.db"
    Ledger.open(url).close()
    limit = (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    )
    ended = run(limit, url)
    assert ended.returncode == 7, ended.stderr
    with Ledger.open(url) as ledger:
        rows = list(ledger.rows())
        audit(ledger._backend.read(None), rows)
        assert rows
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_read_only_file_is_a_clear_error(tmp_path):
    url = f"sqlite:///{tmp_path}/l.db"
    with Ledger.open(url) as ledger:
        ledger.book("1")
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    before = (tmp_path / "l.db").read_bytes()
    ended = run("os.setgid(65534); os.setuid(65534)", url)
    assert ended.returncode == 7, ended.stderr
    assert (tmp_path / "l.db").read_bytes() == before


def test_a_queue_without_progress_is_abandoned(tmp_path, monkeypatch):
    with Ledger.open(f"sqlite:///{tmp_path}/l.db") as ledger:
        monkeypatch.setattr(group_commit, "PATIENCE_S", 0.2)
        stuck = group_commit.FileLock(tmp_path / "l.db-queue")
        stuck.acquire(wait=True)
        with pytest.raises(LedgerUnavailableError, match="queue"):
            ledger.reserve("1")
        monkeypatch.undo()
        assert ledger.balance("global").pending == 0
        stuck.release()
        ledger.settle(ledger.reserve("1").id, "0.5")
        assert ledger.balance("global").settled == Decimal("0.5")
        stuck.close()


def test_callers_of_a_closed_ledger_get_an_error(tmp_path):
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    ledger.reserve("0.01", id="a")
    ledger.close()
    for number in range(3):  # none of them waits for the others
        with pytest.raises(LedgerUnavailableError):
            ledger.reserve("0.01", id=f"b{number}")


def _lines(function):
    """The lines of a function up to what it does when it ends, where a signal can arrive and Python loses no lock."""
    code, (source, first) = inspect.unwrap(function).__code__, inspect.getsourcelines(function)
    told = [line.strip() for line in source]
    last = told.index("finally:") if "finally:" in told else len(told)
    lines = {line - first for _, _, line in code.co_lines() if line}
    return [(code, first + at) for at in sorted(lines) if 1 < at < last and not told[at].startswith(("with ", "try:"))]


@pytest.mark.parametrize("verb", ["reserve", "balance"])
def test_ctrl_c_at_any_line_leaves_a_ledger_that_goes_on(tmp_path, monkeypatch, verb):
    """An interrupt at every line of the queue's leader, and of a reader, one after the other."""
    monkeypatch.setattr(group_commit, "PATIENCE_S", 1.0)
    writer = group_commit.GroupCommitWriter
    walked = (
        [LedgerFile.reading] if verb == "balance" else [writer.run, writer._lead, writer._commit_turn, writer._end_turn]
    )
    with Ledger.open(f"sqlite:///{tmp_path}/l.db") as ledger, Ledger.open(f"sqlite:///{tmp_path}/l.db") as other:

        def call(of):
            return of.reserve("0.01", ["user:a"]) if verb == "reserve" else of.balance("global")

        call(ledger)
        for code, line in [each for function in walked for each in _lines(function)]:

            def at_line(frame, event, _, code=code, line=line):
                if frame.f_code is code:
                    if event == "line" and frame.f_lineno == line:
                        sys.settrace(None)
                        raise KeyboardInterrupt
                    return at_line
                return at_line if event == "call" else None

            sys.settrace(at_line)
            with suppress(KeyboardInterrupt):
                call(ledger)
            sys.settrace(None)
            assert call(ledger), line
            assert call(other), line
