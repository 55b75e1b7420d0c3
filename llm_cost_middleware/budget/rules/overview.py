"""What stands in the rows of a ledger: counts by kind, and the attempts whose cost may still be corrected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from llm_cost_middleware.budget.model import UNSURE, Row, RowKind, RowStatus
from llm_cost_middleware.money import ZERO, NanoUSD


class RowCount(NamedTuple):
    """How many rows of a kind and a status there are, and the sum of their amounts."""

    kind: RowKind
    status: RowStatus
    rows: int
    amount_nanousd: NanoUSD


def count_rows(rows: Iterable[Row]) -> list[RowCount]:
    """Count rows by kind and status, sorted by them."""
    counts: dict[tuple[RowKind, RowStatus], tuple[int, NanoUSD]] = {}
    for row in rows:
        number, amount = counts.get((row.kind, row.status), (0, ZERO))
        counts[row.kind, row.status] = number + 1, NanoUSD(amount + row.amount_nanousd)
    return [RowCount(*key, *counts[key]) for key in sorted(counts)]


def unsure_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the last rows of attempts whose cost is an estimate or not known, and was not corrected since."""
    # A later row of the same id decides, and rows come in order: a corrected attempt is dropped again.
    unsure: dict[str, Row] = {}
    for row in rows:
        if row.status in UNSURE:
            unsure[row.id] = row
        elif row.kind == "reconcile":
            unsure.pop(row.id, None)
    return sorted(unsure.values(), key=lambda row: row.seq)
