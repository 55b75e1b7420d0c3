"""The journal of a ledger in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.notes import LASTING
from llm_cost_middleware.fork import ForkSafeLock

KEEP = 100_000
"""Rows, journal entries, resolved ids, and scopes without a budget that are kept, each.

The sums of a scope that has a budget, or money pending, are kept for ever; those of runs and slices are not, where the
budget is that of all of them (``run:*``).
"""


class MemoryJournal:
    """``Journal`` in memory: the last ``KEEP`` entries, and all of the kinds that last."""

    _lock = ForkSafeLock()

    def __init__(self) -> None:
        self._entries: deque[JournalEntry] = deque(maxlen=KEEP)
        self._lasting: list[JournalEntry] = []

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        """See ``Journal``."""
        with self._lock:
            (self._lasting if kind in LASTING else self._entries).append(JournalEntry(kind, id_, at, data))

    def read(self, kind: str, since: float | None = None) -> Iterator[JournalEntry]:
        """See ``Journal``."""
        with self._lock:
            entries = list(self._lasting if kind in LASTING else self._entries)
        return (entry for entry in entries if entry.kind == kind and (since is None or entry.at >= since))

    def replace(self, text: bytes, by: bytes) -> None:
        """Put another text in the place of one, in every entry."""
        with self._lock:
            kept = [entry._replace(data=entry.data.replace(text, by)) for entry in self._entries]
            self._entries.clear()
            self._entries.extend(kept)
            self._lasting = [entry._replace(data=entry.data.replace(text, by)) for entry in self._lasting]
