"""``llm-cost budgets list | raise | remove | history``, ``pause`` and ``resume``: who may spend, decided by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from shlex import quote
from typing import Annotated, Any

import typer
from rich.markup import escape

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.rules import BudgetLife, Decision
from llm_cost_middleware.budget.rules.names import without_budget
from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.budgets import budgets, minute, tell_pauses, unstarted
from llm_cost_middleware.cli.loading import ConfigOption, JsonOption, LedgerOption, attribution, open_ledger, out
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.model_names import undated

WindowOption = Annotated[str, typer.Option(help="The budget's own: none, hour, day, week, month, or 3600s.")]
UntilOption = Annotated[
    str | None,
    typer.Option(help="30m, 2h, 1d, tomorrow, monday; or a UTC time, 2026-12-01 or 2026-12-01T18:00. Default: no end."),
]


@budgets.command("list")
def list_budgets(
    context: typer.Context,
    *,
    every: Annotated[bool, typer.Option("--all", help="Those that were removed or retired as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show every budget: where it comes from, since when, what it is raised to; and what is paused."""
    with open_ledger(*context.obj) as opened:
        lives = [life for life in opened.budget_lives() if every or life.state == "active"]
        pauses = opened.pauses()
        paused = [
            {"scope": pause.scope, "since": _iso(pause.since / 1000), "reason": pause.reason,
             "until": None if pause.until is None else _iso(pause.until / 1000)}
            for pause in pauses
        ]  # fmt: skip
        waiting = None if lives else unstarted(opened, *context.obj)
    rows = [_row(life) for life in lives]
    if as_json:  # exact, in dollars
        exact = [
            {**row, **{name: row[name] and f"{row[name].usd:f}" for name in ("limit", "raised_to")},
             **{name: row[name] and _iso(row[name]) for name in ("since", "raised_until")}}
            for row in rows
        ]  # fmt: skip
        out.print_json(json.dumps({"budgets": exact, "paused": paused}))
        return
    if not rows and not paused:
        tables.say(waiting or "no budget is set: llm-cost budgets set team:search 25 --window month")
    if rows:
        cells = [_cells(row) for row in rows]
        columns = [tables.Column(name, figures=name in {"limit", "raised"}, sparse=True) for name in cells[0]]
        tables.show(columns, [[str(cell or "-") for cell in line.values()] for line in cells], title="budgets")
    tell_pauses(pauses)


@budgets.command("raise")
def raise_budget(
    context: typer.Context,
    scope: Annotated[str, typer.Argument(help="global, user:42, user:* …")],
    limit: Annotated[str, typer.Argument(help="US dollars, above what stands.")],
    window: WindowOption = "none",
    until: UntilOption = None,
) -> None:
    """Raise a budget until a time, then it is what it was; without --until, for good."""
    with open_ledger(*context.obj) as opened:
        life = opened.raise_budget(attribution(*context.obj).scope(scope), limit, window, until=until)
    end = "" if life.raised_until is None else f" until {minute(life.raised_until)}"
    out.print(escape(f"{life.budget.scope}: {currency.exact(life.raised_to or life.budget.limit_nanousd)}{end}"))


@budgets.command("remove")
def remove_budget(
    context: typer.Context,
    scope: Annotated[str, typer.Argument(help="global, user:42, user:* …")],
    window: WindowOption = "none",
) -> None:
    """End a budget. A line of the configuration that was there before does not bring it back."""
    with open_ledger(*context.obj) as opened:
        if not opened.remove_budget(written := attribution(*context.obj).scope(scope), window):
            active = [life.budget for life in opened.budget_lives() if life.state == "active"]
            raise ConfigurationError(without_budget(written, window, active), key="scope")
    out.print(escape(f"{scope}: no budget in the window {window}"))


