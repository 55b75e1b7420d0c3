"""One SQLite ledger under several versions of the package: brought forward with a copy, never backward."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from llm_cost_middleware.budget.backends.sqlite import connection
from llm_cost_middleware.budget.backends.sqlite.connection import backup_of, migrations
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.errors import LedgerVersionError

DATA = Path(__file__).parent / "data"


def test_a_ledger_that_is_brought_forward_leaves_a_copy_of_what_it_was(tmp_path):
    path = tmp_path / "l.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((DATA / "ledger_schema_3.sql").read_text())
    with closing(sqlite3.connect(path)) as db:
        before = list(db.iterdump())
    with Ledger.open(f"sqlite:///{path}") as ledger:
        ledger.book("1", id="new")
    copy = backup_of(path, 3)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as db:
        assert list(db.iterdump()) == before
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
    copy.replace(tmp_path / "again.db")  # going back is putting the copy in its place
    with Ledger.open(f"sqlite:///{tmp_path}/again.db") as ledger:
        assert all(row.id != "new" for row in ledger.rows())


def test_a_new_ledger_and_a_current_one_leave_no_copy(tmp_path):
    for _ in range(2):
        Ledger.open(f"sqlite:///{tmp_path}/l.db").close()
    assert not list(tmp_path.glob("*backup*"))


def test_an_older_version_of_the_package_refuses_the_file_with_a_sentence(tmp_path, monkeypatch):
    Ledger.open(f"sqlite:///{tmp_path}/l.db").close()
    monkeypatch.setattr(connection, "migrations", lambda: migrations()[:-1])
    with pytest.raises(LedgerVersionError, match="newer version of the package"):
        Ledger.open(f"sqlite:///{tmp_path}/l.db")
