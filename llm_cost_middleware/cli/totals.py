"""Totals of booked calls by model, for receipt and report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.table import Table

from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.cli import currency
from llm_cost_middleware.cli.loading import out
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

_BOUNDLESS, _LEAST_NAME = 10_000, 6  # columns: for what a table would need; a name is folded to


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


def table_of(totals: Totals, title: str) -> Table:
    """Return the totals as a table: calls, tokens by bucket, cost.

    On narrow terminals drop grid lines first, then fold model names, then figures. Nothing is cut off.
    """
    table = _table(totals, title, narrow=False)
    if _width(table) <= out.width:
        return table
    table = _table(totals, title, narrow=True)
    name, *figures = table.columns
    longest = max((len(part) for text in totals for part in text.split("/")), default=0)
    for space in (1, 0):
        table.padding = 0, space, 0, 0
        room = longest - (_width(table) - out.width)
        if room >= _LEAST_NAME:
            name.width = min(room, longest)
            return table
    # Narrower than the figures themselves: fold them too, since a cut figure would be a wrong one.
    for column in figures:
        column.no_wrap = False
    return table


def _width(table: Table) -> int:
    return out.measure(table, options=out.options.update(max_width=_BOUNDLESS)).maximum


def _table(totals: Totals, title: str, *, narrow: bool) -> Table:
    table = Table(title=title, title_justify="left", show_footer=True)
    if narrow:
        table.box, table.pad_edge, table.show_edge = SIMPLE_HEAD, False, False
    between = "\n" if narrow else " "
    whole = sum((total.usage for total in totals.values()), NO_USAGE)
    cost = NanoUSD(sum(total.cost_nanousd for total in totals.values()))
    table.add_column("model", footer="total", no_wrap=not narrow, overflow="fold")
    for header, footer in (
        ("calls", f"{sum(total.calls for total in totals.values()):,}"),
        ("input", f"{whole.uncached_input:,}"),
        (f"cache{between}read", f"{whole.cache_read:,}"),
        (f"cache{between}write", f"{whole.cache_write:,}"),
        ("output", f"{whole.output_tokens:,}"),
        ("cost", currency.exact(cost, places=9)),
    ):
        table.add_column(header, footer=footer, justify="right", vertical="bottom", no_wrap=True, overflow="fold")
    for name, total in sorted(totals.items(), key=lambda pair: -pair[1].cost_nanousd):
        usage = total.usage
        table.add_row(
            name.replace("/", "/\n", 1) if narrow else name,
            f"{total.calls:,}",
            f"{usage.uncached_input:,}",
            f"{usage.cache_read:,}",
            f"{usage.cache_write:,}",
            f"{usage.output_tokens:,}",
            currency.exact(total.cost_nanousd, places=9),
        )
    return table
