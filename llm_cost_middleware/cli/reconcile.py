"""``llm-cost reconcile``: the ledger held against the usage and cost that a provider exports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.loading import ConfigOption, JsonOption, LedgerOption, open_ledger, out
from llm_cost_middleware.cli.prices import open_catalogue
from llm_cost_middleware.errors import ConfigurationError, PriceNotFoundError
from llm_cost_middleware.money import NanoUSD, ceil_picousd
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.reconcile.exports import days_of, read_export
from llm_cost_middleware.reconcile.matching import COST, DAY_S, REQUESTS, Difference
from llm_cost_middleware.reconcile.matching import reconcile as compare
from llm_cost_middleware.reconcile.proofs import Proof, proofs_of, settle, unsure_attempts
from llm_cost_middleware.reports.charges import charges_of
from llm_cost_middleware.system_clock import SystemClock


def reconcile(
    files: Annotated[list[Path], typer.Argument(help="Exports of Anthropic or OpenAI: usage, costs; JSON or CSV.")],
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    project: Annotated[
        str | None, typer.Option(help="Only the lines of this project or workspace, where the ledger is of it alone.")
    ] = None,
    *,
    settled: Annotated[
        bool, typer.Option("--settle", help="Correct unconfirmed attempts whose cost is proven, by new rows.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Hold the ledger against a provider's exports: what differs, by day, model, project and tier."""
    lines = [line for path in files for line in read_export(path) if project is None or line.project == project]
    if not lines:
        raise ConfigurationError("there is no line in it" + (f" of project {project!r}" if project else ""), key="FILE")
    first, end = days_of(lines)
    catalogue = open_catalogue(config)
    with open_ledger(config, ledger) as opened, tables.working("reading bookings"):
        # a day more on each side: what the ledger counts at midnight the provider may count on the day after
        charges = charges_of(opened, first - DAY_S, end + DAY_S)
        found = compare(lines, [charge for charge in charges if first <= charge.day < end])
        attempts = unsure_attempts(opened, first, end) if found.residuals else []
        proofs = list(proofs_of(found.residuals, attempts, catalogue, now=SystemClock().now()))
        if settled:
            settle(opened, proofs)
    if as_json:
        out.print_json(_json(found.differences, proofs, settled, catalogue))
    else:
        _show(found.differences, proofs, settled, catalogue)
        plural = "" if found.lines == 1 else "s"
        out.print(
            f"{found.lines:,} line{plural} of {'1 file' if len(files) == 1 else f'{len(files)} files'} compared at "
            f"{found.places:,} places, {len(found.shifted):,} shifted over midnight, "
            f"{len(found.differences):,} differences",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    if found.differences:
        raise typer.Exit(1)


def _show(differences: Sequence[Difference], proofs: Sequence[Proof], settled: bool, catalogue: Catalogue) -> None:
    if differences:
        rows = []
        for one in differences:
            place, money, worth = one.place, one.what == COST, _worth(one, catalogue)
            sign = "" if worth is None else "-" if worth < 0 else "+"
            shown = (currency.exact(NanoUSD(n)) if money else f"{n:,}" for n in (one.ledger, one.provider))
            rows.append([
                place.date, place.model or "(all)", place.tier or "(all)", one.what, *shown,
                sign if worth is None else f"{sign}{currency.amount(NanoUSD(abs(worth)))}", one.explained,
            ])  # fmt: skip
        names = [*tables.names("day", whole=True), *tables.names("model", "tier", "what")]
        tables.show(
            [*names, *tables.figures("ledger", "provider", "worth"), *tables.names("because")], rows,
            title="what differs, UTC days",
        )  # fmt: skip
    for proof in proofs:
        what = "was billed at" if proof.amount_nanousd else "was not billed:"
        actual, booked = currency.exact(proof.amount_nanousd), currency.exact(proof.booked_nanousd)
        done = "corrected" if settled else "--settle corrects it"
        out.print(
            f"{proof.id} ({proof.place.date}, {proof.place.model}) {what} {actual}, booked at {booked}: {done}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


def _worth(one: Difference, catalogue: Catalogue) -> int | None:
    """What the provider has more, in nano-dollars; of tokens at the price of the day, short contexts."""
    if one.what == COST:
        return one.more
    place = one.place
    if one.what == REQUESTS or place.model is None:
        return None
    tier = place.tier if place.tier not in {None, "standard", "batch"} else None
    try:
        rates = catalogue.rates(
            place.provider, place.model, place.day + 1, service_tier=tier, batch=place.tier == "batch"
        )
    except PriceNotFoundError:
        return None
    pico = getattr(rates.level(0), one.what) or 0
    return int(ceil_picousd(abs(one.more) * pico)) * (1 if one.more > 0 else -1)


def _json(differences: Sequence[Difference], proofs: Sequence[Proof], settled: bool, catalogue: Catalogue) -> str:
    def told(one: Difference) -> dict[str, Any]:
        money, worth = one.what == COST, _worth(one, catalogue)
        return {
            "provider": one.place.provider, "day": one.place.date, "model": one.place.model, "tier": one.place.tier,
            "project": one.place.project, "what": one.what,
            "ledger": f"{NanoUSD(one.ledger).usd:f}" if money else one.ledger,
            "reported": f"{NanoUSD(one.provider).usd:f}" if money else one.provider,
            "worth_usd": None if worth is None else f"{'-' if worth < 0 else ''}{NanoUSD(abs(worth)).usd:f}",
            "because": one.explained,
        }  # fmt: skip

    return json.dumps({
        "differences": [told(one) for one in differences],
        "proven": [
            {"id": one.id, "booked_usd": f"{one.booked_nanousd.usd:f}", "actual_usd": f"{one.amount_nanousd.usd:f}"}
            for one in proofs
        ],
        "settled": settled,
    })  # fmt: skip
