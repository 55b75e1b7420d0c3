"""Parcels of leases in memory: for tests of what the storages have in common. One process needs no leases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from llm_cost_middleware.budget.model import Verb
from llm_cost_middleware.budget.rules import Crossed
from llm_cost_middleware.budget.rules.leases import (
    HeldBlock,
    Parcel,
    ParcelEntry,
    ParcelHold,
    Shipped,
    held_change,
    is_lease,
)

if TYPE_CHECKING:
    from llm_cost_middleware.budget.backends.memory.accounts import Cell
    from llm_cost_middleware.budget.backends.memory.backend import (
        _MemoryReservation,
        _PostingRoute,
        _SharedState,
    )


class MemoryLeases:
    """The part of ``MemoryBackend`` that takes in parcels, under the lock of the state."""

    _state: _SharedState
    _now: Callable[[], float]
    _seq: Iterator[int]
    _find: Callable[[str], _MemoryReservation | None]
    _close: Callable[[_MemoryReservation], None]
    _resolve: Callable[..., object]
    _crossed: Callable[[_MemoryReservation, int], Crossed]
    _posting_route: Callable[[tuple[str, ...], int], _PostingRoute]
    _entry: Callable[[ParcelEntry, tuple[Cell, ...]], _MemoryReservation]

    def ship(self, parcel: Parcel) -> Shipped:
        """See ``SupportsLeases``."""
        now = int(self._now() * 1000)
        with self._state.lock:
            known, lost, crossed = set[str](), set[str](), Crossed()
            for entry in parcel.entries:
                if self._find(entry.id) is not None:
                    known.add(entry.id)
                    continue
                record = self._entry(entry, self._posting_route(entry.scopes, entry.created).cells)
                if entry.kind == "book":
                    told = self._resolve(record, "book", entry.amount, entry.status, now, entry.memo)
                    crossed.update(zip(told.warnings, told.thresholds, strict=True))  # type: ignore[attr-defined]  # a receipt
                else:
                    self._state.open[entry.id] = record
                    for cell in record.cells:
                        cell.pending += entry.amount
                    self._tell_of(record, "reserve", entry.amount, now, entry.memo)
            for hold in parcel.holds:
                block = self._find(hold.id)
                if block is None or block.state not in {"pending", "expired"}:
                    lost |= {hold.id} if hold.ttl else set()
                    continue
                if block.state == "expired":
                    lost.add(hold.id)
                self._let_hold(block, hold, now)
            return Shipped(now, frozenset(known), frozenset(lost), crossed)

    def held_blocks(self) -> list[HeldBlock]:
        """See ``SupportsLeases``."""
        with self._state.lock:
            blocks = [one for one in self._state.open.values() if is_lease(one.id)]
            return [HeldBlock(one.id, one.scopes[0], int(one.amount), one.created) for one in blocks]

    def _let_hold(self, block: _MemoryReservation, hold: ParcelHold, now: int) -> None:
        settled, pending = held_change(block, hold)
        if block.state == "pending" and not hold.ttl:
            self._resolve(block, "void", 0, "void", now, b"")
            return
        for cell in block.cells:
            cell.settled += settled
            cell.pending += pending
        if block.state == "pending":
            block.amount, block.expires = hold.amount, max(block.expires, now + hold.ttl)
        else:
            block.charged += settled
        if settled or pending:
            self._tell_of(
                block, "reduce" if pending else "reconcile", block.amount if pending else block.charged, now, b""
            )

    def _tell_of(self, record: _MemoryReservation, kind: Verb | str, amount: int, now: int, memo: bytes) -> None:
        status = "exact" if kind == "reconcile" else "reserved"
        row = next(self._seq), kind, record.id, now, amount, record.scopes, status, record.created, memo
        self._state.rows.append(row)
