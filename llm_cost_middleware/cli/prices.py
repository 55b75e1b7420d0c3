"""``llm-cost prices``: price list of every model on a day, from the catalogue that the ledger uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_cost_middleware.cli import tables
from llm_cost_middleware.cli.contracts import show_contracts
from llm_cost_middleware.cli.loading import ConfigOption, JsonOption, LedgerOption, load_config, out
from llm_cost_middleware.config import says_anything
from llm_cost_middleware.errors import ConfigurationError, PriceNotFoundError
from llm_cost_middleware.periods import read_moment
from llm_cost_middleware.platform import PLATFORMS
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.rates import Level, Rates
from llm_cost_middleware.pricing.retirements import SOON_DAYS, find_retirement
from llm_cost_middleware.providers import NAMES, get_provider, provider_of
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.system_clock import SystemClock

_PER_MTOK = Decimal(10**6)
OLD_DAYS = 90
"""Days after which prices that nobody has looked at are called old; an alert of one's own: ``old_prices``."""
_WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("standard", {}),
    ("batch", {"batch": True}),
    ("flex", {"service_tier": "flex"}),
    ("priority", {"service_tier": "priority"}),
    ("ultrafast", {"service_tier": "ultrafast"}),
    ("fast", {"speed": "fast"}),
    ("in the US", {"geo": "us"}),
)


