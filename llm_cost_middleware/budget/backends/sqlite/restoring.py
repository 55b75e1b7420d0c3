"""What an archive holds, put into a ledger of its own: to look at it again, with every command."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

from llm_cost_middleware.budget import archive_file
from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.backends.sqlite.journal import SQLiteJournal
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.packing import Packing
from llm_cost_middleware.budget.rules import ArchivedRow, BudgetIndex

_BLOCK = 1_000
_STATES = {"settle": "settled", "book": "settled", "reconcile": "settled", "void": "voided", "expire": "expired"}
_RESERVED = (
    "INSERT INTO reservation (tenant, id, scopes, amount, created, expires, writer) VALUES (?, ?, ?, ?, ?, ?, 12)"
)
_ENDED = (
    "UPDATE reservation_row SET state = ?, charged = ?, verb = ?, actual = ?, status = ?, resolved = ?, reconciled = ?"
    " WHERE tenant = ? AND id = ?"
)


class ArchiveTaking:
    """The part of ``SQLiteBackend`` that takes in what an archive holds."""

    _file: LedgerFile
    _packing: Packing
    _tenant: int
    _append_row: Callable[..., None]
    journal: SQLiteJournal

    def take_archive(self, path: Path) -> int:
        """See ``SupportsRestore``."""
        archive_file.header(path)
        rows, count = archive_file.read(path), 0
        while block := list(islice(rows, _BLOCK)):
            self._file.write(partial(self._take_rows, block))
            count += len(block)
        for beside in sorted(path.parent.glob(f"{path.stem}-journal*.jsonl")):
            lines = archive_file.read_lines(beside)
            while some := list(islice(lines, _BLOCK)):
                self._file.write(partial(self._take_lines, some))
        return count

    def _take_lines(self, lines: list[JournalEntry], db: sqlite3.Connection) -> None:
        pack = self._packing.pack
        self.journal.write(db, [line._replace(data=pack(line.data, learn=False)) for line in lines])

    def _take_rows(self, rows: list[ArchivedRow], db: sqlite3.Connection) -> None:
        nothing = BudgetIndex()
        for row in rows:
            if row.kind in {"reserve", "book"}:
                held = row.amount if row.kind == "reserve" else 0
                db.execute(_RESERVED, (self._tenant, row.id, row.scopes, held, row.created, row.created))
            if row.kind in _STATES:
                corrected = row.at if row.kind == "reconcile" else 0
                verb = "settle" if corrected else row.kind
                facts = _STATES[row.kind], row.amount, verb, row.amount, row.status, row.at, corrected
                db.execute(_ENDED, (*facts, self._tenant, row.id))
            postings = nothing.posting_plan(tuple(row.scopes.split(" ")), row.created).postings
            memo = self._packing.pack(row.memo, learn=False)
            self._append_row(
                db, row.kind, row.id, row.at, row.amount, row.scopes, row.status, row.created, row.settled,
                row.pending, memo, postings,
            )  # fmt: skip
