"""What each resolved id finally cost: the rows of a ledger, read once, the last row of each id deciding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from llm_cost_middleware.budget.model import Row, RowStatus

RESOLVED = ("settle", "expire", "book", "reconcile", "carried")
"""The kinds of rows that may say what an id cost; a ``void`` says that it cost nothing and is no booking."""

_NO_HOLD = b"", 0


class Booking(NamedTuple):
    """Money that was booked under some scopes. ``memo`` is opaque.

    ``at`` is when the money was reserved, in milliseconds since the Unix epoch: the time by which windows count it.
    """

    at: int
    scopes: str
    """Separated by spaces, as they are stored."""
    status: RowStatus
    amount: int
    """Nano-dollars."""
    ids: int
    """How many ids this stands for: one, or those of a kind. An archived row says its own in its memo."""
    memo: bytes
    counts: tuple[int, ...] = ()
    """The sums of what ``memo`` has zeros for, where it is the kind of several (``Tally``)."""
    held: int = 0
    """Nano-dollars that were held for it; known where single ids were asked for."""


class BookingSums(NamedTuple):
    """How finely bookings are asked for. A storage may give finer ones, and those of single ids."""

    kinds: frozenset[str] | None = None
    """The kinds of scopes that matter, others may be left out; ``None``: all."""
    stretch: int = 0
    """Milliseconds of local time: none reaches over the border between two stretches; 0: over any."""
    offset: Callable[[int], int] | None = None
    """Local time less UTC at a moment, milliseconds both; ``None``: UTC."""
    days: bool = False
    """None reaches over the end of a UTC day."""
    each: bool = False
    """Every id by itself, with its own memo and what was held for it."""

    def narrow(self, scopes: str) -> str:
        """The scopes of a row that matter."""
        if self.kinds is None:
            return scopes
        return " ".join([scope for scope in scopes.split(" ") if scope.partition(":")[0] in self.kinds])


def bookings(
    rows: Callable[[], Iterable[Row]], since: int | None = None, until: int | None = None
) -> Iterator[Booking]:
    """Stream what ids cost that were reserved from ``since`` to before ``until`` (ms).

    Memory is taken by what is open, expired or corrected, not by every row: the rows are read twice, first to learn
    which ids end twice, and all others are handed on at once.

    Args:
        rows: Streams the rows in the order they were written, from ``since`` on at least; called twice.
        since: The first moment.
        until: The moment after the last.
    """
    corrected = {row.id for row in rows() if row.kind in {"reconcile", "expire"}}
    holds: dict[str, tuple[bytes, int]] = {}  # that are open: an end by expiry has no memo of its own
    last: dict[str, Row] = {}
    for row in rows():
        at = round(row.reserved_at * 1000)
        if (since is not None and at < since) or (until is not None and at >= until):
            continue
        if row.kind == "reduce":  # no end: the hold goes on, with the memo that it has
            continue
        if row.kind == "reserve":
            holds[row.id] = row.memo, int(row.amount_nanousd)
        elif row.id in corrected:
            before = last.get(row.id)
            known = before.memo if before is not None else holds.get(row.id, _NO_HOLD)[0]
            last[row.id] = row if row.memo else row._replace(memo=known)
        else:
            kept, held = holds.pop(row.id, _NO_HOLD)
            if row.kind in RESOLVED:
                yield booking_of(row if row.memo else row._replace(memo=kept), held)
    yield from (booking_of(row) for row in last.values() if row.kind in RESOLVED)


def booking_of(row: Row, held: int = 0) -> Booking:
    """What an id cost, from the row that decides it, and what was held for it."""
    return Booking(
        round(row.reserved_at * 1000), " ".join(row.scopes), row.status, int(row.amount_nanousd), 1, row.memo, (), held
    )
