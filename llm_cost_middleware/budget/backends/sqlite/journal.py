"""The journal in the ledger's file."""

from __future__ import annotations

from collections.abc import Iterator

from llm_cost_middleware.budget.backend import Mark
from llm_cost_middleware.budget.backends.sqlite.store import Store

_BLOCK = 500


class SQLiteJournal:
    """``Journal`` in the ledger's file."""

    def __init__(self, store: Store, tenant: int) -> None:
        self._store, self._tenant = store, tenant

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        """See ``Journal``."""
        values = self._tenant, kind, id_, at, data
        self._store.write(
            lambda db: db.execute("INSERT INTO mark (tenant, kind, id, at, data) VALUES (?, ?, ?, ?, ?)", values)
        )

    def read(self, kind: str, since: float | None = None) -> Iterator[Mark]:
        """See ``Journal``."""
        seq = 0
        while True:
            with self._store.reading() as db:
                block = db.execute(
                    "SELECT seq, id, at, data FROM mark WHERE tenant = ? AND kind = ? AND seq > ? AND at >= ?"
                    " ORDER BY seq LIMIT ?",
                    (self._tenant, kind, seq, -1e18 if since is None else since, _BLOCK),
                ).fetchall()
            yield from (Mark(kind, id_, at, data) for _, id_, at, data in block)
            if len(block) < _BLOCK:
                return
            seq = block[-1][0]
