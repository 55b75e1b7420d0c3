"""``llm-cost prices update``: what newer prices would change for the models in use. Nothing is changed by it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.rules.bookings import BookingSums
from llm_cost_middleware.cli import tables
from llm_cost_middleware.cli.advise import configured_tiers
from llm_cost_middleware.cli.loading import err, open_ledger, out
from llm_cost_middleware.errors import ConfigurationError, PriceNotFoundError
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.genai import installed_version
from llm_cost_middleware.pricing.rates import Level
from llm_cost_middleware.reports.folding import bookings_of, told_of
from llm_cost_middleware.request import ModelRef

_PER_MTOK = 1e6


class PriceChange(NamedTuple):
    """A price of a model that two lists have differently."""

    model: str
    above: int
    """Input tokens above which it holds."""
    bucket: str
    before: str
    """US dollars a million tokens; ``none`` where there was no price."""
    after: str


def price_changes(models: Iterable[ModelRef], before: Catalogue, after: Catalogue, at: float) -> Iterator[PriceChange]:
    """Yield what differs between two lists for some models at a moment (seconds since the Unix epoch)."""
    for model in models:
        old, new = (_levels(catalogue, model, at) for catalogue in (before, after))
        for above in sorted({*old, *new}):
            for bucket in Level._fields[1:]:
                pair = [getattr(levels[above], bucket) if above in levels else None for levels in (old, new)]
                if pair[0] != pair[1]:
                    yield PriceChange(str(model), above, bucket, *(_usd(pico) for pico in pair))


def _levels(catalogue: Catalogue, model: ModelRef, at: float) -> dict[int, Level]:
    try:
        return {level.above: level for level in catalogue.rates(*model, at=at).levels}
    except PriceNotFoundError:
        return {}


def _usd(pico: int | None) -> str:
    return "none" if pico is None else f"{pico / _PER_MTOK:g}"


def models_in_use(config: Path | None, ledger: str | None) -> list[ModelRef]:
    """The models of the configured tiers, and those that the ledger has booked."""
    found = {arm.plain for tier in configured_tiers(config) for arm in tier.models}
    try:
        with open_ledger(config, ledger) as opened:
            found |= _booked(opened)
    except (ConfigurationError, typer.Exit):
        if ledger is not None:
            raise
    return sorted(found)


def _booked(ledger: Ledger) -> set[ModelRef]:
    memos = {booking.memo for booking in bookings_of(ledger, None, None, BookingSums(frozenset()))}
    told = (told_of(memo) for memo in memos if memo)
    return {ModelRef(one.provider, one.model) for one in told if one.provider}


def show_changes(
    config: Path | None, ledger: str | None, prices: Catalogue, at: float, *, network: bool | str, as_json: bool
) -> None:
    """Compare the prices in force with published ones, for the models in use."""
    models = models_in_use(config, ledger)
    if not network:
        err.print(
            f"The installed prices are genai-prices {installed_version()}; a newer one: pip install -U genai-prices. "
            "To look at what is published today, over the network: llm-cost prices update --network",
            markup=False,
        )
        raise typer.Exit(1)
    published = Catalogue(update_prices=network)
    if "~" not in published.version:  # the shipped snapshot stood in: the log says why
        err.print("The published prices could not be fetched; nothing was compared.", markup=False)
        raise typer.Exit(1)
    found = list(price_changes(models, prices.without_own(), published, at))
    if as_json:
        plain: dict[str, Any] = {
            "installed": prices.version, "published": published.version, "models": [str(model) for model in models],
            "changes": [change._asdict() for change in found],
        }  # fmt: skip
        out.print_json(json.dumps(plain))
        return
    if not found:
        tables.say(f"No price of the {len(models)} models in use differs from what is published today.")
        return
    columns = [*tables.names("model", "price of"), *tables.figures("prompt", "installed", "published")]
    rows = [
        [change.model, change.bucket, f"> {change.above:,}" if change.above else "", change.before, change.after]
        for change in found
    ]
    tables.show(columns, rows, title="US dollars a million tokens, of the models in use")
    tables.say("To use them: pip install -U genai-prices, or update_prices = true in llm-cost.toml (fetched at start).")
