"""Prices as contracts: discounts on the list price, by provider or model, for as long as a commitment lasts.

As they stand in a configuration::

    [prices]
    discount = "5%"                        # of every list price

    [prices.discounts]
    anthropic = "15%"                      # of a provider
    "openai/gpt-5*" = { discount = "20%", valid_from = 2026-01-01, valid_until = 2027-01-01 }

The most specific one holds: a model's, then its provider's, then the general one; of those alike the latest. Discounts
are of tokens: searches and fees of tools stay at the list price. A price of the user's own, ``[prices."openai/x"]``, is
what is paid, and is not discounted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import ROUND_CEILING, Decimal
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.natural_values import read_share
from llm_cost_middleware.pricing.rates import Level, Rates

DISCOUNT, DISCOUNTS = "discount", "discounts"
_TERMS = ("discount", "valid_from", "valid_until")


class Contract(NamedTuple):
    """A discount of the list prices of some models, from one moment until another (seconds since the epoch)."""

    provider: str
    model: str
    share: Decimal
    start: float
    end: float

    def covers(self, provider: str, model: str) -> bool:
        """Whether it is about a model, whenever."""
        return self.provider in {"", provider} and (not self.model or fnmatchcase(model, self.model))

    @property
    def rank(self) -> tuple[bool, bool, int, float]:
        """Which of several holds: the greatest."""
        return bool(self.model), bool(self.provider), len(self.model), self.start


def read_contracts(prices: Mapping[str, Any], day: Callable[[Any, float, str], float]) -> tuple[Contract, ...]:
    """Read the discounts of a ``[prices]`` table.

    Args:
        prices: The table.
        day: Reads a date, with a default and the name of its key.

    Raises:
        ConfigurationError: What is no discount. ``UnknownKeyError`` for an unknown key.
    """
    return tuple(_contracts(prices, day))


def _contracts(prices: Mapping[str, Any], day: Callable[[Any, float, str], float]) -> Iterator[Contract]:
    if (general := prices.get(DISCOUNT)) is not None:
        yield _contract("", general, "prices.discount", day)
    table = prices.get(DISCOUNTS) or {}
    if not isinstance(table, Mapping):
        raise ConfigurationError(
            f"must be a table such as {{'anthropic': '15%'}}, not {table!r}", key="prices.discounts"
        )
    for name, terms in table.items():
        for one in terms if isinstance(terms, list | tuple) else (terms,):
            yield _contract(str(name), one, f"prices.discounts.{name}", day)


def _contract(name: str, terms: Any, key: str, day: Callable[[Any, float, str], float]) -> Contract:
    given = terms if isinstance(terms, Mapping) else {"discount": terms}
    for term in given:
        if term not in _TERMS:
            raise UnknownKeyError(f"{key}.{term}", _TERMS)
    if "discount" not in given:
        raise ConfigurationError("needs a discount, such as '15%'", key=key)
    provider, _, model = name.partition("/")
    share = Decimal(repr(read_share(given["discount"], f"{key}.discount")))
    start = day(given.get("valid_from"), float("-inf"), f"{key}.valid_from")
    return Contract(provider, model.lower(), share, start, day(given.get("valid_until"), float("inf"), key))


def discounted(rates: Rates, contracts: tuple[Contract, ...], at: float) -> Rates:
    """Return rates at the discount that holds at a moment; as they are without one."""
    active = [one for one in contracts if one.start <= at < one.end or (at == one.end == float("inf"))]
    if not active:
        return rates
    contract = max(active, key=lambda one: one.rank)
    paid = 1 - contract.share

    def cheaper(level: Level) -> Level:
        token_prices: dict[str, Any] = {
            name: None if price is None else int((price * paid).to_integral_value(ROUND_CEILING))
            for name, price in level._asdict().items()
            if name not in {"above", "web_searches"}
        }
        return level._replace(**token_prices)

    percent = f"{contract.share * 100:f}"
    shown = percent.rstrip("0").rstrip(".") if "." in percent else percent
    return replace(rates, levels=tuple(map(cheaper, rates.levels)), discount=f"{shown}%")
