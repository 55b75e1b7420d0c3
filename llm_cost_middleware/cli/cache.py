"""``llm-cost cache``: savings of prompt caching by prefix, and the causes of broken prefixes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from llm_cost_middleware.budget.backend import Journal
from llm_cost_middleware.cli.loading import ConfigOption, JsonOption, LedgerOption, as_utc, err, open_ledger, out
from llm_cost_middleware.money import format_usd
from llm_cost_middleware.prompt_cache.cache_report import PrefixReport, report_prefixes
from llm_cost_middleware.prompt_cache.site_report import SiteReport, report_sites
from llm_cost_middleware.prompt_cache.trace import KIND, Trace


def cache(
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    since: Annotated[datetime | None, typer.Option(help="Only calls from this UTC time on.")] = None,
    limit: Annotated[int, typer.Option(help="So many prefixes, the largest first.")] = 20,
    *,
    by_site: Annotated[bool, typer.Option("--by-site", help="Call sites alone: expected and read tokens.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show hit rate, money saved and wasted for each prefix and call site, and name what broke it."""
    moment = as_utc(since).timestamp() if since else None
    with open_ledger(config, ledger) as opened:
        if opened.journal is None:
            err.print("This ledger's storage keeps no journal, so nothing is known of prefixes.")
            raise typer.Exit(1)
        # Reports are made while the ledger is open: the journal is read line by line, not loaded.
        sites = report_sites(_traces(opened.journal, moment))
        reports = [] if by_site else report_prefixes(_traces(opened.journal, moment))
    if as_json:
        plain = [_plain_site(site) for site in sites] if by_site else [_plain(report) for report in reports]
        out.print_json(json.dumps(plain[:limit]))
        return
    if not sites:
        out.print("No call with a prompt long enough to cache has been recorded.")
        return
    out.print(_site_table(sites[:limit]))
    for site in sites[:limit]:
        for reason, times in site.causes.most_common(3):
            out.print(f"{site.site or '(no site)'} {site.target}: {reason} ({times} times)", highlight=False)
    if reports:
        out.print(_table(reports[:limit]))
        for report in reports[:limit]:
            for reason, times in report.breaks.most_common(3):
                # highlight=False: rich would colour the numbers and dates inside a reason.
                out.print(f"{report.prefix_id} {report.target}: {reason} ({times} times)", highlight=False)


def _traces(journal: Journal, since: float | None) -> Iterator[Trace]:
    return (Trace.decode(line.data, at=line.at, call_id=line.id) for line in journal.read(KIND, since))


def _site_table(sites: list[SiteReport]) -> Table:
    table = Table("call site", "model", title="cached tokens by call site")
    for column in ("calls", "expected", "read", "calls that read less"):
        table.add_column(column, justify="right")
    for site in sites:
        counts = (site.calls, site.expected_tokens, site.read_tokens, site.short_calls)
        table.add_row(site.site or "(no site)", str(site.target), *(f"{count:,}" for count in counts))
    return table


def _plain_site(site: SiteReport) -> dict[str, Any]:
    return {
        "site": site.site,
        "model": str(site.target),
        "calls": site.calls,
        "expected_tokens": site.expected_tokens,
        "read_tokens": site.read_tokens,
        "short_calls": site.short_calls,
        "causes": dict(site.causes.most_common()),
    }


def _table(reports: list[PrefixReport]) -> Table:
    table = Table("prefix", "model", title="prompt caches (US dollars)")
    for column in ("calls", "input tokens", "hit rate", "saved", "paid for writes", "net", "lost tokens"):
        table.add_column(column, justify="right")
    for report in reports:
        table.add_row(
            report.prefix_id,
            str(report.target),
            f"{report.calls:,}",
            f"{report.input_tokens:,}",
            f"{report.hit_rate:.1%}",
            format_usd(report.saved_nanousd),
            format_usd(report.paid_nanousd),
            format_usd(report.net_nanousd),
            f"{report.lost_tokens:,}",
        )
    return table


def _plain(report: PrefixReport) -> dict[str, Any]:
    return {
        "prefix": report.prefix_id,
        "model": str(report.target),
        "calls": report.calls,
        "input_tokens": report.input_tokens,
        "read_tokens": report.read_tokens,
        "written_tokens": report.written_tokens,
        "hit_rate": round(report.hit_rate, 4),
        "saved_usd": f"{report.saved_nanousd.usd:f}",
        "paid_for_writes_usd": f"{report.paid_nanousd.usd:f}",
        "net_usd": f"{report.net_nanousd.usd:f}",
        "lost_tokens": report.lost_tokens,
        "breaks": dict(report.breaks.most_common()),
    }
