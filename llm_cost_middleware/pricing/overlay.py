"""Dated price blocks over the main source: the package's own overlay, and what the user's configuration overrides.

Both are append-only data of one form::

    [prices."openai/my-finetune"]          # or a list of such tables, with valid_from
    input_mtok = "1.10"                    # USD a million tokens
    output_mtok = "4.40"
    valid_from = 2026-01-01                # from that day, UTC, on; without it, always
    tiers = [{ above = 200000, input_mtok = "2.20" }]
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, NamedTuple

from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.money import DisplayCurrency, parse_usd
from llm_cost_middleware.natural_values import read_flag
from llm_cost_middleware.pricing.cards import KEYS, Card, Price, TieredPrice
from llm_cost_middleware.pricing.contracts import DISCOUNT, DISCOUNTS, Contract, read_contracts
from llm_cost_middleware.pricing.display_currency import CURRENCY, RATE, read_display_currency

_WHEN: Mapping[str, Callable[[Any], tuple[str, str]]] = {
    "service_tier": lambda tier: ("service_tier", str(tier)),
    "speed": lambda speed: ("speed", str(speed)),
    "batch": lambda _: ("processing", "batch"),
}
_ABOUT = ("model", "valid_from", "valid_until", "tiers", "same_as", "source", "checked", *_WHEN)
_NEVER, _ALWAYS = float("inf"), float("-inf")
_NEVER_LOOKED = 0.0


class PriceBlock(NamedTuple):
    """Prices of one model from one moment until another, on standard or other terms."""

    provider: str
    model: str
    start: float
    """First moment at which the block holds, in seconds since the epoch."""
    end: float
    when: tuple[str, str] | None
    card: Card
    same_as: str | None


class Overlay(NamedTuple):
    """Set of blocks, with a digest that changes when any of them does."""

    blocks: tuple[PriceBlock, ...]
    rules: Mapping[str, Mapping[str, Any]]
    digest: str
    contracts: tuple[Contract, ...] = ()
    currency: DisplayCurrency | None = None
    checked: float = _NEVER_LOOKED
    """When a price in it was last looked at, seconds since the Unix epoch."""


@cache
def packaged() -> Overlay:
    """Return the overlay in the package."""
    raw = files(__package__).joinpath("overlay.toml").read_bytes()
    data = tomllib.loads(raw.decode())
    blocks = tuple(_block(str(entry.get("model")), entry, "overlay.toml") for entry in data["price"])
    checked = max(_day(entry["checked"], _NEVER_LOOKED, "overlay.toml") for entry in data["price"])
    return Overlay(blocks, MappingProxyType(data["rules"]), _digest(raw), checked=checked)


def configured(prices: Mapping[str, Any] | None) -> Overlay:
    """Read the ``[prices]`` table of a configuration.

    Raises:
        ConfigurationError: Invalid price or date, or a name without its provider.
        UnknownKeyError: Unknown key; the message names the nearest known one.
    """
    currency = read_display_currency(prices or {})
    # In what amounts are shown is no price: the version of the prices is the same with it.
    prices = {name: value for name, value in (prices or {}).items() if name not in {CURRENCY, RATE}}
    blocks, contracts = tuple(_configured(prices)), read_contracts(prices, _day)
    raw = json.dumps(prices, sort_keys=True, default=str) if prices else ""
    return Overlay(blocks, MappingProxyType({}), _digest(raw.encode()) if prices else "none", contracts, currency)


def _configured(prices: Mapping[str, Any]) -> Iterator[PriceBlock]:
    for model, entries in prices.items():
        if model in {DISCOUNT, DISCOUNTS, CURRENCY, RATE}:
            continue
        if not isinstance(model, str):
            raise ConfigurationError(f'expected "provider/model", not {model!r}', key="prices")
        for entry in entries if isinstance(entries, list | tuple) else [entries]:
            if not isinstance(entry, Mapping):
                form = "{'input_mtok': 1.10, 'output_mtok': 4.40}, US dollars a million tokens"
                raise ConfigurationError(f"expected a table such as {form}, not {entry!r}", key=f"prices.{model}")
            yield _block(model, entry, f"prices.{model}")


def _block(model: str, entry: Mapping[str, Any], where: str) -> PriceBlock:
    provider, slash, name = model.partition("/")
    if not slash or not name:
        raise ConfigurationError(f'expected "provider/model", such as "openai/{model}"', key=where)
    for key in entry:
        if key not in KEYS and key not in _ABOUT:
            raise UnknownKeyError(f"{where}.{key}", (*KEYS, *_ABOUT))
    for key in ("service_tier", "speed", "same_as"):
        if not isinstance(entry.get(key, ""), str):
            raise ConfigurationError(f"must be a word, not {entry[key]!r}", key=f"{where}.{key}")
    read_flag(entry.get("batch", False), f"{where}.batch")
    when = next((_WHEN[key](entry[key]) for key in _WHEN if entry.get(key)), None)
    return PriceBlock(
        provider,
        name.lower(),
        _day(entry.get("valid_from"), _ALWAYS, f"{where}.valid_from"),
        _day(entry.get("valid_until"), _NEVER, f"{where}.valid_until"),
        when,
        MappingProxyType(dict(_card(entry, where))),
        entry.get("same_as"),
    )


def _card(entry: Mapping[str, Any], where: str) -> Iterator[tuple[str, Price]]:
    steps: Sequence[Mapping[str, Any]] = entry.get("tiers", ())
    if not isinstance(steps, list | tuple) or not all(
        isinstance(step, Mapping) and type(step.get("above")) is int for step in steps
    ):
        raise ConfigurationError("a tier needs above = (input tokens)", key=f"{where}.tiers")
    for key in sorted(KEYS & (set(entry) | {key for step in steps for key in step})):
        base = read_price(entry[key], f"{where}.{key}") if key in entry else None
        higher = tuple((int(step["above"]), read_price(step[key], f"{where}.{key}")) for step in steps if key in step)
        if higher:
            # A base below zero means "inherit": prices cannot be negative, and the layer below has the base.
            yield key, TieredPrice(Decimal(-1) if base is None else base, tuple(sorted(higher)))
        elif base is not None:
            yield key, base


def merge_cards(below: Card, above: Card) -> Card:
    """Return ``below`` overridden by ``above``, key by key; a tiered price without a base inherits it."""
    card = dict(below)
    for key, price in above.items():
        if isinstance(price, TieredPrice) and price.base < 0:
            base = card.get(key, Decimal(0))
            card[key] = TieredPrice(base.base if isinstance(base, TieredPrice) else base, price.steps)
        else:
            card[key] = price
    return card


_MOST_USD = Decimal(10**9)
"""A price above it was meant in another unit; the dearest model costs some hundred dollars a million tokens."""


def read_price(value: Any, where: str) -> Decimal:
    """A price of a million tokens, US dollars, as stated under a key. Raises ``ConfigurationError``."""
    price = parse_usd(value, what=where)
    if price > _MOST_USD:
        raise ConfigurationError(f"{value!r}: no price is above a thousand million US dollars", key=where)
    return price


def _day(value: Any, default: float, where: str) -> float:
    if value is None:
        return default
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ConfigurationError(f"{value!r} is not a date; write 2026-01-31", key=where) from None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    raise ConfigurationError(f"{value!r} is not a date; write 2026-01-31", key=where)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:8]
