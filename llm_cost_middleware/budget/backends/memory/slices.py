"""Slices in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llm_cost_middleware.budget.model import LIFETIME
from llm_cost_middleware.budget.rules import SliceSums, held_by
from llm_cost_middleware.budget.rules.slices import ended

if TYPE_CHECKING:
    from llm_cost_middleware.budget.backends.memory.backend import _MemoryReservation, _SharedState


class MemorySlices:
    """The part of ``MemoryBackend`` that pays out of slices. Every step runs under the lock of the state."""

    slices = True
    _state: _SharedState
    _seq: Iterator[int]

    def _draw(self, slices: tuple[str, ...], amount: int) -> None:
        """Take an amount out of the innermost slice, for a hold that is made in this same step."""
        if not slices:
            return
        scope = slices[-1]
        holder = self._state.open.get(scope)
        if holder is None:
            raise ended(scope, self._sums(scope), amount)
        self._hold(holder, max(holder.amount - amount, 0))

    def _drawn(self, slices: tuple[str, ...], now: int, until: int) -> None:
        """Write down what was drawn: the hold was made."""
        if slices:
            holder = self._state.open[slices[-1]]
            holder.expires = max(holder.expires, until)  # whoever spends from it is alive
            self._tell(slices[-1], now)

    def _set_right(self, slices: tuple[str, ...], now: int) -> None:
        """Let each of these slices hold what of its limit is not booked, the innermost first."""
        for scope in reversed(slices):
            holder = self._state.open.get(scope)
            if holder is not None and (due := held_by(scope, self._sums(scope))) != holder.amount:
                self._hold(holder, due)
                self._tell(scope, now)

    def _hold(self, holder: _MemoryReservation, amount: int) -> None:
        for cell in holder.cells:
            cell.pending += amount - holder.amount
        holder.requested = holder.amount if holder.requested is None else holder.requested
        holder.amount = amount

    def _tell(self, scope: str, now: int) -> None:
        """Append the row of what a slice holds from now on."""
        of = self._state.open[scope]
        entry = next(self._seq), "reduce", scope, now, of.amount, of.scopes, "reserved", of.created, b""
        self._state.rows.append(entry)

    def _sums(self, scope: str) -> SliceSums:
        account = self._state.accounts.get((scope, LIFETIME))
        cells = account.cells.values() if account is not None else ()
        return SliceSums(sum(cell.settled for cell in cells), sum(cell.pending for cell in cells))
