"""Slices in SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from llm_cost_middleware.budget.backends.sqlite.filling import ADD
from llm_cost_middleware.budget.model import LIFETIME
from llm_cost_middleware.budget.rules import (
    BudgetIndex,
    BudgetRefusal,
    ReservationRecord,
    SliceSums,
    held_by,
)
from llm_cost_middleware.budget.rules.slices import ended

_SUMS = (
    "SELECT coalesce(sum(settled), 0), coalesce(sum(pending), 0) FROM cell JOIN account ON account.id = cell.account"
    " WHERE tenant = ? AND scope = ? AND window = ?"
)
_SET = "UPDATE reservation_row SET amount = ?, expires = max(expires, ?) WHERE tenant = ? AND id = ?"


class SliceTable:
    """The part of ``SQLiteBackend`` that pays out of slices. Every step is part of the transaction of a verb."""

    slices = True
    _tenant: int
    _account: Callable[[sqlite3.Connection, str, str], int]
    _current: Callable[[sqlite3.Connection], BudgetIndex]
    _append_row: Callable[..., None]
    _find: Callable[[sqlite3.Connection, str], tuple[ReservationRecord, BudgetRefusal | None] | None]

    def _draw(
        self, db: sqlite3.Connection, slices: tuple[str, ...], amount: int
    ) -> tuple[ReservationRecord, int] | None:
        """Take an amount out of the innermost slice, for a hold that is made in this same step."""
        if not slices:
            return None
        holder = self._holder(db, slices[-1])
        if holder is None:
            raise ended(slices[-1], self._sums_of(db, slices[-1]), amount)
        taken = min(holder.amount, amount)
        self._hold(db, holder, holder.amount - taken)
        return holder, taken

    def _give_back(self, db: sqlite3.Connection, drawn: tuple[ReservationRecord, int] | None) -> None:
        """Undo a draw: the call was refused."""
        if drawn is not None:
            self._hold(db, drawn[0], drawn[0].amount + drawn[1])

    def _drawn(self, db: sqlite3.Connection, drawn: tuple[ReservationRecord, int] | None, now: int, until: int) -> None:
        """Write down what was drawn: the hold was made."""
        if drawn is not None:
            holder, taken = drawn
            db.execute(_SET, (holder.amount, until, self._tenant, holder.id))  # whoever spends from it is alive
            self._append_hold(db, holder, now, -taken)

    def _append_hold(self, db: sqlite3.Connection, holder: ReservationRecord, now: int, change: int) -> None:
        joined, nothing = " ".join(holder.scopes), ()  # its sums are changed already
        self._append_row(
            db, "reduce", holder.id, now, holder.amount, joined, "reserved", holder.created, 0, change, b"", nothing
        )

    def _hold(self, db: sqlite3.Connection, holder: ReservationRecord, amount: int) -> None:
        change = amount - holder.amount
        for posting in self._current(db).posting_plan(holder.scopes, holder.created).postings:
            db.execute(ADD, (self._account(db, posting.scope, posting.window), posting.cell, 0, change))
        db.execute(_SET, (amount, holder.expires, self._tenant, holder.id))
        holder.amount = amount

    def _set_right(self, db: sqlite3.Connection, slices: tuple[str, ...], now: int) -> None:
        """Let each of these slices hold what of its limit is not booked, the innermost first."""
        for scope in reversed(slices):
            holder = self._holder(db, scope)
            if holder is None or (due := held_by(scope, self._sums_of(db, scope))) == holder.amount:
                continue
            change = due - holder.amount
            self._hold(db, holder, due)
            self._append_hold(db, holder, now, change)

    def _holder(self, db: sqlite3.Connection, scope: str) -> ReservationRecord | None:
        known = self._find(db, scope)
        return known[0] if known is not None and known[0].state == "pending" else None

    def _sums_of(self, db: sqlite3.Connection, scope: str) -> SliceSums:
        self._account(db, scope, LIFETIME)  # it may have been at rest
        return SliceSums(*db.execute(_SUMS, (self._tenant, scope, LIFETIME)).fetchone())
