"""Journal in the ledger's file."""

from __future__ import annotations

from collections.abc import Iterator

from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile

_BLOCK = 500


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
