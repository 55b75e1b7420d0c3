"""``llm-cost cache``: savings of prompt caching by prefix, and the causes of broken prefixes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from llm_cost_middleware.budget.backend import Journal
from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.loading import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    SinceOption,
    err,
    moment_of,
    open_ledger,
    out,
)
from llm_cost_middleware.prompt_cache.cache_report import PrefixReport, report_prefixes
from llm_cost_middleware.prompt_cache.site_report import SiteReport, report_sites
from llm_cost_middleware.prompt_cache.trace import KIND, Trace


def cache(
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, help="So many prefixes, the largest first.")] = 20,
    *,
    by_site: Annotated[bool, typer.Option("--by-site", help="Call sites alone: expected and read tokens.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show hit rate, money saved and wasted for each prefix and call site, and name what broke it."""
    moment = moment_of(since, "--since")
    with open_ledger(config, ledger) as opened:
        if opened.journal is None:
            err.print("This ledger's storage keeps no journal, so nothing is known of prefixes.")
            raise typer.Exit(1)
        # Reports are made while the ledger is open: the journal is read line by line, not loaded.
        sites = report_sites(tables.counted(_traces(opened.journal, moment), "reading calls"))
        traces = tables.counted(_traces(opened.journal, moment), "reading prefixes")
        reports = [] if by_site else report_prefixes(traces)
    if as_json:
        plain = [_plain_site(site) for site in sites] if by_site else [_plain(report) for report in reports]
        out.print_json(json.dumps(plain[:limit]))
        return
    if not sites:
        tables.empty(
            "No call with a prompt long enough to cache has been recorded.",
            "Prompts of about a thousand tokens and more that begin alike are cached: see [cache] in llm-cost.toml.",
        )
        return
    _show_sites(sites[:limit])
    for site in sites[:limit]:
        for reason, times in site.causes.most_common(3):
            tables.say(f"{site.site or '(no site)'} {site.target}: {reason} ({times} times)")
    if reports:
        _show(reports[:limit])
        for report in reports[:limit]:
            for reason, times in report.breaks.most_common(3):
                tables.say(f"{report.prefix_id} {report.target}: {reason} ({times} times)")


def _traces(journal: Journal, since: float | None) -> Iterator[Trace]:
    return (Trace.decode(line.data, at=line.at, call_id=line.id) for line in journal.read(KIND, since))


def _show_sites(sites: list[SiteReport]) -> None:
    columns = [
        *tables.names("call site", "model"), *tables.figures("calls", "expected", "read", "calls that\nread less"),
    ]  # fmt: skip
    rows = []
    for site in sites:
        counts = (site.calls, site.expected_tokens, site.read_tokens, site.short_calls)
        rows.append([site.site or "(no site)", str(site.target), *(f"{count:,}" for count in counts)])
    tables.show(columns, rows, title="cached tokens by call site")


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


def _show(reports: list[PrefixReport]) -> None:
    columns = [
        *tables.names("prefix", "model"),
        *tables.figures("calls", "input\ntokens", "hits", "saved", "paid for\nwrites", "net", "lost\ntokens"),
    ]
    rows = [
        [
            report.prefix_id, str(report.target), f"{report.calls:,}", f"{report.input_tokens:,}",
            f"{report.hit_rate:.1%}",
            *map(currency.amount, (report.saved_nanousd, report.paid_nanousd, report.net_nanousd)),
            f"{report.lost_tokens:,}",
        ]
        for report in reports
    ]  # fmt: skip
    tables.show(columns, rows, title=f"prompt caches by prefix, {currency.unit()}")


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
