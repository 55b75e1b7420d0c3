"""``llm-cost report``: spending by model as a table, JSON, CSV or an HTML page."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated, Any

import typer

from llm_cost_middleware.cli.loading import ConfigOption, JsonOption, LedgerOption, as_utc, open_ledger, out
from llm_cost_middleware.cli.totals import Totals, of_rows, table_of
from llm_cost_middleware.money import NanoUSD, format_usd


def report(
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    scope: Annotated[str | None, typer.Option(help="Only one scope, such as user:42.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only what was booked from this UTC time on.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page to this file.")] = None,
    *,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Spending by model."""
    with open_ledger(config, ledger) as opened:
        totals = of_rows(opened.rows(as_utc(since) if since else None, scope))
    lines = [_line(name, totals) for name in sorted(totals, key=lambda name: -totals[name].cost_nanousd)]
    if as_json:
        out.print_json(json.dumps(lines))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, fieldnames=_FIELDS)  # not ``out``: rich would wrap long lines
        writer.writeheader()
        writer.writerows(lines)
    elif html is not None:
        html.write_text(page(totals, scope or "all scopes"), encoding="utf-8")
        out.print(f"wrote {html}")
    elif not totals:
        out.print("nothing was booked yet")
    else:
        out.print(table_of(totals, f"spent ({scope or 'all scopes'})"))
        for status, calls in _statuses(totals).items():
            if status != "exact":
                out.print(f"{calls:,} of these are {status}: see `llm-cost ledger unconfirmed`")


def page(totals: Totals, title: str) -> str:
    """Return a self-contained HTML page: the table, with a bar for each model's share."""
    # ``or NanoUSD(1)``: free calls alone would otherwise divide by zero.
    most = max((total.cost_nanousd for total in totals.values()), default=NanoUSD(1)) or NanoUSD(1)
    rows = []
    for name in sorted(totals, key=lambda name: -totals[name].cost_nanousd):
        line, share = _line(name, totals), totals[name].cost_nanousd * 100 // most
        cells = "".join(f"<td>{line[key]:,}</td>" for key in _FIELDS if key.endswith("tokens") or key == "calls")
        bar = f'<div class="bar" style="width:{share}%"></div>'
        cost = format_usd(totals[name].cost_nanousd)
        rows.append(f"<tr><th>{escape(name)}</th>{cells}<td>{cost}</td><td class=share>{bar}</td></tr>")
    whole = NanoUSD(sum(total.cost_nanousd for total in totals.values()))
    template = Template(files("llm_cost_middleware.cli").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        total=format_usd(whole),
        calls=f"{sum(total.calls for total in totals.values()):,}",
        rows="\n".join(rows) or "<tr><td colspan=8>nothing was booked yet</td></tr>",
        made=datetime.now(UTC).isoformat(sep=" ", timespec="minutes"),
    )


_FIELDS = (
    "model", "calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd",
)  # fmt: skip


def _line(name: str, totals: Totals) -> dict[str, Any]:
    total = totals[name]
    usage = total.usage
    values = (usage.input_tokens, usage.cache_read, usage.cache_write, usage.output_tokens)
    return dict(zip(_FIELDS, (name, total.calls, *values, f"{total.cost_nanousd.usd:f}"), strict=True))


def _statuses(totals: Totals) -> dict[str, int]:
    counts: dict[str, int] = {}
    for total in totals.values():
        for status, calls in total.statuses.items():
            counts[status] = counts.get(status, 0) + calls
    return counts