def prices(
    model: Annotated[
        str | None, typer.Argument(help="A model, or a part of its name; all without one. update: what is newer.")
    ] = None,
    config: ConfigOption = None,
    at: Annotated[str | None, typer.Option(help="A day, such as 2026-01-31. Today without it.", metavar="DAY")] = None,
    ledger: LedgerOption = None,
    *,
    contracts: Annotated[
        bool, typer.Option("--contracts", help="The discounts, and what is committed and spent.")
    ] = False,
    network: Annotated[
        bool, typer.Option("--network", help="With update: fetch the prices that are published.")
    ] = False,
    url: Annotated[str, typer.Option(help="With update: fetch them from here.", metavar="URL")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show what models charge, in US dollars a million tokens; one model with every way it can be served."""
    if contracts:
        show_contracts(config, ledger, as_json=as_json)
        return
    if model != "update" and (ledger is not None or network or url):
        raise ConfigurationError("--ledger goes with --contracts or update, --network and --url with update")
    catalogue = open_catalogue(config)
    moment = SystemClock().now() if at is None else read_moment(at, "--at", now=SystemClock().now, zone=UTC)
    if model == "update":
        from llm_cost_middleware.cli.price_changes import show_changes

        show_changes(config, ledger, catalogue, moment, network=url or network, as_json=as_json)
        return
    exact = _named(catalogue, behind(model, config)) if model else None
    if exact is not None:
        rows = [row for way, terms in _WAYS for row in _rows(catalogue, *exact, moment, way, terms)]
    else:
        listed = [(name, m) for name in NAMES for m in catalogue.models(name)]
        found = [one for one in (*listed, *_of_platforms(config)) if not model or model.lower() in one[1]]
        if not found:
            known = [m for name in NAMES for m in catalogue.models(name)]
            platform, _, name = str(model).partition("/")
            if platform in PLATFORMS:
                raise PriceNotFoundError(platform, name, known)
            provider = provider_of(str(model)) or "PROVIDER"  # a section that can be copied, not one that says "any"
            raise PriceNotFoundError(provider, str(model), known)
        rows = [row for name, m in found for row in _rows(catalogue, name, m, moment, "standard", {})]
    told = _retirements(rows, moment, every=exact is not None)
    if as_json:
        out.print_json(json.dumps({"prices": catalogue.version, "at": _day(moment), "models": rows}))
        return
    _show(rows, f"US dollars a million tokens on {_day(moment)}", served=exact is not None)
    for line in told:
        tables.say(line)
    age = None if catalogue.looked_at is None else int((moment - catalogue.looked_at) // 86_400)
    old = f"; looked at {age} days ago: llm-cost prices update" if age is not None and age > OLD_DAYS else ""
    tables.say(f"{catalogue.version}{old}")


def _retirements(rows: list[dict[str, Any]], at: float, *, every: bool) -> list[str]:
    """The models of a list that are retired soon, or at all; each row is told the day."""
    lines: dict[str, str] = {}
    for row in rows:
        found = find_retirement(*row["model"].split("/", 1))
        row["retires"] = found.day.isoformat() if found is not None else None
        if found is not None and (every or 0 <= found.days_left(at) <= SOON_DAYS):
            lines[row["model"]] = f"{row['model'].partition('/')[2]} {found.told(at)}"
    return list(lines.values())


def open_catalogue(config: Path | None) -> Catalogue:
    """Return the catalogue of the configuration; without one, the packaged prices.

    Raises:
        ConfigurationError: Unreadable configuration.
    """
    if not _is_there(config):
        return Catalogue()
    found = load_config(config)
    return Catalogue(found.prices, update_prices=found.update_prices)


def _is_there(config: Path | None) -> bool:
    return config is not None or says_anything()


def _of_platforms(config: Path | None) -> list[ModelRef]:
    """The targets at platforms that a configuration names: of its tiers, and behind its deployments."""
    if not _is_there(config):
        return []
    found = load_config(config)
    behind = (section.target(wire) for section in found.platforms.values() for wire in section.deployments)
    tiers = (target.plain for tier in found.tiers for target in tier.models if target.provider in PLATFORMS)
    return sorted({*behind, *tiers})


def behind(model: str, config: Path | None) -> str:
    """What a call of a name costs as: of a platform, the model of the deployment that is configured by it."""
    platform, _, wire = model.partition("/")
    if platform not in PLATFORMS or not _is_there(config):
        return model
    return str(load_config(config).platforms[platform].target(wire))


def _named(catalogue: Catalogue, model: str) -> tuple[str, str] | None:
    """Return provider and catalogue name of an exact model name; ``None`` for a part of a name."""
    provider, slash, name = model.partition("/")
    # A name without its provider is tried at each: no model of one is a model of the other.
    for candidate, ref in ((provider, name),) if slash else tuple((known, model) for known in NAMES):
        try:
            return candidate, catalogue.rates(candidate, ref).model
        except PriceNotFoundError:
            continue
    return None


def _rows(
    catalogue: Catalogue, provider: str, model: str, at: float, way: str, terms: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    try:
        rates = catalogue.rates(provider, model, at=at, **terms)
    except PriceNotFoundError:
        return
    # A note means that there is no price for these terms: then the standard price would be shown twice.
    if terms and (rates.notes or rates.levels == catalogue.rates(provider, model, at=at).levels):
        return  # not offered, or the same price
    for level in rates.levels:
        yield {"model": f"{provider}/{model}", "served": way, "above": level.above, **_usd(rates, level)}


def _usd(rates: Rates, level: Level) -> dict[str, str | None]:
    """Return a level in dollars per million tokens, without writes at the price of plain input."""

    def usd(pico: int | None) -> str | None:
        return None if pico is None else f"{(pico / _PER_MTOK).normalize():f}"

    def write(pico: int) -> str | None:
        return usd(pico) if pico > level.uncached_input else None

    # A level has a rate for every lifetime, also for those that the model does not offer.
    lifetimes = get_provider(rates.provider).cache_capabilities(rates.model).ttls
    searches = level.web_searches or rates.fees.get("web_search_call")
    return {
        "input": usd(level.uncached_input),
        "cache_read": usd(level.cache_read),
        "cache_write_5m": write(level.cache_write_5m) if "5m" in lifetimes else None,
        "cache_write_1h": write(level.cache_write_1h) if "1h" in lifetimes else None,
        "cache_write_30m": write(level.cache_write_30m) if "30m" in lifetimes else None,
        "output": usd(level.output),
        "audio_input": usd(level.audio_input),
        "audio_output": usd(level.audio_output),
        "web_searches_per_1000": f"{(searches / Decimal(10**9)).normalize():f}" if searches else None,
    }


def _show(rows: list[dict[str, Any]], title: str, *, served: bool) -> None:
    columns = [*tables.names("model", *(["served"] if served else []))]
    columns += tables.figures("prompt", "input", "cached", "write", "1h write", "output", sparse=True)
    lines = []
    for row in rows:
        prompt = f"> {row['above'] // 1_000}k" if row["above"] else ""
        write = row["cache_write_5m"] or row["cache_write_30m"]
        cells = [prompt, row["input"], row["cache_read"], write, row["cache_write_1h"], row["output"]]
        lines.append([row["model"], *([row["served"]] if served else []), *(_money(cell) for cell in cells)])
    tables.show(columns, lines, title=title)


def _money(text: str | None) -> str:
    """Pad to two decimals, so that columns line up; a dash for a missing price."""
    if text is None:
        return "-"
    whole, dot, fraction = text.partition(".")
    return f"{whole}.{fraction.ljust(2, '0')}" if dot or whole.isdigit() else text


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()
