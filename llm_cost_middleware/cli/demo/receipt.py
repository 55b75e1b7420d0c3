"""Receipt of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from llm_cost_middleware.cli.loading import out
from llm_cost_middleware.cli.totals import of_records, table_of
from llm_cost_middleware.money import NanoUSD, format_usd
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.tracker import CostRecord

_FRAME = 4  # columns around the verdict


def saved_by_routing(pipeline: CostPipeline, records: Sequence[CostRecord], baseline: ModelRef) -> int:
    """Return the cost of the same tokens at one model less their actual cost, in nano-dollars."""
    saved = 0
    for record in records:
        if record.usage is not None:
            rates = pipeline.catalogue.rates(*baseline, at=record.at)
            saved += rates.cost(record.usage) - record.cost_nanousd
    return saved


def show(
    pipelines: Sequence[CostPipeline],
    *,
    refused: int,
    calls: int,
    agreed: int,
    bill_nanousd: NanoUSD | None,
    baseline: ModelRef,
) -> bool:
    """Print the receipt. Return whether ledger and bill are equal (``True`` without a bill)."""
    records = [record for pipeline in pipelines for record in pipeline.records()]
    out.print()
    table = table_of(of_records(records), "receipt")
    out.print(table, *(() if table.show_edge else ("",)), sep="\n")
    ledger = pipelines[0].ledger.balance("global")
    routing = saved_by_routing(pipelines[0], records, baseline)
    caching = sum(record.cache_saving_nanousd for record in records)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(justify="right")
    facts.add_column(style="dim")
    facts.add_row("routing saved", _signed(routing), f"against the same tokens at {baseline.model}")
    facts.add_row("caching saved", _signed(caching), "reads, less what writing the cache cost")
    facts.add_row("refused", f"{refused:,}", "calls over a budget: not sent, not billed")
    if ledger.pending_nanousd:
        facts.add_row("pending", format_usd(ledger.pending_nanousd), "reserved by calls in flight")
    out.print(facts)
    if bill_nanousd is None:
        out.print(f"\nledger total {format_usd(ledger.settled_nanousd)}; compare it with the providers' consoles")
        return True
    equal = ledger.settled_nanousd == bill_nanousd and agreed == calls
    verdict = Text.assemble(
        ("ledger total ", ""), (format_usd(ledger.settled_nanousd, places=9), "bold"),
        (" = " if equal else " is not ", "bold"),
        ("provider's bill ", ""), (format_usd(bill_nanousd, places=9), "bold"),
        (f"   to the nano-dollar, on {agreed:,} of {calls:,} calls", ""),
    )  # fmt: skip
    if verdict.cell_len + _FRAME > out.width:
        verdict = Text("\n").join(verdict.split("   "))
    out.print(Panel(verdict, border_style="green" if equal else "red", expand=False))
    return equal


def _signed(nano: Any) -> str:
    return format_usd(NanoUSD(nano), places=9)
