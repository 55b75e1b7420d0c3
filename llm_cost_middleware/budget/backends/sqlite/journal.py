"""Journal and shared values in the ledger's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile

_BLOCK = 500
_KEPT = 20_000
"""Shared values that are kept, about."""
_TRIMMED_ONE_IN = 64
"""Changes of which one, by its key, removes what is more than that."""


class SQLiteJournal:
    """``Journal`` in the ledger's file."""

    def __init__(self, file: LedgerFile, tenant: int) -> None:
        self._file, self._tenant = file, tenant

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        """See ``Journal``."""
        values = self._tenant, kind, id_, at, data
        self._file.write(
            lambda db: db.execute("INSERT INTO mark (tenant, kind, id, at, data) VALUES (?, ?, ?, ?, ?)", values)
        )

    def read(self, kind: str, since: float | None = None) -> Iterator[JournalEntry]:
        """See ``Journal``."""
        seq = 0
        while True:
            with self._file.reading() as db:
                block = db.execute(
                    "SELECT seq, id, at, data FROM mark WHERE tenant = ? AND kind = ? AND seq > ? AND at >= ?"
                    " ORDER BY seq LIMIT ?",
                    (self._tenant, kind, seq, -1e18 if since is None else since, _BLOCK),
                ).fetchall()
            yield from (JournalEntry(kind, id_, at, data) for _, id_, at, data in block)
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

        def step(db: sqlite3.Connection) -> None:
            values = to(self._read(db, keys))
            db.executemany(
                "INSERT INTO shared (tenant, key, at, data) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (tenant, key) DO UPDATE SET at = excluded.at, data = excluded.data",
                [(self._tenant, key, at, data) for key, data in zip(keys, values, strict=True)],
            )
            if keys and crc32(keys[-1].encode()) % _TRIMMED_ONE_IN == 0:
                db.execute(
                    "DELETE FROM shared WHERE tenant = ? AND at <"
                    " (SELECT at FROM shared WHERE tenant = ? ORDER BY at DESC LIMIT 1 OFFSET ?)",
                    (self._tenant, self._tenant, _KEPT),
                )

        self._file.write(step)

    def _read(self, db: sqlite3.Connection, keys: Sequence[str]) -> list[bytes | None]:
        marks = ",".join("?" * len(keys))
        found = dict(
            db.execute(f"SELECT key, data FROM shared WHERE tenant = ? AND key IN ({marks})", (self._tenant, *keys))  # noqa: S608 - question marks only
        )
        return [found.get(key) for key in keys]
