"""Parcels of leases in SQL: one transaction each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.packing import Packing
from llm_cost_middleware.budget.model import Receipt
from llm_cost_middleware.budget.rules import BudgetIndex, BudgetRefusal, Crossed, ReservationRecord
from llm_cost_middleware.budget.rules.leases import (
    LEASE,
    HeldBlock,
    Parcel,
    ParcelEntry,
    ParcelHold,
    Shipped,
    held_change,
)
from llm_cost_middleware.budget.tallies import Tally, tally_of

_HELD = "UPDATE reservation SET amount = ?, expires = max(expires, ?) WHERE tenant = ? AND id = ?"
_BLOCKS = (
    "SELECT id, scopes, amount, created FROM reservation"
    " WHERE tenant = ? AND state = 'pending' AND id GLOB ? ORDER BY id"
)
_CHARGED = "UPDATE reservation SET charged = ?, reconciled = ? WHERE tenant = ? AND id = ?"


class LeaseTable:
    """The part of ``SQLiteBackend`` that takes in parcels."""

    _file: LedgerFile
    _now: Callable[[], float]
    _tenant: int
    _packing: Packing
    _reserve_statement: str
    _current: Callable[[sqlite3.Connection], BudgetIndex]
    _append_row: Callable[..., None]
    _resolve: Callable[..., Receipt]
    _find: Callable[[sqlite3.Connection, str], tuple[ReservationRecord, BudgetRefusal | None] | None]

    def ship(self, parcel: Parcel) -> Shipped:
        """See ``SupportsLeases``."""
        packed = [(entry, self._packing.pack(entry.memo), tally_of(entry.memo)) for entry in parcel.entries]

        def step(db: sqlite3.Connection) -> Shipped:
            now = int(self._now() * 1000)
            known, crossed = set[str](), Crossed()
            for entry, memo, tally in packed:
                if self._find(db, entry.id) is not None:
                    known.add(entry.id)
                else:
                    crossed |= self._take_in(db, entry, memo, tally, now)
            lost = {hold.id for hold in parcel.holds if self._let_hold(db, hold, now)}
            return Shipped(now, frozenset(known), frozenset(lost), crossed)

        return self._file.write(step)

    def held_blocks(self) -> list[HeldBlock]:
        """See ``SupportsLeases``."""
        with self._file.reading() as db:
            return [HeldBlock(*found) for found in db.execute(_BLOCKS, (self._tenant, f"{LEASE}*"))]

    def _take_in(
        self, db: sqlite3.Connection, entry: ParcelEntry, memo: bytes, tally: Tally | None, now: int
    ) -> Crossed:
        record, joined = entry.record(), " ".join(entry.scopes)
        db.execute(
            self._reserve_statement, (self._tenant, entry.id, joined, record.amount, entry.created, entry.expires)
        )
        if entry.kind == "book":
            told = self._resolve(db, record, "book", entry.amount, entry.status, now, memo, tally)
            return dict(zip(told.warnings, told.thresholds, strict=True))
        postings = self._current(db).posting_plan(entry.scopes, entry.created).postings
        facts: tuple[Any, ...] = entry.amount, joined, "reserved", entry.created, 0, entry.amount, memo, postings
        self._append_row(db, "reserve", entry.id, now, *facts)
        return {}

    def _let_hold(self, db: sqlite3.Connection, hold: ParcelHold, now: int) -> bool:
        """Set what a block holds; return whether it had ended before."""
        found = self._find(db, hold.id)
        if found is None or found[0].state not in {"pending", "expired"}:
            return hold.ttl > 0
        block = found[0]
        if block.state == "pending" and not hold.ttl:
            self._resolve(db, block, "void", 0, "void", now, b"")
            return False
        settled, pending = held_change(block, hold)
        postings = self._current(db).posting_plan(block.scopes, block.created).postings
        kind, amount, status = "reduce", hold.amount, "reserved"
        if block.state == "expired":
            kind, amount, status = "reconcile", block.charged + settled, "exact"
        if settled or pending:
            facts: tuple[Any, ...] = (
                amount,
                " ".join(block.scopes),
                status,
                block.created,
                settled,
                pending,
                b"",
                postings,
            )
            self._append_row(db, kind, hold.id, now, *facts)
        if block.state == "expired":
            db.execute(_CHARGED, (amount, now, self._tenant, hold.id))
            return True
        db.execute(_HELD, (amount, now + hold.ttl, self._tenant, hold.id))
        return False
