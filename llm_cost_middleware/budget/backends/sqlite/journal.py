"""Journal and shared values in the ledger's file.

By themselves they are never flushed to the disk: they are no money. With a resolution they ride in its transaction.
"""

# ruff: noqa: S608 - the queries are fixed texts, no value stands in them

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.moments import NONE, first_mark
from llm_cost_middleware.budget.backends.sqlite.packing import Packing
from llm_cost_middleware.budget.notes import Notes, SharedChange

_log = logging.getLogger(__name__)
_BLOCK = 500
_KEPT = 20_000
"""Shared values that are kept, about."""
_COUNTED_ONE_IN = 128
"""Changes of which one, by its key, counts them, and removes the oldest where they are more by a twentieth."""
_TRIM = (
    "DELETE FROM shared WHERE tenant = ? AND at < (SELECT at FROM shared WHERE tenant = ? ORDER BY at DESC LIMIT 1"
    " OFFSET ?)"
)


_OF_KIND = "FROM mark WHERE tenant = ? AND substr(kind, 1, 2) = substr(?, 1, 2) AND +kind = ?"
"""As its index has it. Without the sign SQLite puts the value in the place of the column, and finds no index for it."""
_MARK = "INSERT INTO mark (tenant, kind, id, at, data) VALUES (?, ?, ?, ?, ?)"


class SQLiteJournal:
    """``Journal`` in the ledger's file."""

    def __init__(self, file: LedgerFile, tenant: int, packing: Packing) -> None:
        self._file, self._tenant, self._packing = file, tenant, packing

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        """See ``Journal``."""
        values = self._tenant, kind, id_, at, data
        self._file.write(lambda db: db.execute(_MARK, values), durable=False)

    def append_all(self, lines: Sequence[JournalEntry]) -> None:
        """Append entries, in one transaction."""
        packed = [line._replace(data=self._packing.pack(line.data)) for line in lines]
        self._file.write(lambda db: self.write(db, packed), durable=False)

    def write(self, db: sqlite3.Connection, lines: Sequence[JournalEntry]) -> None:
        """Append entries, their data packed, in a transaction that is under way."""
        db.executemany(_MARK, [(self._tenant, *line) for line in lines])

    def read(self, kind: str, since: float | None = None) -> Iterator[JournalEntry]:
        """See ``Journal``."""
        with self._file.reading() as db:
            seq = first_mark(db, self._tenant, since) - 1
        while True:
            with self._file.reading() as db:
                block = db.execute(
                    f"SELECT seq, id, at, data {_OF_KIND} AND seq > ? AND at >= ? ORDER BY seq LIMIT ?",
                    (self._tenant, kind, kind, seq, -1e18 if since is None else since, _BLOCK),
                ).fetchall()
            unpack = self._packing.unpack
            yield from (JournalEntry(kind, id_, at, unpack(data)) for _, id_, at, data in block)
            if len(block) < _BLOCK:
                return
            seq = block[-1][0]

    def newest(self, kind: str) -> Iterator[JournalEntry]:
        """Stream the entries of a kind, the last one first."""
        seq, unpack = NONE, self._packing.unpack
        while True:
            with self._file.reading() as db:
                block = db.execute(
                    f"SELECT seq, id, at, data {_OF_KIND} AND seq < ? ORDER BY seq DESC LIMIT ?",
                    (self._tenant, kind, kind, seq, _BLOCK),
                ).fetchall()
            yield from (JournalEntry(kind, id_, at, unpack(data)) for _, id_, at, data in block)
            if len(block) < _BLOCK:
                return
            seq = block[-1][0]


class SQLiteSharedState:
    """``SharedState`` in the ledger's file. Changes are transactions, so that none is lost."""

    def __init__(self, file: LedgerFile, tenant: int) -> None:
        self._file, self._tenant = file, tenant

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """See ``SharedState``."""
        with self._file.reading() as db:
            return self._read(db, keys)

    def change(self, keys: Sequence[str], to: Callable[[list[bytes | None]], Sequence[bytes]], at: float) -> None:
        """See ``SharedState``."""
        change = SharedChange(tuple(keys), to, at)
        self._file.write(lambda db: self.write(db, change), durable=False)

    def write(self, db: sqlite3.Connection, change: SharedChange) -> None:
        """Make a change in a transaction that is under way."""
        keys = change.keys
        values = change.to(self._read(db, keys))
        db.executemany(
            "INSERT INTO shared (tenant, key, at, data) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (tenant, key) DO UPDATE SET at = excluded.at, data = excluded.data",
            [(self._tenant, key, change.at, data) for key, data in zip(keys, values, strict=True)],
        )
        if keys and crc32(keys[-1].encode()) % _COUNTED_ONE_IN == 0:
            (count,) = db.execute("SELECT count(*) FROM shared WHERE tenant = ?", (self._tenant,)).fetchone()
            if count > _KEPT + _KEPT // 20:
                db.execute(_TRIM, (self._tenant, self._tenant, _KEPT))

    def _read(self, db: sqlite3.Connection, keys: Sequence[str]) -> list[bytes | None]:
        marks = ",".join("?" * len(keys))
        found = dict(
            db.execute(f"SELECT key, data FROM shared WHERE tenant = ? AND key IN ({marks})", (self._tenant, *keys))
        )
        return [found.get(key) for key in keys]


def write_notes(db: sqlite3.Connection, journal: SQLiteJournal, shared_state: SQLiteSharedState, notes: Notes) -> bool:
    """Write notes in the transaction of a resolution; return whether it could. The money is booked all the same."""
    db.execute("SAVEPOINT notes")
    try:
        journal.write(db, notes.lines)
        if notes.change is not None:
            shared_state.write(db, notes.change)
    except Exception as error:  # noqa: BLE001 - of the storage, or of the function that makes a shared value
        _log.debug("notes were not written with their call: %s", error)
        db.execute("ROLLBACK TO notes")  # where the whole transaction is gone, this fails as it must
        return False
    finally:
        if db.in_transaction:
            db.execute("RELEASE notes")
    return True
