"""``llm-cost ledger``: the append-only rows behind every figure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from llm_cost_middleware.cli.opening import ConfigOption, LedgerOption, open_ledger, out
from llm_cost_middleware.money import ZERO, NanoUSD, format_usd

ledger = typer.Typer(help="The append-only rows behind every figure.", no_args_is_help=True)


@ledger.command()
def status(config: ConfigOption = None, url: LedgerOption = None) -> None:
    """How many rows there are, and what they add up to by status."""
    counts: dict[tuple[str, str], tuple[int, NanoUSD]] = {}
    with open_ledger(config, url) as opened:
        for row in opened.rows():
            number, amount = counts.get((row.kind, row.status), (0, ZERO))
            counts[row.kind, row.status] = (number + 1, NanoUSD(amount + row.amount_nanousd))
    for (kind, state), (number, amount) in sorted(counts.items()):
        out.print(f"{kind:10} {state:12} {number:>9,} rows  {format_usd(amount)}", highlight=False)
    if not counts:
        out.print("no rows yet")


@ledger.command()
def reconcile(
    reservation_id: Annotated[str, typer.Argument(help="The id of an estimated or unconfirmed attempt.")],
    actual: Annotated[str, typer.Argument(help="What it really cost, US dollars.")],
    config: ConfigOption = None,
    url: LedgerOption = None,
) -> None:
    """Correct what one attempt cost, by a new row. The old ones stay."""
    with open_ledger(config, url) as opened:
        receipt = opened.reconcile(reservation_id, actual)
    out.print(f"{receipt.id}: {format_usd(receipt.amount_nanousd)}")


@ledger.command()
def unconfirmed(config: ConfigOption = None, url: LedgerOption = None) -> None:
    """List the attempts whose cost is an estimate: candidates for ``reconcile``."""
    open_ones: dict[str, tuple[float, NanoUSD, str]] = {}
    with open_ledger(config, url) as opened:
        for row in opened.rows():
            if row.status in {"estimated", "unconfirmed"}:
                open_ones[row.id] = (row.at, row.amount_nanousd, row.status)
            elif row.kind == "reconcile":
                open_ones.pop(row.id, None)
    for name, (at, amount, state) in open_ones.items():
        when = datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="seconds")
        out.print(f"{when}  {name}  {state:11}  {format_usd(amount)}", highlight=False)
    if not open_ones:
        out.print("every attempt is confirmed")
