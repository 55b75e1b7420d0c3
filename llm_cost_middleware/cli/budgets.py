"""``llm-cost budgets``: what every scope may spend, has spent, and has reserved."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.ledger.leased import leased_amounts
from llm_cost_middleware.budget.model import LIFETIME, Budget, Row
from llm_cost_middleware.budget.rules import Pause, ScopeBalance
from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.anywhere import OptionsAnywhere
from llm_cost_middleware.cli.loading import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    SinceOption,
    attribution,
    load_config,
    moment_of,
    open_ledger,
    out,
)
from llm_cost_middleware.context import KINDS
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.reports.exports import safe_cell
from llm_cost_middleware.system_clock import SystemClock

budgets = typer.Typer(
    help="Budgets: what every scope may spend, has spent, and has reserved.", no_args_is_help=False, cls=OptionsAnywhere
)


@budgets.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    watch: Annotated[
        float | None, typer.Option(min=0.1, max=86_400, help="Show it again every so many seconds, until Ctrl-C.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Scopes without a budget too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show every budget and where it stands, the most used first."""
    context.obj = (config, ledger)  # the options stand before the subcommand, which reads them from here
    if context.invoked_subcommand is not None:
        return
    with open_ledger(config, ledger) as opened:
        while True:
            with tables.working("reading balances"):
                found = [one for one in opened.balances() if every or one.budget is not None]
                leased = leased_amounts(opened)
            if watch is not None and out.is_terminal:
                out.clear()
            if as_json:
                out.print_json(json.dumps([_balance_row(one, leased.get(_key(one), ZERO)) for one in found]))
            else:
                waiting = None if found else unstarted(opened, config, ledger)
                _show(sorted(found, key=_by_use), leased, waiting, everything=every)
                tell_pauses(opened.pauses())
            if watch is None:
                return
            SystemClock().sleep(watch)


def _by_use(one: ScopeBalance) -> tuple[float, str]:
    return -(_used(one) or 0.0) if one.budget is not None else 1.0, one.scope


def _used(one: ScopeBalance) -> float | None:
    """The share of the limit that is spent or held; ``None`` without a limit."""
    balance = one.balance
    if balance.limit_nanousd is None:
        return None
    taken = balance.settled_nanousd + balance.pending_nanousd
    return taken / balance.limit_nanousd if balance.limit_nanousd else float(taken > 0)


def tell_pauses(pauses: Sequence[Pause]) -> None:
    """Print a line for everything that is paused."""
    for pause in pauses:
        until = f" until {minute(pause.until / 1000)}" if pause.until is not None else ""
        since = minute(pause.since / 1000)
        tables.say(f"{pause.scope} is paused since {since}{until}: {pause.reason or 'no reason'}")


def unstarted(opened: Ledger, config: Path | None, url: str | None) -> str | None:
    """Return a line about the budgets of the configuration that nothing was ever decided about in this ledger."""
    if config is None and url is not None:  # a ledger alone
        return None
    known = {life.budget.key for life in opened.budget_lives()}
    count = sum(budget.key not in known for budget in load_config(config).budgets)
    if not count:
        return None
    budgets = "a budget" if count == 1 else f"{count} budgets"
    return f"no budget is set yet: the configuration has {budgets}; the next process that starts with it sets them."


