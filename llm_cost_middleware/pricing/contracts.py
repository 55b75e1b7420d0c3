"""Prices as contracts: discounts on the list price, by provider or model, for the term of a commitment.

As they stand in a configuration::

    [prices]
    discount = "5%"                        # of every list price

    [prices.discounts]
    anthropic = "15%"                      # of a provider
    "openai/gpt-5*" = { discount = "20%", valid_from = 2026-01-01, valid_until = 2027-01-01, committed = "50000" }

The most specific one holds: a model's, then its provider's, then the general one; of those alike the latest. Discounts
are of tokens: searches and fees of tools stay at the list price. A price of the user's own, ``[prices."openai/x"]``, is
what is paid, and is not discounted.

``committed`` is what was promised to be spent in the term, in US dollars at the price that is paid. It decides no
price: what is missing at the end is owed with the last invoice, whatever one call cost. ``reports.commitments`` counts
what is spent of it. A discount that begins once so much was spent is a line of its own, with the day of that
(``valid_from``): the provider decides it by its own count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction
from math import ceil, isfinite
from typing import Any, NamedTuple

from llm_cost_middleware.errors import ConfigurationError, InvalidAmountError, UnknownKeyError
from llm_cost_middleware.money import NanoUSD, floor_nanousd, multiply_usd
from llm_cost_middleware.natural_values import read_share
from llm_cost_middleware.pricing.rates import Level, Rates

DISCOUNT, DISCOUNTS = "discount", "discounts"
_PLACES = 12
_TERMS = ("discount", "valid_from", "valid_until", "committed")


class Contract(NamedTuple):
    """A discount of the list prices of some models, from one moment until another (seconds since the epoch)."""

    provider: str
    model: str
    share: Decimal
    start: float
    end: float
    committed: NanoUSD | None = None
    """What was promised to be spent from ``start`` to before ``end``."""

    @property
    def name(self) -> str:
        """As it stands in the configuration; empty for the general one."""
        return f"{self.provider}/{self.model}" if self.model else self.provider

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
        ConfigurationError: What is no discount, or two that begin at once. ``UnknownKeyError`` for an unknown key.
    """
    found = tuple(_contracts(prices, day))
    begins = [(one.name, one.start) for one in found]
    twice = next((one for index, one in enumerate(begins) if one in begins[:index]), None)
    if twice is not None:
        raise ConfigurationError("two discounts begin at once: which holds?", key=f"prices.discounts.{twice[0]}")
    return found


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
    share = _share(given["discount"], f"{key}.discount")
    start = day(given.get("valid_from"), float("-inf"), f"{key}.valid_from")
    end = day(given.get("valid_until"), float("inf"), f"{key}.valid_until")
    if start >= end:
        raise ConfigurationError("ends before it begins", key=f"{key}.valid_until")
    return Contract(provider, model.lower(), share, start, end, _committed(given, start, end, f"{key}.committed"))


def _share(value: Any, key: str) -> Decimal:
    """A share as it was written: a float would be another number."""
    share = Decimal(repr(read_share(value, key)))
    text = value.strip() if isinstance(value, str) else ""
    if text.endswith("%"):
        share = multiply_usd(Decimal(text.removesuffix("%").strip()), Decimal("0.01"))
    if (Fraction(share) * 10**_PLACES).denominator != 1:
        raise ConfigurationError(f"{value!r} has more than {_PLACES - 2} places", key=key)
    return share


def _committed(given: Mapping[str, Any], start: float, end: float, key: str) -> NanoUSD | None:
    if given.get("committed") is None:
        return None
    if not (isfinite(start) and isfinite(end)):
        raise ConfigurationError("needs a term: valid_from and valid_until", key=key)
    try:
        amount = floor_nanousd(given["committed"], what=key)
    except InvalidAmountError as error:
        raise ConfigurationError(f"{given['committed']!r}: {error.reason}", key=key) from None
    if not amount:
        raise ConfigurationError("promises nothing; leave it out", key=key)
    return amount


def discounted(rates: Rates, contracts: tuple[Contract, ...], at: float) -> Rates:
    """Return rates at the discount that holds at a moment; as they are without one."""
    active = [one for one in contracts if one.start <= at < one.end or (at == one.end == float("inf"))]
    if not active:
        return rates
    contract = max(active, key=lambda one: one.rank)
    paid = 1 - Fraction(contract.share)  # exact, whatever the caller's decimal context is

    def cheaper(level: Level) -> Level:
        token_prices: dict[str, Any] = {
            name: None if price is None else ceil(price * paid)
            for name, price in level._asdict().items()
            if name not in {"above", "web_searches"}
        }
        return level._replace(**token_prices)

    percent = f"{multiply_usd(contract.share, Decimal(100)):f}"
    shown = percent.rstrip("0").rstrip(".") if "." in percent else percent
    told = " ".join(filter(None, (contract.name, f"-{shown}%")))
    return replace(rates, levels=tuple(map(cheaper, rates.levels)), contract=told)
