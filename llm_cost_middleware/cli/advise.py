"""``llm-cost advise``: what would have cost less, from the ledger's own calls, each priced again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from llm_cost_middleware.advice import Advice, AdviceReport, advise
from llm_cost_middleware.advice.gathering import gather
from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.init import todays_tiers
from llm_cost_middleware.cli.loading import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    SinceOption,
    load_config,
    moment_of,
    open_ledger,
    out,
)
from llm_cost_middleware.cli.prices import open_catalogue
from llm_cost_middleware.config import says_anything
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.policy import Tier


def advise_(
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    since: SinceOption = "30d",
    limit: Annotated[int, typer.Option(min=1, help="So many, the dearest waste first.")] = 20,
    *,
    as_json: JsonOption = False,
) -> None:
    """Rank what would have saved how much: each call priced again, with the evidence and the lines to write."""
    moment = moment_of(since, "--since")
    catalogue, tiers = open_catalogue(config), configured_tiers(config)
    with open_ledger(config, ledger) as opened, tables.working("reading calls") as tell:
        evidence = gather(opened, catalogue, since=moment, tiers=tiers, successors=successors(tiers), progress=tell)
        report = advise(evidence)
    if as_json:
        shown = report._replace(advice=report.advice[:limit])
        out.print_json(json.dumps(shown.to_dict()))
        return
    show(report, limit)


def configured_tiers(path: Path | None) -> Sequence[Tier]:
    """The tiers of the configuration; none without one."""
    if path is None and not says_anything():
        return ()
    found = load_config(path)
    return found.tiers if found.routes else ()


def successors(tiers: Sequence[Tier]) -> Mapping[ModelRef, tuple[ModelRef, ...]]:
    """What follows each configured model in the dated tiers, where these have as many tiers."""
    todays = todays_tiers()
    found: dict[ModelRef, tuple[ModelRef, ...]] = {}
    if len(todays) == len(tiers):
        for tier, dated in zip(tiers, todays, strict=True):
            for model in tier.models:
                same = [other.plain for other in dated.models if other.provider == model.provider]
                found[model.plain] = tuple(other for other in same if other != model.plain)
    return found


def show(report: AdviceReport, limit: int) -> None:
    """Print a report for people."""
    if not report.calls:
        tables.empty("No call was booked in this time.", "Another stretch of time: --since 2026-10, --since 90d.")
        return
    spent = f"{report.calls:,} calls, {currency.amount(report.cost_nanousd)}"
    if not report.advice:
        tables.say(f"Nothing to advise: {spent}, and no kind of waste that is looked for.")
    else:
        columns = [
            *tables.names("kind", "call site", "model"),
            *tables.figures("calls", "cost", "saves", "saves\nin this order"),
        ]
        rows = [_row(one) for one in report.advice[:limit]]
        tables.show(columns, rows, title=f"what would have cost less, {currency.unit()}")
        for number, one in enumerate(report.advice[:limit], 1):
            _tell(number, one)
        tables.say(
            f"All of them in this order: {currency.amount(report.saved_nanousd)} of {spent}. Savings are priced call "
            "by call; what overlaps is counted once."
        )
    for note in report.notes:
        tables.say(note)


def _row(one: Advice) -> list[str]:
    money = map(currency.amount, (one.cost_nanousd, one.saved_nanousd, one.saved_in_order_nanousd))
    return [one.kind, one.site or "(all)", one.target, f"{one.calls:,}", *money]


def _tell(number: int, one: Advice) -> None:
    out.print(f"{number}. {one.told}.", markup=False)
    for line in one.lines:
        out.print(f"     {line}", markup=False, highlight=False, soft_wrap=True)  # it is copied: folded it is no TOML
    out.print(f"   Not known: {one.unknown}.", markup=False)
    if one.learn:
        out.print(f"   To learn it: {one.learn}.", markup=False)
    if one.examples:
        out.print(f"   Calls: {', '.join(one.examples)}", markup=False, highlight=False)
