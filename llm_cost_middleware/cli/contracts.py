"""``llm-cost prices --contracts``: the discounts that are agreed, and how much of what was committed is spent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.loading import load_config, open_ledger, out
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.contracts import Contract
from llm_cost_middleware.reports import Commitment, commitments
from llm_cost_middleware.system_clock import SystemClock


def show_contracts(config: Path | None, ledger: str | None, *, as_json: bool) -> None:
    """Show every discount of the configuration; the ledger is opened where an amount was committed."""
    found, now = Catalogue(load_config(config).prices).contracts, SystemClock().now()
    standing: dict[Contract, Commitment] = {}
    if committed := [one for one in found if one.committed is not None]:
        with open_ledger(config, ledger) as opened:
            standing = dict(zip(committed, commitments(opened, committed, now), strict=True))
    if as_json:
        out.print_json(json.dumps({"contracts": [_row(one, standing.get(one)) for one in found]}))
        return
    if not found:
        tables.empty("no discount is agreed.", 'Write one: [prices.discounts] anthropic = "15%".')
        return
    columns = [
        *tables.names("contract"), *tables.figures("discount"), *tables.names("from", "until"),
        *tables.figures("committed", "spent", "left", "at this pace"),
    ]  # fmt: skip
    lines = []
    for one in found:
        known = standing.get(one)
        amounts: tuple[NanoUSD | None, ...] = (None,) * 4
        if known is not None:
            amounts = known.committed_nanousd, known.spent_nanousd, known.left_nanousd, known.course_nanousd
        share = f"{one.share * 100:f}".rstrip("0").rstrip(".")
        lines.append(
            [one.name or "everything", f"{share}%", _day(one.start), _day(one.end), *map(currency.amount, amounts)]
        )
    tables.show(columns, lines, title=f"contracts, {currency.unit()}, UTC")


def _row(one: Contract, known: Commitment | None) -> dict[str, str | None]:
    def usd(amount: NanoUSD | None) -> str | None:
        return None if amount is None else f"{amount.usd:f}"

    spent, unsure, left, course = (
        (known.spent_nanousd, known.unsure_nanousd, known.left_nanousd, known.course_nanousd) if known else (None,) * 4
    )
    return {
        "contract": one.name, "discount": f"{one.share:f}", "from": _day(one.start), "until": _day(one.end),
        "committed_usd": usd(one.committed), "spent_usd": usd(spent), "unsure_usd": usd(unsure),
        "left_usd": usd(left), "at_this_pace_usd": usd(course),
    }  # fmt: skip


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat() if isfinite(moment) else "-"
