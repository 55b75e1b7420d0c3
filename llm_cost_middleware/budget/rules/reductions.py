"""Reduction of a reservation: what is known meanwhile needs less than was held (a partial reversal, in payments)."""

from __future__ import annotations

from llm_cost_middleware.budget.model import Reduction
from llm_cost_middleware.budget.rules.transitions import ReservationRecord
from llm_cost_middleware.money import ZERO, NanoUSD


def reduction(record: ReservationRecord | None, id_: str, amount: int) -> Reduction:
    """Decide what reducing a reservation to ``amount`` does; nothing is written yet."""
    if record is None:
        return Reduction(id_, ZERO, ZERO, "unknown")
    if record.state != "pending":
        return Reduction(id_, ZERO, ZERO, record.state)
    released = max(record.amount - amount, 0)
    return Reduction(id_, NanoUSD(record.amount - released), NanoUSD(released), "pending")


def apply_reduction(record: ReservationRecord, made: Reduction) -> None:
    """Write a reduction into its record; what was reserved at first stays known, for whoever sends that again."""
    if made.released_nanousd:
        record.requested = record.amount if record.requested is None else record.requested
        record.amount = int(made.amount_nanousd)
