"""Archiving of old rows of a SQLite ledger: close, write, move. Each step is recorded, so that a later call resumes it.

======== ======================================================== ==============================================
state    what holds                                               killed here, the next call
======== ======================================================== ==============================================
closing  some ids are closed; every row is still in the ledger    closes the rest, writes the file anew
written  the file is whole, flushed and compared                  checks it by its SHA-256, moves what is left
moved    the rows are in the file, their sums in ``carried`` rows has nothing to do
======== ======================================================== ==============================================
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from llm_cost_middleware.budget import archive_file
from llm_cost_middleware.budget.backend import ArchiveResult
from llm_cost_middleware.budget.backends.sqlite.connection import translate_errors
from llm_cost_middleware.budget.backends.sqlite.group_commit import FileLock
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.old_lines import NEEDED_MS, OldLines
from llm_cost_middleware.budget.backends.sqlite.packing import Packing
from llm_cost_middleware.budget.rules import ArchivedRow, Sums, whole_ids
from llm_cost_middleware.errors import LedgerUnavailableError
from llm_cost_middleware.money import NanoUSD

BLOCK = 1000
"""Ids closed or moved in one transaction: it bounds how long the writers of the ledger wait."""

_OLD = "tenant = ? AND archived = 0 AND state != 'refused' AND max(created, resolved, reconciled) < ?"
_SURE = f"{_OLD} AND state IN ('settled', 'voided') AND (reconciled > 0 OR status IN ('exact', 'void'))"
_ANY_SURE = f"SELECT EXISTS (SELECT 1 FROM reservation WHERE {_SURE})"  # noqa: S608 - fixed texts, here and below
_COUNT_OLD = f"SELECT count(*) FROM reservation WHERE {_OLD}"  # noqa: S608
_FIND_SURE = f"SELECT id FROM reservation WHERE {_SURE} AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
_CLOSE = f"UPDATE reservation_row SET archived = ? WHERE {_SURE} AND id = ?"  # noqa: S608
_LINES = (
    "SELECT seq, kind, id, at, amount, scopes, status, created, settled, pending, memo FROM entry AS e WHERE tenant = ?"
    " AND (SELECT archived FROM reservation AS r WHERE r.tenant = e.tenant AND r.id = e.id) = ?"
)
_CARRY = (
    "INSERT INTO entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ROLLED_UP = "-rolled-up"
_LATEST = 2**62  # above every row number


class _ArchiveRecord(NamedTuple):
    """Archive as recorded in the ledger."""

    number: int
    before: int
    path: str
    state: str


class Archive:
    """Archives of one ledger."""

    def __init__(self, file: LedgerFile, packing: Packing, tenant: int, name: str, now: int, sums: Sums) -> None:
        self._file, self._tenant, self._name, self._sums = file, tenant, name, sums
        self._packing, self._now = packing, now

    def run(self, before: int, path: Path | None, *, keep: bool) -> ArchiveResult:
        """See ``Ledger.archive``."""
        with translate_errors(self._file.url), closing(FileLock(self._beside("-archiving"), self._file.path)) as lock:
            if not lock.acquire(wait=False):
                raise LedgerUnavailableError(self._file.url, "another process is archiving it")
            record = self._unfinished()
            resumed = record is not None
            if record is None:
                if not self._one(_ANY_SURE, self._tenant, before):
                    return ArchiveResult(None, 0, 0, NanoUSD(0), self._skipped(before), resumed=False)
                record = self._begin(before, path, keep=keep)
            elif record.state == "closing" and path is not None and str(path.absolute()) != record.path:
                record = record._replace(path=archive_file.check_target(path))  # nothing was written yet
                self._execute("UPDATE archive SET path = ? WHERE id = ?", record.path, record.number)
            if record.state == "closing":
                self._close(record)
                self._write(record)
            kept = not Path(record.path).stem.rpartition("-")[0].endswith(_ROLLED_UP)
            lines = (
                self._take_journal(record) if kept else 0
            )  # before the archive counts as done: cut short, it is resumed
            self._move(record)
            done = self._result(record, lines, resumed=resumed)
            if kept:
                return done
            Path(record.path).unlink()  # it was for the case of a crash
            return done._replace(path=None)

    def _unfinished(self) -> _ArchiveRecord | None:
        query = "SELECT id, before, path, state FROM archive WHERE tenant = ? AND state != 'moved'"
        with self._file.reading() as db:
            row = db.execute(query, (self._tenant,)).fetchone()
        return _ArchiveRecord(*row) if row else None

    def _begin(self, before: int, path: Path | None, *, keep: bool) -> _ArchiveRecord:
        number = self._one("SELECT coalesce(max(id), 0) + 1 FROM archive")
        path = path if path is not None else self._beside(f"{'-archive' if keep else _ROLLED_UP}-{number:04}.jsonl")
        record = _ArchiveRecord(number, before, archive_file.check_target(path), "closing")
        insert = "INSERT INTO archive (id, tenant, before, path) VALUES (?, ?, ?, ?)"
        self._execute(insert, number, self._tenant, before, record.path)
        return record

    def _close(self, record: _ArchiveRecord) -> None:
        """Close the ids that will be moved: they take no correction from now on."""
        last = ""
        while True:
            with self._file.reading() as db:
                ids = db.execute(_FIND_SURE, (self._tenant, record.before, last, BLOCK)).fetchall()
            values = [(record.number, self._tenant, record.before, id_) for (id_,) in ids]
            self._file.write(lambda db, values=values: db.executemany(_CLOSE, values))  # type: ignore[misc]  # bound now
            if len(ids) < BLOCK:
                return
            (last,) = ids[-1]

    def _write(self, record: _ArchiveRecord) -> None:
        facts = self._file.path.name, self._name, record.before, record.number
        header: dict[str, Any] = dict(zip(("ledger", "tenant", "before", "number"), facts, strict=True))
        with self._file.reading() as db:
            found = db.execute("SELECT data FROM budget_register WHERE tenant = ?", (self._tenant,)).fetchone()
        header["register"] = json.loads(found[0]) if found else None
        try:
            written = archive_file.write(Path(record.path), header, partial(self._lines, record))
        except OSError as error:
            raise LedgerUnavailableError(self._file.url, f"cannot archive to {record.path}: {error}") from error
        self._execute(
            "UPDATE archive SET state = 'written', sha256 = ?, lines = ?, settled = ? WHERE id = ?",
            *written, record.number,
        )  # fmt: skip

    def _move(self, record: _ArchiveRecord) -> None:
        """Move the rows out, newest first: an id is complete when its first row appears."""
        sha256 = self._one("SELECT sha256 FROM archive WHERE id = ?", record.number)
        archive_file.check_whole(Path(record.path), sha256)
        for ids in whole_ids(self._lines(record, backwards=True), BLOCK):
            self._file.write(partial(self._carry, record, ids))
        self._execute("UPDATE archive SET state = 'moved' WHERE id = ?", record.number)

    def _carry(self, record: _ArchiveRecord, ids: list[list[ArchivedRow]], db: sqlite3.Connection) -> None:
        sums = self._sums.of(ids, f"archive-{record.number}")
        seqs = [(line.seq,) for lines in ids for line in lines]
        # The count proves that no row left in another way since the file was written.
        if seqs and db.executemany("DELETE FROM entry_row WHERE seq = ?", seqs).rowcount != len(seqs):
            raise sqlite3.IntegrityError("rows that were to be archived are gone")
        pack = self._packing.pack
        db.executemany(_CARRY, [(self._tenant, *line[1:-1], pack(line.memo, learn=False)) for line in sums])
        db.execute("UPDATE archive SET carried = carried + ? WHERE id = ?", (len(sums), record.number))

    def _lines(self, record: _ArchiveRecord, *, backwards: bool = False) -> Iterator[ArchivedRow]:
        """Read the rows of the closed ids in blocks: a long read transaction keeps the write-ahead log growing."""
        order, seq = (" AND seq < ? ORDER BY seq DESC", _LATEST) if backwards else (" AND seq > ? ORDER BY seq", 0)
        while True:
            with self._file.reading() as db:
                block = db.execute(f"{_LINES}{order} LIMIT {BLOCK}", (self._tenant, record.number, seq)).fetchall()
            unpack = self._packing.unpack
            yield from (ArchivedRow._make((*values, unpack(memo))) for *values, memo in block)
            if len(block) < BLOCK:
                return
            seq = block[-1][0]

    def _take_journal(self, record: _ArchiveRecord) -> int:
        """Move the lines of the journal that are as old, to a file beside the rows."""
        before = min(record.before, self._now - NEEDED_MS)
        return OldLines(self._file, self._packing, self._tenant).move(before, archive_file.beside(Path(record.path)))

    def _result(self, record: _ArchiveRecord, lines: int, *, resumed: bool) -> ArchiveResult:
        with self._file.reading() as db:
            found = db.execute("SELECT lines, carried, settled FROM archive WHERE id = ?", (record.number,)).fetchone()
        return ArchiveResult(
            Path(record.path), found[0], found[1], NanoUSD(found[2]), self._skipped(record.before), resumed, lines
        )

    def _skipped(self, before: int) -> int:
        return int(self._one(_COUNT_OLD, self._tenant, before))

    def _beside(self, suffix: str) -> Path:
        path = self._file.path
        return path.with_name(f"{path.stem if suffix.endswith('.jsonl') else path.name}{suffix}")

    def _one(self, query: str, *values: Any) -> Any:
        with self._file.reading() as db:
            return db.execute(query, values).fetchone()[0]

    def _execute(self, statement: str, *values: Any) -> None:
        self._file.write(lambda db: db.execute(statement, values))
