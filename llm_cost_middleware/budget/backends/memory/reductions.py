"""Reductions of reservations in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from llm_cost_middleware.budget.model import Reduction
from llm_cost_middleware.budget.rules import apply_reduction, reduction

if TYPE_CHECKING:
    from llm_cost_middleware.budget.backends.memory.backend import _MemoryReservation, _SharedState


class MemoryReductions:
    """The part of ``MemoryBackend`` that gives back what is held too much, under the lock of the state."""

    _state: _SharedState
    _now: Callable[[], float]
    _seq: Iterator[int]
    _find: Callable[[str], _MemoryReservation | None]
    _set_right: Callable[[tuple[str, ...], int], None]
    _finish_reduction: Callable[[_MemoryReservation, int, tuple[object, ...]], None]

    def reduce(self, amounts: Sequence[tuple[str, int]]) -> tuple[Reduction, ...]:
        """See ``SupportsReduction``; all in one step."""
        now = int(self._now() * 1000)
        with self._state.lock:
            return tuple(self._reduce(id_, amount, now) for id_, amount in amounts)

    def _reduce(self, id_: str, amount: int, now: int) -> Reduction:
        record = self._find(id_)
        made = reduction(record, id_, amount)
        if record is not None and made.released_nanousd:
            held = int(made.amount_nanousd)
            entry = next(self._seq), "reduce", id_, now, held, record.scopes, "reserved", record.created, b""
            try:
                apply_reduction(record, made)  # its last line decides: from here on it is reduced
                for cell in record.cells:
                    cell.pending -= made.released_nanousd
                self._state.rows.append(entry)
                if record.slices:
                    self._set_right(record.slices, now)
            except BaseException:
                self._finish_reduction(record, held, entry)
                raise
        return made
