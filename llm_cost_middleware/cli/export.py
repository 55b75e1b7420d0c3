"""``llm-cost export focus``: what was booked, in the form that FinOps tools read."""

from __future__ import annotations

import sys
from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer

from llm_cost_middleware.cli import tables
from llm_cost_middleware.cli.loading import ConfigOption, LedgerOption, err, open_ledger
from llm_cost_middleware.cli.prices import open_catalogue
from llm_cost_middleware.periods import read_moment
from llm_cost_middleware.reports.charges import charges_of
from llm_cost_middleware.reports.focus import FocusVersion, focus_rows, to_csv
from llm_cost_middleware.system_clock import SystemClock
from llm_cost_middleware.typed_fields import read_choice

export = typer.Typer(help="Write what was booked in the form of another tool.", no_args_is_help=True)


@export.callback()
def _group() -> None:
    """Keep ``focus`` a command of its own: others will stand beside it."""


@export.command()
def focus(
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    since: Annotated[
        str | None, typer.Option(help="From this time on, UTC: yesterday, 7d, 2026-11.", metavar="TIME")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Up to this time, UTC.", metavar="TIME")] = None,
    to: Annotated[Path | None, typer.Option(help="The file; standard output without it.")] = None,
    version: Annotated[str, typer.Option("--focus-version", help="1.4, or 1.2 for tools that read no newer.")] = "1.4",
    account: Annotated[str, typer.Option(help="The billing account at the provider, which no row names.")] = "default",
) -> None:
    """Write FOCUS 1.4 (CSV): llm-cost export focus --since 2026-11 --to costs.csv."""
    chosen: FocusVersion = read_choice(FocusVersion, version, "--focus-version")
    first, end = (
        None if text is None else read_moment(text, name, now=SystemClock().now, zone=UTC)
        for text, name in ((since, "--since"), (until, "--until"))
    )
    catalogue = open_catalogue(config)
    with open_ledger(config, ledger) as opened, tables.working("reading bookings"):
        charges = charges_of(opened, first, end)
    lines = to_csv(focus_rows(charges, catalogue, version=chosen, account=account), chosen)
    if to is None:
        sys.stdout.writelines(lines)
        return
    with to.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)
    err.print(f"wrote {to}", highlight=False, soft_wrap=True)
