"""``llm-cost budgets``: what every scope may spend, has spent, and has reserved."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from llm_cost_middleware.budget.model import Budget, Row
from llm_cost_middleware.budget.rules import ScopeBalance
from llm_cost_middleware.cli.loading import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    as_utc,
    attribution,
    open_ledger,
    out,
)
from llm_cost_middleware.money import NanoUSD, format_usd

budgets = typer.Typer(help="Budgets: what every scope may spend, has spent, and has reserved.", no_args_is_help=False)


@budgets.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show every scope and where it stands."""
    context.obj = (config, ledger)  # the options stand before the subcommand, which reads them from here
    if context.invoked_subcommand is not None:
        return
    with open_ledger(config, ledger) as opened:
        rows = [_balance_row(balance) for balance in opened.balances()]
    if as_json:
        out.print_json(json.dumps(rows))
        return
    table = Table("scope", "window", title="budgets (US dollars)")
    for column in ("limit", "settled", "pending", "available"):
        table.add_column(column, justify="right")
    table.add_column("resets")
    for row in rows:
        table.add_row(*(row[column.header] or "-" for column in table.columns))  # type: ignore[index] # headers are text
    out.print(table)


@budgets.command("set")
def set_budget(
    context: typer.Context,
    scope: Annotated[str, typer.Argument(help="global, user:42, user:* …")],
    limit: Annotated[str, typer.Argument(help="US dollars.")],
    window: Annotated[str, typer.Option(help="none, hour, day, week, month, or seconds such as 3600s.")] = "none",
    timezone: Annotated[str, typer.Option(help="Of calendar windows.")] = "UTC",
    reserve: Annotated[
        list[str] | None, typer.Option(help="Keep a share of the limit for a scope, such as tag:checkout=0.2.")
    ] = None,
) -> None:
    """Set the budget of a scope in a window. What the window already holds counts."""
    kept = dict(pair.rpartition("=")[::2] for pair in reserve or ())
    budget = attribution(*context.obj).budget(Budget(scope, limit, window, timezone, reserve=kept))
    # The one command that may create a ledger: a mistyped path must not look like an empty ledger elsewhere.
    with open_ledger(*context.obj, new=True) as opened:
        opened.set_budget(budget)
    out.print(f"{budget.scope}: {format_usd(budget.limit_nanousd)} a {budget.window} window")


@budgets.command()
def sweep(context: typer.Context) -> None:
    """Expire every reservation whose lifetime is over: charge or release it, by on_expiry."""
    with open_ledger(*context.obj) as opened:
        out.print(f"{opened.sweep()} reservations expired")


@budgets.command()
def export(
    context: typer.Context,
    scope: Annotated[str | None, typer.Option(help="Only the rows of one scope.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only rows from this UTC time on.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of CSV.")] = False,
) -> None:
    """Print the append-only rows of the ledger: CSV, or JSON lines."""
    with open_ledger(*context.obj) as opened:
        writer = None if as_json else csv.DictWriter(sys.stdout, fieldnames=_COLUMNS)
        if writer is not None:
            writer.writeheader()
        for row in opened.rows(as_utc(since) if since else None, scope):
            record = _row(row)
            if writer is None:
                print(json.dumps(record))  # noqa: T201 - this is the output
            else:
                writer.writerow(record)


_COLUMNS = ("seq", "at", "kind", "id", "amount_usd", "status", "scopes", "memo")


def _row(row: Row) -> dict[str, Any]:
    return {
        "seq": row.seq,
        "at": datetime.fromtimestamp(row.at, UTC).isoformat(),
        "kind": row.kind,
        "id": row.id,
        "amount_usd": f"{row.amount:f}",
        "status": row.status,
        "scopes": " ".join(row.scopes),
        "memo": row.memo.decode("utf-8", "replace"),
    }


def _balance_row(row: ScopeBalance) -> dict[str, str | None]:
    balance = row.balance
    resets = row.resets_at

    def usd(amount: NanoUSD | None) -> str | None:
        return None if amount is None else format_usd(amount)

    return {
        "scope": row.scope,
        "window": row.budget.window if row.budget is not None else "none",
        "limit": usd(balance.limit_nanousd),
        "settled": usd(balance.settled_nanousd),
        "pending": usd(balance.pending_nanousd),
        "available": usd(balance.available_nanousd),
        "resets": resets.isoformat(sep=" ", timespec="minutes") if resets is not None else None,
    }
