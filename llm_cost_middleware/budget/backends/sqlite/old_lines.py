"""Old lines of the journal of a SQLite ledger: to a file with an archive, or away."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.packing import Packing
from llm_cost_middleware.errors import LedgerError

NEEDED_MS = 8 * 24 * 3_600_000
"""Lines younger than this stay: a bill may come two days later, and quotes read a week."""
_CHUNK = 5_000
_READ = "SELECT seq, kind, id, at, data FROM mark WHERE tenant = ? AND at < ? AND seq > ? ORDER BY seq LIMIT ?"
_DROP = (
    "DELETE FROM mark WHERE seq IN (SELECT seq FROM mark WHERE tenant = ? AND at < ? AND seq <= ? ORDER BY seq LIMIT ?)"
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
        before, part = before_ms / 1000, to.with_name(f"{to.name}.part")
        count = last = 0
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            for seq, line in self._lines(before):
                file.write(line)
                count, last = count + 1, seq
            file.flush()
            os.fsync(file.fileno())
        if not count:
            part.unlink()
            return 0
        with part.open("rb") as file:
            if sum(1 for _ in file) != count:
                raise LedgerError(f"{part} does not read back as it was written; the lines stay in the ledger")
        part.replace(to)
        self._drop(before, last)
        return count

    def prune(self, before_ms: int | None, keep: int | None) -> int:
        """Remove the lines before a time, and all but the newest ``keep``; return how many."""
        removed = 0 if before_ms is None else self._drop(before_ms / 1000, 2**62)
        if keep is not None:
            with self._file.reading() as db:
                found = db.execute(_NTH_NEWEST, (self._tenant, keep)).fetchone()
            if found is not None:
                removed += self._drop(_EVER, found[0])
        return removed

    def _lines(self, before: float) -> Iterator[tuple[int, bytes]]:
        seq = 0
        while True:
            with self._file.reading() as db:
                block = db.execute(_READ, (self._tenant, before, seq, _CHUNK)).fetchall()
            for seq, kind, id_, at, data in block:
                # surrogateescape: data are any bytes, JSON is text
                text = self._packing.unpack(data).decode(errors="surrogateescape")
                yield seq, json.dumps({"kind": kind, "id": id_, "at": at, "data": text}).encode() + b"\n"
            if len(block) < _CHUNK:
                return

    def _drop(self, before: float, last: int) -> int:
        """Remove lines in small transactions."""
        removed = 0
        while True:
            values = self._tenant, before, last, _CHUNK
            count = self._file.write(lambda db, values=values: _dropped(db, values), durable=False)  # type: ignore[misc]  # bound now
            removed += count
            if count < _CHUNK:
                return removed


def _dropped(db: sqlite3.Connection, values: tuple[object, ...]) -> int:
    return db.execute(_DROP, values).rowcount
