"""Old lines of the journal of a SQLite ledger: to a file with an archive, or away."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from llm_cost_middleware.budget.archive_file import write_lines
from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.packing import Packing

NEEDED_MS = 8 * 24 * 3_600_000
"""Lines younger than this stay: a bill may come two days later, and quotes read a week."""
_CHUNK = 5_000
# of the kinds in ``notes.LASTING`` none is taken away
_READ = (
    "SELECT seq, kind, id, at, data FROM mark WHERE tenant = ? AND at < ? AND seq > ?"
    " AND kind NOT IN ('batch', 'batches') ORDER BY seq LIMIT ?"
)
_DROP = (
    "DELETE FROM mark WHERE seq IN (SELECT seq FROM mark WHERE tenant = ? AND at < ? AND seq <= ?"
    " AND kind NOT IN ('batch', 'batches') ORDER BY seq LIMIT ?)"
)
_NTH_NEWEST = "SELECT seq FROM mark WHERE tenant = ? ORDER BY seq DESC LIMIT 1 OFFSET ?"
_EVER = 1e18


class OldLines:
    """Old lines of one tenant."""

    def __init__(self, file: LedgerFile, packing: Packing, tenant: int) -> None:
        self._file, self._packing, self._tenant = file, packing, tenant

    def move(self, before_ms: int, to: Path) -> int:
        """Move the lines before a time to a file; return how many.

        The file is complete or absent. Killed before the lines are gone, they are moved again with the next archive:
        then two files have them, and none is lost.
        """
        before, last = before_ms / 1000, [0]

        def lines() -> Iterator[JournalEntry]:
            for last[0], line in self._lines(before):
                yield line

        count = write_lines(to, lines)
        if count:
            self._drop(before, last[0])
        return count

    def prune(self, before_ms: int | None, keep: int | None, most: int | None = None) -> int:
        """Remove the lines before a time, and all but the newest ``keep``, at most ``most``; return how many."""
        removed = 0 if before_ms is None else self._drop(before_ms / 1000, 2**62, most)
        if keep is not None:
            with self._file.reading() as db:
                found = db.execute(_NTH_NEWEST, (self._tenant, keep)).fetchone()
            if found is not None:
                removed += self._drop(_EVER, found[0], None if most is None else most - removed)
        return removed

    def _lines(self, before: float) -> Iterator[tuple[int, JournalEntry]]:
        seq = 0
        while True:
            with self._file.reading() as db:
                block = db.execute(_READ, (self._tenant, before, seq, _CHUNK)).fetchall()
            for seq, kind, id_, at, data in block:
                yield seq, JournalEntry(kind, id_, at, self._packing.unpack(data))
            if len(block) < _CHUNK:
                return

    def _drop(self, before: float, last: int, most: int | None = None) -> int:
        """Remove lines in small transactions."""
        removed = 0
        while most is None or removed < most:
            size = _CHUNK if most is None else min(_CHUNK, most - removed)
            values = self._tenant, before, last, size
            count = self._file.write(lambda db, values=values: _dropped(db, values), durable=False)  # type: ignore[misc]  # bound now
            removed += count
            if count < size:
                break
        return removed


def _dropped(db: sqlite3.Connection, values: tuple[object, ...]) -> int:
    return db.execute(_DROP, values).rowcount