@budgets.command("history")
def history(
    context: typer.Context,
    scope: Annotated[str | None, typer.Option(help="Only of one scope.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show the last 500 decisions about budgets and pauses, newest first."""
    with open_ledger(*context.obj) as opened:
        wanted = None if scope is None else attribution(*context.obj).scope(scope)
        found = [one for one in reversed(opened.budget_history()) if wanted in {None, one.scope}]
    if as_json:
        out.print_json(json.dumps([{**_told(one), "at": _iso(one.at)} for one in found]))
        return
    if not found:
        out.print("nothing was decided yet")
        return
    columns = tables.names("when", "what", "scope", "window", "detail", "by")
    tables.show(
        columns, [[str(cell or "-") for cell in _told(one).values()] for one in found], title="what was decided"
    )


def pause(
    scope: Annotated[str, typer.Argument(help="global, team:search, model:gpt-5 …, or team:* for each of a kind.")],
    until: UntilOption = None,
    reason: Annotated[str, typer.Option(help="Stands in the error that callers get.")] = "",
    config: ConfigOption = None,
    ledger: LedgerOption = None,
) -> None:
    """Stop the calls of a scope in every process, at once. Calls that are under way end as they would."""
    with open_ledger(config, ledger) as opened:
        paused = attribution(config, ledger).callable_scope(scope, key="pause")
        found = opened.pause(paused, until=until, reason=reason)
        unknown = [one.scope for one in found if not one.scope.endswith(":*") and not is_known(opened, one.scope)]
    for one in found:
        end = "" if one.until is None else f" until {minute(one.until / 1000)}"
        named = quote(one.scope)  # a shell would look for files at team:*
        out.print(escape(f"{one.scope} is paused{end}; llm-cost resume {named} lets its calls go on"))
        if one.scope.startswith("model:") and (family := undated(one.scope)):
            out.print(escape(f"calls that name no date go on: pause {family} to stop it and all its snapshots"))
    for name in unknown:
        out.print(escape(f"nothing is booked under {name} so far: is that how calls name it?"))


def is_known(ledger: Ledger, scope: str) -> bool:
    """Whether anything is booked or limited under a scope."""
    balance = ledger.balance(scope, "none")
    return bool(balance.settled_nanousd or balance.pending_nanousd) or balance.limit_nanousd is not None


def resume(
    scope: Annotated[str, typer.Argument(help="As it was paused.")],
    config: ConfigOption = None,
    ledger: LedgerOption = None,
) -> None:
    """Let the calls of a paused scope go on."""
    with open_ledger(config, ledger) as opened:
        running = opened.resume(attribution(config, ledger).scope(scope))
    out.print(escape(f"{scope} goes on" if running else f"{scope} was not paused"))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _row(life: BudgetLife) -> dict[str, Any]:
    budget = life.budget
    return {
        "scope": budget.scope,
        "window": budget.window,
        "limit": budget.limit_nanousd,
        "raised_to": life.raised_to,
        "raised_until": life.raised_until,
        "timezone": budget.timezone,
        "warn_at": budget.warn_at,
        "keeps": {scope: f"{share:f}" for scope, share in budget.shares},
        "carry_over": budget.carry_over,
        "source": life.source,
        "since": life.since,
        "state": life.state,
    }


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    raised = f"{currency.exact(row['raised_to'])} until {minute(row['raised_until'])}" if row["raised_to"] else None
    kept = ", ".join(f"{scope} {share}" for scope, share in row["keeps"].items())
    source = row["source"] if row["state"] == "active" else f"{row['state']} ({row['source']})"
    return {
        "scope": row["scope"], "window": row["window"], "limit": currency.exact(row["limit"]), "raised": raised,
        "warns at": row["warn_at"], "keeps": kept,
        "carries over": "all" if row["carry_over"] is True else row["carry_over"],
        "from": source, "since": minute(row["since"]),
    }  # fmt: skip


def _told(one: Decision) -> dict[str, str]:
    return {
        "at": minute(one.at), "action": one.action, "scope": one.scope, "window": one.window, "detail": one.detail,
        "source": one.source,
    }  # fmt: skip
