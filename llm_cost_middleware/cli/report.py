"""``llm-cost report``: who spent what, by any dimension, over any time; a table, JSON, CSV, Parquet or a page."""

from __future__ import annotations

import sys
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

import typer

from llm_cost_middleware.budget.model import parse_scope
from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.loading import ConfigOption, JsonOption, LedgerOption, SinceOption, open_ledger, out
from llm_cost_middleware.cli.prices import open_catalogue
from llm_cost_middleware.dashboard import Source, standalone
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import ZERO
from llm_cost_middleware.reports import DIMENSIONS, Query, Report, ReportRow, make_report
from llm_cost_middleware.reports.query import Filter
from llm_cost_middleware.system_clock import SystemClock


def report(
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    by: Annotated[str, typer.Option(help=f"Dimensions: {', '.join(DIMENSIONS)}, or any kind of scope.")] = "model",
    over: Annotated[str | None, typer.Option(help="A line for each hour, day, week or month.")] = None,
    since: SinceOption = None,
    until: Annotated[
        str | None, typer.Option(help="Up to this local time; a day means its beginning: today.", metavar="TIME")
    ] = None,
    during: Annotated[
        str | None,
        typer.Option("--during", "--day", help="A period: yesterday, 2026-11, last month.", metavar="PERIOD"),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only these: tag=etl, model=claude-*, team!=ops; may be repeated.")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="Only one scope, such as user:42.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="So many lines, the dearest; the rest as one.")] = None,
    timezone: Annotated[str, typer.Option(help="Of days and times: an IANA name; the machine's without it.")] = "local",
    html: Annotated[Path | None, typer.Option(help="Write a page to this file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the lines to this Parquet file.")] = None,
    *,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Who spent what: llm-cost report --by team,model --over day --since yesterday --until today."""
    if sum((as_json, as_csv, html is not None, parquet is not None)) > 1:
        raise ConfigurationError("give one of --json, --csv, --html and --parquet: each is the whole output")
    if html is not None and top is not None:
        raise ConfigurationError("the page has lists of its own: --html takes no --top")
    query = Query.read(
        by, over=over, since=since, until=until, during=during, where=where or (), top=top, timezone=timezone,
        now=SystemClock().now,
    )  # fmt: skip
    if scope is not None:
        query = _of_scope(query, scope)
    with open_ledger(config, ledger) as opened:
        if html is not None:
            source = Source(opened, open_catalogue(config), now=SystemClock().now, timezone=timezone)
            with tables.working("reading bookings"):
                text = standalone(source.document(_address(by, over, since, until, during, where, scope)))
            html.write_text(text, encoding="utf-8")
            out.print(f"wrote {html}")
            return
        with tables.working("reading bookings") as tell:
            found = make_report(opened, query, catalogue=open_catalogue(config), progress=tell)
    if as_json:
        out.print_json(found.to_json())
    elif as_csv:
        sys.stdout.write(found.to_csv())  # not ``out``: rich would wrap long lines
    elif parquet is not None:
        found.to_parquet(parquet)
        out.print(f"wrote {parquet}")
    else:
        _show(found, query)


def _address(
    by: str,
    over: str | None,
    since: str | None,
    until: str | None,
    during: str | None,
    where: list[str] | None,
    scope: str | None,
) -> dict[str, list[str]]:
    """The parameters of the page that this report is."""
    named = {"by": by, "over": over, "since": since, "until": until, "during": during}
    given = {name: [value] for name, value in named.items() if value is not None}
    if not {"since", "until", "during"} & given.keys():
        given["since"] = ["all"]  # as the tables: everything, where no time is named
    kind, _, name = (parse_scope(scope) if scope is not None else "").partition(":")
    return {**given, "where": list(where or ()), **({"only": [f"{kind}={unquote(name)}"]} if name else {})}


def _of_scope(query: Query, scope: str) -> Query:
    kind, _, name = parse_scope(scope).partition(":")
    if not name:  # global: every call is in it
        return query
    return replace(query, where=(*query.where, Filter(kind, (escape(unquote(name)),), keep=True)))


def _show(found: Report, query: Query) -> None:
    if not found.rows:
        narrowed = query.since is not None or query.until is not None or query.where
        if narrowed:
            tables.empty("nothing was booked in this time and by these filters.", "Without --since and --where?")
        else:
            tables.empty("nothing was booked yet.", "llm-cost demo makes some calls; README: guard a chain.")
        for note in found.notes:
            tables.say(note)
        return
    shown = _measures(found)
    columns = [*(tables.Column(_head(name)) for name in found.columns), *(column for _, column in shown)]

    def cells(row: ReportRow) -> list[str]:
        told = row.measures()
        return [_cell(name, told[name]) for name, _ in shown]

    rows = [[*map(_name, row.keys, found.columns), *cells(row)] for row in found]
    blank = [""] * (len(found.columns) - 1)
    if found.shared.sums.calls:  # so that the column adds up
        less = [
            f"-{cell}" if cell not in {"0", "-", currency.amount(ZERO)} else cell
            for cell in cells(ReportRow((), found.shared.sums))
        ]
        rows.append(["(in several lines)", *blank, *less])
    first = ["total", *blank] if found.columns else []
    tables.show(columns, rows, title=_title(found, query), total=[*first, *cells(found.total)])
    _tell_doubts(found)


_COLUMNS = (
    ("calls", "calls", False), ("input_tokens", "input", False), ("cache_read_tokens", "cache\nread", True),
    ("cache_write_tokens", "cache\nwrite", True), ("output_tokens", "output", False), ("cost_usd", "cost", False),
    ("refused_calls", "refused", True), ("cache_saving_usd", "saved by\ncaching", True),
    ("routing_saving_usd", "saved by\nrouting", True), ("list_usd", "list\nprice", True),
)  # fmt: skip
"""Measures of the table, their heads, and whether they are left out where they are zero or there is no room."""


def _measures(found: Report) -> list[tuple[str, tables.Column]]:
    told = [row.measures() for row in (*found.rows, found.total)]
    return [
        (name, tables.Column(head, figures=True, optional=optional))
        for name, head, optional in _COLUMNS
        if not optional or any(one[name] for one in told)
    ]


def _cell(name: str, value: Any) -> str:
    if name.endswith("_usd"):
        return currency.amount(value)
    return "-" if value is None else f"{value:,}"


def _tell_doubts(found: Report) -> None:
    sums = found.total.measures()
    for name, what in (("estimated_usd", "estimated"), ("unconfirmed_usd", "unconfirmed")):
        if sums[name]:
            tables.say(f"{currency.amount(sums[name])} of it is {what}: see `llm-cost ledger unconfirmed`")
    if sums["unpriced_calls"]:
        tables.say(f"{sums['unpriced_calls']:,} calls have no price and are not in it: `llm-cost ledger unconfirmed`")
    for note in found.notes:
        tables.say(note)


def _head(name: str) -> str:
    return name.replace("_", " ")


def _name(key: str | None, dimension: str) -> str:
    return f"(no {_head(dimension)})" if key is None else key


def _title(found: Report, query: Query) -> str:
    what = ", ".join(_head(name) for name in found.columns) or "everything"
    times = [
        f"{word} {tables.when(moment)}"
        for word, moment in (("from", found.since), ("to", found.until))
        if moment is not None
    ]
    zone = "local time" if query.zone is None else str(query.zone)
    return f"spent by {what}{', ' if times else ''}{' '.join(times)}{f' ({zone})' if times or query.over else ''}"
