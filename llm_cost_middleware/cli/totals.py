"""Totals of booked calls by model, for receipt and report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.metering import Memo, decode_memo
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


def of_rows(rows: Iterable[Row]) -> Totals:
    """Return the totals of a ledger's rows, by ``provider/model``: the last row of each attempt counts.

    A row without a memo (an expiry, a correction by hand) takes the model from the row before it.
    """
    totals: Totals = {}
    last: dict[str, Row] = {}
    for row in rows:
        if row.kind == "carried":  # stands for many archived attempts, and is final
            _add(totals, row)
        else:
            before = last.get(row.id)
            last[row.id] = row if row.memo or before is None else row._replace(memo=before.memo)
    for row in last.values():
        if row.kind not in {"reserve", "reduce", "void"}:
            _add(totals, row)
    return totals


def _add(totals: Totals, row: Row) -> None:
    try:
        memo = decode_memo(row.memo)
    except ValueError:
        # Written by another program or a newer version: its cost counts all the same.
        memo = Memo("", 0, None)
    usage = sum((item.usage for item in memo.items), NO_USAGE)
    name = str(memo.target) if memo.target is not None else "(no model)"
    totals.setdefault(name, Total()).add(usage, row.amount_nanousd, row.status, memo.calls)
