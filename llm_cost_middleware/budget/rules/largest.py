"""The rows of the dearest ids, and of those that were held longest, of a stretch of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import nlargest
from typing import Literal, Protocol, runtime_checkable

from llm_cost_middleware.budget.model import Row

Measure = Literal["amount", "duration"]
"""Nano-dollars, or the time from a reservation to its settlement."""
_ENDS = frozenset({"settle", "expire", "book", "reconcile"})  # what an archive carries stands for many ids


@runtime_checkable
class SupportsLargest(Protocol):
    """Ability of a backend to find the dearest and the longest rows, without streaming every one."""

    def largest(
        self, by: Measure, count: int, since: int | None, until: int | None, wanted: Callable[[Row], bool]
    ) -> list[Row]:
        """Return the rows with the largest measure, as ``largest_rows``: of a bounded number."""
        ...


def largest_rows(
    rows: Callable[[], Iterable[Row]],
    by: Measure,
    count: int,
    *,
    since: int | None = None,
    until: int | None = None,
    wanted: Callable[[Row], bool] = lambda _: True,
) -> list[Row]:
    """Return the rows with the largest measure, the largest first: of each id its last row counts.

    Args:
        rows: Streams the rows in the order they were written, from ``since`` on at least; called twice.
        by: The measure. A duration is read from settlements alone: the row of a correction is written later.
        count: How many at most.
        since: The first moment of reservation, ms.
        until: The moment after the last.
        wanted: Leaves rows out.
    """
    found = (
        row for row in _last_rows(rows, by)
        if (since is None or row.reserved_at * 1000 >= since) and (until is None or row.reserved_at * 1000 < until)
        and wanted(row)
    )  # fmt: skip
    return nlargest(count, found, key=lambda row: measured(row, by))


def measured(row: Row, by: Measure) -> float:
    """Return the measure of a row: nano-dollars, or seconds."""
    return row.amount_nanousd if by == "amount" else row.at - row.reserved_at


def _last_rows(rows: Callable[[], Iterable[Row]], by: Measure) -> Iterator[Row]:
    if by == "duration":
        yield from (row for row in rows() if row.kind == "settle")
        return
    corrected = {row.id for row in rows() if row.kind in {"reconcile", "expire"}}
    last: dict[str, Row] = {}
    for row in rows():
        if row.id in corrected and row.kind in {*_ENDS, "void"}:
            last[row.id] = row
        elif row.kind in _ENDS:
            yield row
    yield from (row for row in last.values() if row.kind in _ENDS)
