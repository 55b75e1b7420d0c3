"""Totals of a ledger's rows, read one by one: an oracle beside the reports."""

from __future__ import annotations

from collections.abc import Iterable

from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.cli.totals import Total, Totals
from llm_cost_middleware.metering import Memo, decode_memo
from llm_cost_middleware.usage import NO_USAGE


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
