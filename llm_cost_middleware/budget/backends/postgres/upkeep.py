"""What is done to a whole ledger in PostgreSQL: it is looked over, archived, pruned, and a person erased from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llm_cost_middleware.budget.backend import ArchiveResult, Erasure, Snapshot
from llm_cost_middleware.budget.backends.postgres import reports
from llm_cost_middleware.budget.backends.postgres.archive import PostgresArchive
from llm_cost_middleware.budget.backends.postgres.erasure import PostgresEraser
from llm_cost_middleware.budget.backends.postgres.noted import NotedProtocol
from llm_cost_middleware.budget.backends.postgres.old_lines import OldLines
from llm_cost_middleware.budget.backends.postgres.resting import PostgresResting
from llm_cost_middleware.budget.backends.postgres.turn import Turn
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules import MemoAggregator, Sums
from llm_cost_middleware.budget.rules.bookings import Booking, BookingSums, bookings
from llm_cost_middleware.budget.rules.largest import Measure
from llm_cost_middleware.budget.rules.overview import RowCount


class PostgresUpkeep:
    """The part of ``PostgresBackend`` that no call waits for."""

    protocol: NotedProtocol
    drive: Callable[..., Any]
    read: Callable[..., Snapshot]
    stream: Callable[..., Iterator[tuple[Any, ...]]]
    rows: Callable[[int | None, str | None], Iterator[Row]]

    def bookings(self, since: int | None, until: int | None, sums: BookingSums) -> Iterator[Booking]:
        """See ``SupportsBookings``."""
        if sums.each:  # by SQL they are added up
            yield from bookings(lambda: self.rows(since, None), since, until)
        else:
            yield from reports.read_bookings(self, since, until, sums)

    def count_rows(self) -> list[RowCount]:
        """See ``SupportsOverview``."""
        return reports.count_rows(self)

    def unsure_rows(self) -> Iterator[Row]:
        """See ``SupportsOverview``."""
        yield from reports.unsure_rows(self)

    def largest(
        self, by: Measure, count: int, since: int | None, until: int | None, wanted: Callable[[Row], bool]
    ) -> list[Row]:
        """See ``SupportsLargest``."""
        return reports.largest_rows(self, by, count, since, until, wanted)

    def erase(self, scope: str) -> Erasure:
        """See ``SupportsErasure``."""
        with Turn.held(self) as turn:
            return PostgresEraser(turn).run(scope)

    def archive(self, before: int, path: Path | None, summary: MemoAggregator, *, keep: bool = True) -> ArchiveResult:
        """See ``SupportsArchive``."""
        index, now, _ = self.read(())
        with Turn.held(self) as turn:
            return PostgresArchive(turn, now, Sums.made(summary, index, now)).run(min(before, now), path, keep=keep)

    def rest(self, idle: int) -> int:
        """See ``SupportsResting``."""
        with Turn.held(self) as turn:
            resting = PostgresResting(turn)
            resting.begin()
            index, now, _ = self.read(())
            return resting.run(index, now, idle)

    def prune_journal(self, before: int | None, keep: int | None, *, most: int | None = None) -> int:
        """See ``SupportsPruning``."""
        return OldLines(self).prune(before, keep, most)
