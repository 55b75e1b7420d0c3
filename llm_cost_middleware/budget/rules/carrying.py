"""Which rows take the place of rows that are moved to an archive: they carry their sums, by scopes, time and memo."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol

from llm_cost_middleware.errors import LedgerError

QUARTER, DAY = 15 * 60_000, 24 * 3_600_000
"""What is summed into one row, in ms: every window of the calendar begins at a quarter of an hour, in every zone."""


class Line(NamedTuple):
    """A row with all that a storage keeps of it. Times are milliseconds, amounts nano-dollars."""

    seq: int
    kind: str
    id: str
    at: int
    amount: int
    scopes: str
    status: str
    created: int
    settled: int
    pending: int
    memo: bytes


class Summary(Protocol):
    """What memos add up to. The ledger reads none: whoever writes them says so."""

    def label(self, memo: bytes) -> Hashable:
        """Memos of one label are added up."""
        ...

    def total(self, memos: Sequence[bytes]) -> bytes:
        """One memo that says what these, all of one label, say together."""
        ...


def carried(
    ids: Iterable[Sequence[Line]], summary: Summary, grain: Callable[[int], int], name: Callable[[Line], str]
) -> list[Line]:
    """The rows that take the place of all rows of some resolved ids.

    Args:
        ids: The rows of each, in their order.
        summary: Reads the memos.
        grain: From when money was reserved to the stretch of time, in ms, that one row may stand for.
        name: Of the row that takes the place of several, from the last of them.
    """
    groups: dict[Hashable, list[tuple[Line, int, bytes]]] = {}
    for lines in ids:
        last, charged = lines[-1], sum(line.settled for line in lines)
        if sum(line.pending for line in lines) or (charged != last.amount):
            raise LedgerError(f"the rows of {last.id!r} do not add up to what its last one says; nothing was moved")
        if last.kind == "void":
            continue
        memo = next((line.memo for line in reversed(lines) if line.memo), b"")
        width = grain(last.created)
        key = last.scopes, last.created // width, last.at // width, summary.label(memo)
        groups.setdefault(key, []).append((last, charged, memo))
    return [
        Line(
            0, "carried", name(max(last for last, _, _ in group)), max(last.at for last, _, _ in group),
            amount := sum(charged for _, charged, _ in group), group[0][0].scopes, "exact",
            max(last.created for last, _, _ in group), amount, 0, summary.total([memo for _, _, memo in group]),
        )
        for group in groups.values()
    ]  # fmt: skip
