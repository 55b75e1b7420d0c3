"""Sums of archived rows: the ``carried`` rows that replace them, grouped by scopes, time and memo."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from llm_cost_middleware.budget.rules.accounts import BudgetIndex, counted_from
from llm_cost_middleware.errors import LedgerError

QUARTER, DAY = 15 * 60_000, 24 * 3_600_000
"""Lengths of time in ms. Calendar windows of every time zone begin at a quarter of an hour: none cuts a bucket."""


class ArchivedRow(NamedTuple):
    """Row with every stored column. Times are milliseconds, amounts nano-dollars. The archive file has these keys."""

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


class MemoAggregator(Protocol):
    """How memos are added up, given by the code that writes them: the ledger cannot read them."""

    def group_key(self, memo: bytes) -> Hashable:
        """Return the key of a memo's group: memos of one group are added up."""
        ...

    def combine(self, memos: Sequence[bytes]) -> bytes:
        """Return one memo for several of one group."""
        ...


def whole_ids(rows: Iterable[ArchivedRow], step: int) -> Iterator[list[list[ArchivedRow]]]:
    """Gather the rows of ids, read from the newest back: an id is whole when its first row appears.

    Args:
        rows: The newest first.
        step: How many ids are handed on at once.
    """
    partly: dict[str, list[ArchivedRow]] = {}
    whole: list[list[ArchivedRow]] = []
    for row in rows:
        partly.setdefault(row.id, []).append(row)
        if row.kind in {"reserve", "book"}:
            whole.append(partly.pop(row.id)[::-1])
            if len(whole) >= step:
                yield whole
                whole = []
    if whole:
        yield whole


class Sums(NamedTuple):
    """How archived rows are added up."""

    memos: MemoAggregator
    recent: int
    """From when on (ms) windows still count what was reserved."""
    scopes: Callable[[ArchivedRow], str]
    """The scopes that the sum of a row stays with (``carried_scopes``)."""

    @classmethod
    def made(cls, memos: MemoAggregator, index: BudgetIndex, now: int) -> Sums:
        """Add up under these budgets at ``now`` (ms)."""
        # A day less, because no bucket of a day may reach into a window that still counts.
        recent = counted_from(index.budgets, now) - DAY
        return cls(memos, recent, carried_scopes(index, recent))

    def of(self, ids: Iterable[Sequence[ArchivedRow]], name: str) -> list[ArchivedRow]:
        """Compute the rows that replace all rows of some resolved ids, for an archive of this name."""
        return roll_up(ids, self.memos, self._bucket_ms, lambda last: f"{name}-{last.seq}", self.scopes)

    def _bucket_ms(self, created: int) -> int:
        # Finer where windows may still count the rows: a bucket must not straddle the start of one.
        return QUARTER if created >= self.recent else DAY


def carried_scopes(index: BudgetIndex, recent: int) -> Callable[[ArchivedRow], str]:
    """Return which scopes the sum of an archived row stays with: all but a run and a slice that no window counts.

    Each run has a name of its own, so sums by run would be as many as the runs. What a run without a window has spent
    stands in its account, or in what is left of that; its name in the rows of the archive's file.

    Args:
        index: The budgets.
        recent: From when on (ms) windows count what was reserved.
    """

    def scopes_of(row: ArchivedRow) -> str:
        if row.created >= recent:
            return row.scopes
        return " ".join(scope for scope in row.scopes.split(" ") if not index.passes(scope))

    return scopes_of


def roll_up(
    ids: Iterable[Sequence[ArchivedRow]],
    summary: MemoAggregator,
    bucket_ms: Callable[[int], int],
    name: Callable[[ArchivedRow], str],
    scopes_of: Callable[[ArchivedRow], str],
) -> list[ArchivedRow]:
    """Compute the rows that replace all rows of some resolved ids.

    Args:
        ids: The rows of each id, in their order.
        summary: Adds up the memos.
        bucket_ms: Maps the time a hold was made at to the length of time, in ms, that one row may stand for.
        name: Makes the id of a replacing row from the last row that it replaces.
        scopes_of: The scopes that the sum of a row stays with (``carried_scopes``).

    Raises:
        LedgerError: The rows of an id do not add up.
    """
    groups: dict[Hashable, list[tuple[ArchivedRow, int, bytes]]] = {}
    for lines in ids:
        last, charged = lines[-1], sum(line.settled for line in lines)
        if sum(line.pending for line in lines) or (charged != last.amount):
            raise LedgerError(f"the rows of {last.id!r} do not add up to its last one; nothing was moved")
        if last.kind == "void":
            continue  # it added nothing to any sum
        # An expiry and a correction by hand have no memo: take the one before them.
        memo = next((line.memo for line in reversed(lines) if line.memo), b"")
        width = bucket_ms(last.created)
        last = last._replace(scopes=scopes_of(last))
        key = last.scopes, last.created // width, last.at // width, summary.group_key(memo)
        groups.setdefault(key, []).append((last, charged, memo))
    return [
        ArchivedRow(
            0, "carried", name(max(last for last, _, _ in group)), max(last.at for last, _, _ in group),
            amount := sum(charged for _, charged, _ in group), group[0][0].scopes, "exact",
            max(last.created for last, _, _ in group), amount, 0, summary.combine([memo for _, _, memo in group]),
        )
        for group in groups.values()
    ]  # fmt: skip
