"""Reductions of reservations in SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.model import Reduction
from llm_cost_middleware.budget.rules import (
    QUARTER,
    BudgetIndex,
    BudgetRefusal,
    ReservationRecord,
    apply_reduction,
    reduction,
)

_FIRST = (
    "SELECT amount FROM entry WHERE tenant = ? AND kind = 'reserve' AND id = ? AND at = ? AND seq >= coalesce("
    "(SELECT seq FROM moment WHERE moment.tenant = entry.tenant AND slot = ?), 0) ORDER BY seq LIMIT 1"
)


class ReductionTable:
    """The part of ``SQLiteBackend`` that gives back what is held too much."""

    _file: LedgerFile
    _now: Callable[[], float]
    _tenant: int
    _current: Callable[[sqlite3.Connection], BudgetIndex]
    _append_row: Callable[..., None]
    _find: Callable[[sqlite3.Connection, str], tuple[ReservationRecord, BudgetRefusal | None] | None]
    _set_right: Callable[[sqlite3.Connection, tuple[str, ...], int], None]

    def reduce(self, amounts: Sequence[tuple[str, int]]) -> tuple[Reduction, ...]:
        """See ``SupportsReduction``; all in one transaction."""

        def step(db: sqlite3.Connection) -> tuple[Reduction, ...]:
            now = int(self._now() * 1000)
            return tuple(self._reduce(db, id_, amount, now) for id_, amount in amounts)

        return self._file.write(step)

    def _reduce(self, db: sqlite3.Connection, id_: str, amount: int, now: int) -> Reduction:
        record, _ = self._find(db, id_) or (None, None)
        made = reduction(record, id_, amount)
        if record is not None and made.released_nanousd:
            apply_reduction(record, made)
            plan = self._current(db).posting_plan(record.scopes, record.created)
            postings = plan.postings
            joined, released = " ".join(record.scopes), made.released_nanousd
            self._append_row(
                db, "reduce", id_, now, record.amount, joined, "reserved", record.created, 0, -released, b"", postings
            )
            db.execute(
                "UPDATE reservation_row SET amount = ? WHERE tenant = ? AND id = ?", (record.amount, self._tenant, id_)
            )
            self._set_right(db, plan.slices, now)
        return made

    def _as_requested(self, db: sqlite3.Connection, record: ReservationRecord, amount: int) -> ReservationRecord:
        """Fill in what was reserved at first, where an id comes again with another amount: its first row says it."""
        if record.amount < amount and record.verb != "book":
            slot = record.created // QUARTER
            first = db.execute(_FIRST, (self._tenant, record.id, record.created, slot)).fetchone()
            record.requested = first[0] if first else None
        return record