def minute(seconds: float) -> str:
    """Return a moment, seconds since the Unix epoch, as a UTC time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _key(one: ScopeBalance) -> tuple[str, str]:
    return one.scope, one.budget.window if one.budget is not None else LIFETIME


_LEASED = (
    "leased: of what is held, in blocks of processes for calls to come; that of a process that was killed stays until "
    "one with leases opens the ledger, or a sweep charges it (llm-cost help leases)"
)


def _show(
    found: Sequence[ScopeBalance], leased: Mapping[tuple[str, str], NanoUSD], waiting: str | None, *, everything: bool
) -> None:
    if not found and waiting:
        tables.say(waiting)
        return
    if not found:
        where = "nothing was booked yet." if everything else "no budgets."
        tables.empty(where, "Set one: llm-cost budgets set global 25 --window month; --all shows what was spent.")
        return
    columns = [
        *tables.names("scope", "window"), *tables.figures("limit", "spent", "held", "left", "used"),
        *tables.figures("leased", sparse=True), *tables.figures("carried", optional=True, sparse=True),
        *tables.figures("resets", optional=True),
    ]  # fmt: skip
    rows = []
    for one in found:
        balance, used = one.balance, _used(one)
        amounts = (balance.limit_nanousd, balance.settled_nanousd, balance.pending_nanousd, balance.available_nanousd)
        rows.append([
            one.scope, one.budget.window if one.budget is not None else "-", *map(currency.amount, amounts),
            "-" if used is None else f"{used:.0%}",
            currency.amount(leased[_key(one)]) if _key(one) in leased else "-",
            currency.amount(balance.carried_nanousd) if one.budget is not None and one.budget.carry_over else "-",
            tables.when(one.resets_at.timestamp()) if one.resets_at else "-",
        ])  # fmt: skip
    tables.show(columns, rows, title=f"budgets, {currency.unit()}, local time")
    if any(_key(one) in leased for one in found):
        tables.say(_LEASED)


@budgets.command("set")
def set_budget(
    context: typer.Context,
    scope: Annotated[str, typer.Argument(help="global, user:42, user:* …")],
    limit: Annotated[str, typer.Argument(help="US dollars.")],
    window: Annotated[str, typer.Option(help="none, hour, day, week, month; or a length such as 24h or 7d.")] = "none",
    timezone: Annotated[str, typer.Option(help="Of calendar windows.")] = "UTC",
    reserve: Annotated[
        list[str] | None, typer.Option(help="Keep a share of the limit for a scope, such as tag:checkout=0.2.")
    ] = None,
    carry_over: Annotated[
        str | None, typer.Option(help="Add what the last window left unused: 'all', at most '50%', or at most '$20'.")
    ] = None,
) -> None:
    """Set the budget of a scope in a window. What the window already holds counts."""
    kept = dict(_share(pair) for pair in reserve or ())
    carries = True if carry_over in {"all", "true"} else carry_over
    given = Budget(scope, limit, window, timezone, reserve=kept, carry_over=carries)
    rule = attribution(*context.obj)
    written = rule.budget(given)
    # The one command that may create a ledger: a mistyped path must not look like an empty ledger elsewhere.
    with open_ledger(*context.obj, new=True) as opened:
        doubt = _doubt(opened, written.scope, KINDS | rule.kinds)
        found = opened.set_budget(written)
    for budget in found:
        window = "without a window: for good" if budget.window == "none" else f"a {budget.window} window"
        out.print(escape(f"{budget.scope}: {currency.exact(budget.limit_nanousd)} {window}"))
    if doubt:
        out.print(escape(doubt))


def _doubt(ledger: Ledger, scope: str, kinds: frozenset[str]) -> str | None:
    """What there is to say of a kind of scope that neither calls have on their own nor anything is booked under."""
    kind, _, name = scope.partition(":")
    if not name or kind in kinds or any(one.scope.startswith(f"{kind}:") for one in ledger.balances()):
        return None
    near = get_close_matches(kind, sorted(kinds), n=1, cutoff=0.7)
    meant = f"did you mean {near[0]}:{name}?" if near else "is that how calls name it?"
    return f"nothing is booked under {kind}:* so far: {meant}"


def _share(pair: str) -> tuple[str, str]:
    scope, equals, share = pair.rpartition("=")
    if not equals:
        raise ConfigurationError(f"must be SCOPE=SHARE, such as tag:checkout=0.2, not {pair!r}", key="--reserve")
    return scope, share


@budgets.command()
def sweep(context: typer.Context) -> None:
    """Expire every reservation whose lifetime is over: charge or release it, by on_expiry."""
    with open_ledger(*context.obj) as opened:
        out.print(f"{opened.sweep()} reservations expired")


@budgets.command()
def export(
    context: typer.Context,
    scope: Annotated[str | None, typer.Option(help="Only the rows of one scope.")] = None,
    since: SinceOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of CSV.")] = False,
) -> None:
    """Print the append-only rows of the ledger: CSV, or JSON lines."""
    with open_ledger(*context.obj) as opened:
        writer = None if as_json else csv.DictWriter(sys.stdout, fieldnames=_COLUMNS, lineterminator="\n")
        if writer is not None:
            writer.writeheader()
        for row in tables.counted(opened.rows(moment_of(since, "--since"), scope), "reading rows"):
            record = _row(row)
            if writer is None:
                print(json.dumps(record))  # noqa: T201 - this is the output
            else:
                writer.writerow({name: safe_cell(value) for name, value in record.items()})


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


def _balance_row(row: ScopeBalance, leased: NanoUSD) -> dict[str, str | None]:
    balance = row.balance
    resets = row.resets_at

    def usd(amount: NanoUSD | None) -> str | None:
        return None if amount is None else f"{amount.usd:f}"

    return {
        "scope": row.scope,
        "window": row.budget.window if row.budget is not None else "none",
        "limit": usd(balance.limit_nanousd),
        "carried": usd(balance.carried_nanousd),
        "settled": usd(balance.settled_nanousd),
        "pending": usd(balance.pending_nanousd),
        "leased": usd(leased),
        "available": usd(balance.available_nanousd),
        "resets": resets.isoformat() if resets is not None else None,
    }
