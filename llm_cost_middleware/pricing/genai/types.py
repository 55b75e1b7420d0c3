"""What genai-prices writes its list with, for reading that list: its records by their names and fields, and no more.

Its own ``types`` build validators for a list from the network, with pydantic: a quarter of a second that the installed
list has no use for. A record or a field that is not known here is an error, and then the list is read as it is meant to
be (``pricing.genai``). The collector of garbage does not know these records: for fifteen thousand more of what it knows
it would go through all there is, 25 ms in which no other thread runs.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any

from msgspec import Struct

from llm_cost_middleware.event_loops import make_way

__all__ = (
    "ArrayMatch", "ClauseAnd", "ClauseContains", "ClauseEndsWith", "ClauseEquals", "ClauseOr", "ClauseRegex",
    "ClauseStartsWith", "ConditionalPrice", "ModelInfo", "ModelPrice", "PriceVariant", "Provider",
    "StartDateConstraint", "Tier", "TieredPrices", "TimeOfDateConstraint", "UsageExtractor", "UsageExtractorMapping",
)  # fmt: skip

_COMPACT_DATE = re.compile(r"-(20\d{2})(\d{2})(\d{2})$")


def dashed(model: str) -> str:
    """Return a name whose date is written with dashes: ``gpt-5-20250807`` as ``gpt-5-2025-08-07``."""
    return _COMPACT_DATE.sub(r"-\1-\2-\3", model)


def unread(**_: object) -> None:
    """Stand for a record that no price is made of."""


ArrayMatch = TimeOfDateConstraint = UsageExtractor = UsageExtractorMapping = unread


class ClauseStartsWith(Struct, frozen=True, gc=False):
    """As every clause: ``is_match`` is asked with a name in lower case."""

    starts_with: str

    def is_match(self, text: str) -> bool:
        """Whether a name begins so."""
        return text.startswith(self.starts_with.lower())


class ClauseEndsWith(Struct, frozen=True, gc=False):
    """An end of names."""

    ends_with: str

    def is_match(self, text: str) -> bool:
        """Whether a name ends so."""
        return text.endswith(self.ends_with.lower())


class ClauseContains(Struct, frozen=True, gc=False):
    """A part of names."""

    contains: str

    def is_match(self, text: str) -> bool:
        """Whether a name has this in it."""
        return self.contains.lower() in text


class ClauseRegex(Struct, frozen=True, gc=False):
    """A pattern of names."""

    regex: str

    def is_match(self, text: str) -> bool:
        """Whether a name has a place that the pattern fits."""
        return bool(re.search(self.regex, text))


class ClauseEquals(Struct, frozen=True, gc=False):
    """A name."""

    equals: str

    def is_match(self, text: str) -> bool:
        """Whether a name is this one."""
        return text == self.equals.lower()


class ClauseOr(Struct, frozen=True, gc=False):
    """Any of several clauses."""

    or_: list[Any]

    def is_match(self, text: str) -> bool:
        """Whether one of them matches."""
        return any(clause.is_match(text) for clause in self.or_)


class ClauseAnd(Struct, frozen=True, gc=False):
    """All of several clauses."""

    and_: list[Any]

    def is_match(self, text: str) -> bool:
        """Whether each of them matches."""
        return all(clause.is_match(text) for clause in self.and_)


class StartDateConstraint(Struct, frozen=True, gc=False):
    """The UTC day from which a price is valid."""

    start_date: date


class Tier(Struct, frozen=True, gc=False):
    """US dollars a million tokens from so many input tokens on."""

    start: int
    price: Decimal


class TieredPrices(Struct, frozen=True, gc=False):
    """A price that depends on how long the input is."""

    base: Decimal
    tiers: list[Tier]


ModelPrice = dict[str, Decimal | TieredPrices | None]
"""Prices by name, as many as a model has."""


class ConditionalPrice(Struct, frozen=True, gc=False):
    """Prices, and when they are valid."""

    prices: ModelPrice
    constraint: StartDateConstraint | None = None


class PriceVariant(Struct, frozen=True, gc=False):
    """What differs on another term."""

    when: dict[str, str]
    prices: ModelPrice
    constraint: StartDateConstraint | None = None


class ModelInfo(Struct, frozen=True, gc=False):
    """A model: its names and prices."""

    id: str
    match: Any
    name: str | None = None
    description: str | None = None
    context_window: int | None = None
    price_comments: str | None = None
    deprecated: bool | None = None
    prices: ModelPrice | list[ConditionalPrice] = []
    price_variants: list[PriceVariant] | None = None


class Provider(Struct, frozen=True, gc=False):
    """A provider and its models."""

    id: str
    name: str
    api_pattern: str
    pricing_urls: list[str] | None = None
    description: str | None = None
    price_comments: str | None = None
    model_match: Any = None
    provider_match: Any = None
    extractors: list[None] | None = None
    fallback_model_providers: list[str] | None = None
    models: list[ModelInfo] = []

    def __post_init__(self) -> None:
        """Let others run: a list has thousands of models."""
        make_way()

    def find_model(self, model: str) -> ModelInfo | None:
        """Return the first model that a name matches, as it is or with its date in dashes."""
        name = model.lower()
        names = dict.fromkeys((name, dashed(name)))
        return next((one for name in names for one in self.models if one.match.is_match(name)), None)
