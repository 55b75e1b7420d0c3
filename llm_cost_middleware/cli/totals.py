"""Totals of booked calls by model, for the receipt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.tracker import CostRecord
from llm_cost_middleware.usage import NO_USAGE, TokenUsage


@dataclass(slots=True)
class Total:
    """Totals of one model."""

    calls: int = 0
    usage: TokenUsage = NO_USAGE
    cost_nanousd: NanoUSD = ZERO
    statuses: dict[str, int] = field(default_factory=dict)

    def add(self, usage: TokenUsage | None, cost: NanoUSD, status: str, calls: int = 1) -> None:
        """Add an attempt, or the totals of several."""
        self.calls += calls
        self.usage = self.usage + (usage or NO_USAGE)
        self.cost_nanousd = NanoUSD(self.cost_nanousd + cost)
        self.statuses[status] = self.statuses.get(status, 0) + calls


Totals = dict[str, Total]


def of_records(records: Iterable[CostRecord]) -> Totals:
    """Return the totals of a pipeline's records, by ``provider/model``."""
    totals: Totals = {}
    for record in records:
        name = f"{record.provider}/{record.model}" if record.provider else record.model
        totals.setdefault(name, Total()).add(record.usage, record.cost_nanousd, record.status)
    return totals
