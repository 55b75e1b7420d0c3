"""Journal and shared values in PostgreSQL: no money, and so never waited for by a call (``synchronous_commit`` off)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.backends.postgres.noted import KEPT, SHARED
from llm_cost_middleware.budget.backends.postgres.storage import Begin, Query
from llm_cost_middleware.budget.backends.postgres.turn import Storage
from llm_cost_middleware.budget.scripted.commands import CommandFlow

T = TypeVar("T")

_RELAXED = Query("SET LOCAL synchronous_commit = off")
_MARK = "INSERT INTO llm_cost.mark (tenant, kind, id, at, data) VALUES (%s, %s, %s, %s, %s)"
_MARKS_MADE = (
    "INSERT INTO llm_cost.mark (tenant, kind, id, at, data) SELECT %s, n.kind, n.id, n.at, n.data"
    " FROM unnest(%s::text[], %s::text[], %s::double precision[], %s::bytea[]) WITH ORDINALITY"
    " AS n (kind, id, at, data, number) ORDER BY n.number"
)
_MARKS = "SELECT kind, id, at, data FROM llm_cost.mark WHERE tenant = %s AND kind = %s AND at >= %s ORDER BY seq"
_LOCKED = f"{SHARED} ORDER BY key FOR UPDATE"
_CHANGE = (
    "INSERT INTO llm_cost.shared (tenant, key, at, data)"
    " SELECT %s, n.key, %s, n.data FROM unnest(%s::text[], %s::bytea[]) AS n (key, data) ORDER BY n.key"
    " ON CONFLICT (tenant, key) DO UPDATE SET at = excluded.at, data = excluded.data"
)
_TRIM = (
    "DELETE FROM llm_cost.shared WHERE tenant = %s AND at <"
    " (SELECT at FROM llm_cost.shared WHERE tenant = %s ORDER BY at DESC LIMIT 1 OFFSET %s)"
)


class PostgresJournal:
    """``Journal`` in a table of the ledger."""

    def __init__(self, backend: Storage) -> None:
        self._backend = backend

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        """See ``Journal``."""

        def flow() -> CommandFlow[None]:
            yield Begin()
            yield _RELAXED
            yield Query(_MARK, (self._backend.protocol.number, kind, id_, at, data))

        self._backend.drive(flow)

    def append_all(self, lines: Sequence[JournalEntry]) -> None:
        """Append entries, in one statement."""

        def flow() -> CommandFlow[None]:
            yield Begin()
            yield _RELAXED
            kinds, ids, at, data = ([line[column] for line in lines] for column in range(4))
            yield Query(_MARKS_MADE, (self._backend.protocol.number, kinds, ids, at, data))

        self._backend.drive(flow)

    def read(self, kind: str, since: float | None = None) -> Iterator[JournalEntry]:
        """See ``Journal``."""
        yield from self._entries(_MARKS, kind, float("-inf") if since is None else since)

    def newest(self, kind: str) -> Iterator[JournalEntry]:
        """Stream the entries of a kind, the last one first."""
        yield from self._entries(f"{_MARKS} DESC", kind, float("-inf"))

    def _entries(self, text: str, kind: str, since: float) -> Iterator[JournalEntry]:
        for name, id_, at, data in self._backend.stream(Query(text, (self._backend.protocol.number, kind, since))):
            yield JournalEntry(name, id_, at, bytes(data))


class PostgresSharedState:
    """``SharedState`` in a table of the ledger. A change is a transaction, so that none of a known key is lost."""

    def __init__(self, backend: Storage) -> None:
        self._backend = backend

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """See ``SharedState``."""

        def flow() -> CommandFlow[list[bytes | None]]:
            return _values(keys, (yield Query(SHARED, (self._backend.protocol.number, list(keys)))))

        return self._backend.drive(flow)

    def change(self, keys: Sequence[str], to: Callable[[list[bytes | None]], Sequence[bytes]], at: float) -> None:
        """See ``SharedState``."""
        tenant = self._backend.protocol.number

        def flow() -> CommandFlow[None]:
            yield Begin()
            yield _RELAXED
            values = to(_values(keys, (yield Query(_LOCKED, (tenant, list(keys))))))
            yield Query(_CHANGE, (tenant, at, list(keys), list(values)))
            yield Query(_TRIM, (tenant, tenant, KEPT))

        if keys:
            self._backend.drive(flow)


def _values(keys: Sequence[str], rows: list[tuple[Any, ...]]) -> list[bytes | None]:
    found = {key: bytes(data) for key, data in rows}
    return [found.get(key) for key in keys]
