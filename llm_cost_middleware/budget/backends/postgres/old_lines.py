"""Old lines of the journal in PostgreSQL: to a file with an archive, or away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_cost_middleware.budget.archive_file import write_lines
from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.backends.postgres.storage import Query
from llm_cost_middleware.budget.backends.postgres.turn import Storage, only
from llm_cost_middleware.budget.rules import DAY

NEEDED_MS = 8 * DAY
"""Lines younger than this stay: a bill may come two days later, and quotes read a week."""
_CHUNK = 5_000
# of the kinds in ``notes.LASTING`` none is taken away
_READ = (
    "SELECT seq, kind, id, at, data FROM llm_cost.mark WHERE tenant = %s AND at < %s"
    " AND kind NOT IN ('batch', 'batches') ORDER BY seq"
)
_DROP = (
    "DELETE FROM llm_cost.mark WHERE (tenant, kind, seq) IN (SELECT tenant, kind, seq FROM llm_cost.mark"
    " WHERE tenant = %s AND at < %s AND seq <= %s AND kind NOT IN ('batch', 'batches') ORDER BY seq LIMIT %s)"
    " RETURNING 1"
)
_NTH_NEWEST = "SELECT seq FROM llm_cost.mark WHERE tenant = %s ORDER BY seq DESC LIMIT 1 OFFSET %s"
_EVER, _LAST = 1e18, 2**62


class OldLines:
    """Old lines of one tenant."""

    def __init__(self, backend: Storage) -> None:
        self._backend = backend

    def move(self, before_ms: int, to: Path) -> int:
        """Move the lines before a time to a file; return how many.

        The file is complete or absent. Killed before the lines are gone, they are moved again with the next archive:
        then two files have them, and none is lost.
        """
        before, last = before_ms / 1000, [0]

        def lines() -> Iterator[JournalEntry]:
            query = Query(_READ, (self._backend.protocol.number, before))
            for last[0], kind, id_, at, data in self._backend.stream(query):
                yield JournalEntry(kind, id_, at, bytes(data))

        count = write_lines(to, lines)
        if count:
            self._drop(before, last[0])
        return count

    def prune(self, before_ms: int | None, keep: int | None, most: int | None = None) -> int:
        """Remove the lines before a time, and all but the newest ``keep``, at most ``most``; return how many."""
        removed = 0 if before_ms is None else self._drop(before_ms / 1000, _LAST, most)
        if keep is not None:
            found = self._ask(Query(_NTH_NEWEST, (self._backend.protocol.number, keep)))
            if found:
                removed += self._drop(_EVER, found[0][0], None if most is None else most - removed)
        return removed

    def _drop(self, before: float, last: int, most: int | None = None) -> int:
        """Remove lines in small transactions."""
        removed = 0
        while most is None or removed < most:
            size = _CHUNK if most is None else min(_CHUNK, most - removed)
            count = len(self._ask(Query(_DROP, (self._backend.protocol.number, before, last, size))))
            removed += count
            if count < size:
                break
        return removed

    def _ask(self, query: Query) -> list[tuple[Any, ...]]:
        return self._backend.drive(lambda: only(query))
