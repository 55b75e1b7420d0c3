"""Receipt of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.panel import Panel
from rich.text import Text

from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.loading import out
from llm_cost_middleware.cli.totals import Total, Totals, of_records
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
    show_models(of_records(records))
    ledger = pipelines[0].ledger.balance("global")
    routing = saved_by_routing(pipelines[0], records, baseline)
    caching = sum(record.cache_saving_nanousd for record in records)
    facts = [
        ["routing saved", _signed(routing), f"against the same tokens at {baseline.model}"],
        ["caching saved", _signed(caching), "reads, less what writing the cache cost"],
        ["refused", f"{refused:,}", "calls over a budget: not sent, not billed"],
    ]
    if ledger.pending_nanousd:
        facts.append(["pending", format_usd(ledger.pending_nanousd), "reserved by calls in flight"])
    out.print()
    tables.show([*tables.names("besides"), *tables.figures(""), *tables.names("")], facts)
    out.print()
    if bill_nanousd is None:
        out.print(f"ledger total {format_usd(ledger.settled_nanousd)}; compare it with the providers' consoles")
        return True
    equal = ledger.settled_nanousd == bill_nanousd and agreed == calls
    sums = (
        f"ledger total {format_usd(ledger.settled_nanousd, places=9)} {'=' if equal else 'is not'} "
        f"provider's bill {format_usd(bill_nanousd, places=9)}"
    )
    scope = f"to the nano-dollar, on {agreed:,} of {calls:,} calls"
    if not out.is_terminal:
        tables.say(f"{sums}   {scope}")
        return equal
    fits = len(sums) + len(scope) + 3 + _FRAME <= out.width
    verdict = Text(f"{sums}   {scope}" if fits else f"{sums}\n{scope}", style="bold")
    out.print(Panel(verdict, border_style="green" if equal else "red", expand=False))
    return equal


def show_models(totals: Totals) -> None:
    """Print the totals of each model, the dearest first."""
    columns = [
        tables.Column("model"),
        *tables.figures("calls", "input", "cache\nread", "cache\nwrite", "output", "cost"),
    ]
    dearest = sorted(totals.items(), key=lambda pair: -pair[1].cost_nanousd)
    rows = [[name, *_figures(total)] for name, total in dearest]
    whole = Total()
    for total in totals.values():
        whole.add(total.usage, total.cost_nanousd, "", total.calls)
    tables.show(columns, rows, title="receipt", total=["total", *_figures(whole)])


def _figures(total: Total) -> list[str]:
    usage = total.usage
    counts = (total.calls, usage.input_tokens, usage.cache_read, usage.cache_write, usage.output_tokens)
    return [*(f"{count:,}" for count in counts), currency.exact(total.cost_nanousd, places=9)]


def _signed(nano: Any) -> str:
    return format_usd(NanoUSD(nano), places=9)
