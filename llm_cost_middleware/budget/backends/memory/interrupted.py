"""Steps of a ledger in memory that Ctrl-C (or whatever else) interrupted: all of one is done, or nothing.

A step decides in one statement, within which no signal is handled: a hold is put among the open ones, or taken from
them. What follows that is finished here, and what comes before it taken back, which costs a step next to nothing: what
is pending is the sum of the open holds, which tells as well which of its cells a step has come to. Not met: a second
interrupt while the first is put right.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.budget.rules.transitions import Transition, apply

if TYPE_CHECKING:
    from llm_cost_middleware.budget.backends.memory.accounts import Cell
    from llm_cost_middleware.budget.backends.memory.backend import _MemoryReservation, _SharedState


class MemoryInterruptions:
    """The part of ``MemoryBackend`` that finishes a step, under the lock of the state that the step has."""

    _state: _SharedState
    _close: Callable[[_MemoryReservation], None]
    _set_right: Callable[[tuple[str, ...], int], None]
    _tell: Callable[[str, int], None]
    _drawn: Callable[[tuple[str, ...], int, int], None]

    def _finish_hold(self, id_: str, row: tuple[Any, ...], cells: tuple[Cell, ...], slices: tuple[str, ...]) -> None:
        """Finish a reserve where it is held, else give back what of it is."""
        record, now = self._state.open.get(id_), row[3]
        self._sum_up(cells)
        if record is None:
            self._set_right(slices, now)
            return
        self._keep(row, slices)
        if slices:
            self._drawn(slices, now, record.expires)

    def _finish_resolution(
        self, record: _MemoryReservation, transition: Transition, row: tuple[Any, ...], done: Cell | None
    ) -> None:
        """Finish a resolution where it was decided, else take back what of it is done.

        Args:
            record: What is resolved.
            transition: How.
            row: The row that says so.
            done: Of one that held nothing: the last of its cells whose sum was changed.
        """
        state, cells, (_, verb, id_, now, amount, _, status, *_) = self._state, record.cells, row
        applied = (record.state, record.charged) == (transition.state, transition.charged)
        if id_ in state.open or not (
            applied or (record.state == "pending" and (verb != "book" or id_ in state.closed))
        ):
            held = self._held(cells)  # with it, where it held something
            changed = cells[: cells.index(done) + 1] if done is not None else ()
            for cell in [cell for cell in cells if cell.pending != held[cell]] if transition.pending else changed:
                cell.settled -= transition.settled
            self._sum_up(cells)
            return
        if id_ not in state.closed:
            self._close(record)
        if not applied:
            apply(record, verb, transition, amount, status, now)
        self._sum_up(cells)
        self._keep(row, record.slices)
        self._set_all_right(record.slices, now)

    def _finish_reduction(self, record: _MemoryReservation, amount: int, row: tuple[Any, ...]) -> None:
        """Finish a reduction to ``amount`` that was decided."""
        self._sum_up(record.cells)
        if record.amount == amount:
            self._keep(row, record.slices)
            self._set_all_right(record.slices, row[3])

    def _held(self, cells: tuple[Cell, ...]) -> dict[Cell, int]:
        """What is open in these cells, and in all others that hold something."""
        held = dict.fromkeys(cells, 0)
        for record in self._state.open.values():
            for cell in record.cells:
                held[cell] = held.get(cell, 0) + record.amount
        return held

    def _sum_up(self, cells: tuple[Cell, ...]) -> None:
        for cell, held in self._held(cells).items():
            cell.pending = held

    def _keep(self, row: tuple[Any, ...], slices: tuple[str, ...]) -> None:
        """Append a row, unless it is there: no more than those of its slices can follow it."""
        rows = self._state.rows
        if not any(row[1:4] == kept[1:4] for kept in islice(reversed(rows), len(slices) + 1)):
            rows.append(row)

    def _set_all_right(self, slices: tuple[str, ...], now: int) -> None:
        self._set_right(slices, now)
        for scope in slices:  # also of one that was set right, and not told of
            if scope in self._state.open:
                self._tell(scope, now)
