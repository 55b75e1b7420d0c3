"""Composition of one model's price layers: its standard card at a moment, changed by the terms of the request."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf
from typing import Any, NamedTuple

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.pricing.cards import (
    PICO_PER_KCOUNT,
    Card,
    Price,
    TieredPrice,
    compile_rates,
    pico,
    scale_price,
)
from llm_cost_middleware.pricing.contracts import Contract
from llm_cost_middleware.pricing.genai import Listing, Variant
from llm_cost_middleware.pricing.overlay import PriceBlock, merge_cards
from llm_cost_middleware.pricing.rates import REQUEST_FEE, Level, Rates

NEWEST = float("inf")
"""Moment that stands for the newest price."""
_FEES = {
    "web_search_call": "web_searches_kcount",
    "web_search_preview_call": "web_search_previews_kcount",
    "file_search_call": "storage_searches_kcount",
    REQUEST_FEE: "requests_kcount",
}
_Key = tuple[int, str | None, str | None, str | None, bool]


class Terms(NamedTuple):
    """Conditions that decide a price beside model and time."""

    service_tier: str | None
    speed: str | None
    geo: str | None
    batch: bool


@dataclass(slots=True)
class PricedModel:
    """Price layers of one model, with the rates compiled so far."""

    provider: str
    id: str
    listing: Listing | None
    blocks: tuple[PriceBlock, ...]
    rules: Mapping[str, Any]
    breaks: tuple[float, ...]
    relatives: tuple[str, ...] = ()
    """Of an unlisted snapshot: every name of its family with a price, the one it is priced as first."""
    contracts: tuple[Contract, ...] = ()
    """Discounts of its list prices, whenever they hold."""
    factor: Decimal = Decimal(1)
    """What a platform's place costs beside the list prices."""
    notes: tuple[str, ...] = ()
    """Assumptions about the model, beside those of its price."""
    compiled: dict[_Key, Rates] = field(default_factory=dict)
    upper_bounds: dict[_Key, Rates] = field(default_factory=dict)

    def period(self, at: float) -> tuple[float, float]:
        """Return the moments between which the prices of a moment hold: from the first on, before the second."""
        later = bisect_right(self.breaks, at)
        since = self.breaks[later - 1] if later else -inf
        return since, self.breaks[later] if later < len(self.breaks) else inf

    def possible_terms(self, what: str) -> tuple[str, ...]:
        """Return the terms (service tiers, places) that apply to a request at the provider's choice."""
        return tuple(self.rules.get("may_become", {}).get(what, ()))


def compose(priced: PricedModel, at: float, terms: Terms) -> Rates:
    """Return the rates of a model at a moment and on terms.

    Raises:
        PriceNotFoundError: No layer has a price at that moment.
    """
    standard = _standard(priced, at)
    if "input_mtok" not in standard:
        raise PriceNotFoundError(priced.provider, f"{priced.id} at that date")
    card = standard
    notes: list[str] = []
    if priced.relatives:
        notes.append(f"a snapshot without a price of its own: priced as {priced.relatives[0]}")
    notes += priced.notes
    for when in _special_terms(priced, terms):
        card, note = _apply_term(priced, at, when, card)
        notes.extend(note)
    if terms.service_tier in priced.rules.get("commitment", ()):
        # Committed capacity is paid by contract; the list price is the closest known figure.
        notes.append(f"{terms.service_tier} capacity is a commitment: priced at the list price")
    factor = priced.rules.get("geo", {}).get(terms.geo)
    if factor and not priced.id.startswith(tuple(priced.rules.get("geo_free", ()))):
        card = _scale_token_prices(card, Decimal(factor))
    if priced.factor != 1:
        card = _scale_token_prices(card, priced.factor)
    card = _apply_list_rules(priced.rules, card)
    return compile_rates(priced.provider, priced.id, card, fees=_fees(card), notes=tuple(notes))


def possible_service_tiers(priced: PricedModel, tier: str | None) -> Iterable[str | None]:
    """Yield the service tiers that a request for ``tier`` may be served at, the standard one (``None``) first."""
    yield None
    if tier and tier not in priced.rules.get("standard", ()):
        yield tier
    elif tier in (None, "auto"):
        # Only tiers with a price of this model: without one, the standard price stands in for it anyway.
        known = {variant.when for variant in priced.listing.variants} if priced.listing else set()
        known |= {block.when for block in priced.blocks if block.when}
        yield from (t for t in priced.possible_terms("service_tier") if ("service_tier", t) in known)


def change_moments(listing: Listing | None, blocks: Iterable[PriceBlock | Contract]) -> tuple[float, ...]:
    """Return the moments at which any price of a model changes, ascending."""
    moments = {period.start for period in listing.periods} if listing else set()
    moments |= {variant.start for variant in listing.variants} if listing else set()
    for block in blocks:
        moments |= {block.start, block.end}
    return tuple(sorted(moments - {float("inf"), float("-inf")}))


def _active(priced: PricedModel, at: float, when: tuple[str, str] | None) -> Iterable[PriceBlock]:
    return (b for b in priced.blocks if b.when == when and b.start <= at and (at < b.end or b.end == NEWEST))


def _standard(priced: PricedModel, at: float) -> Card:
    card: Card = priced.listing.standard(at) if priced.listing else {}
    for block in _active(priced, at, None):
        card = merge_cards(card, block.card)
    return card


def _special_terms(priced: PricedModel, terms: Terms) -> Iterable[tuple[str, str]]:
    """Yield the terms that differ from standard processing."""
    if terms.batch:
        # A batch has its own price at any service tier, so the tier is not applied on top.
        yield ("processing", "batch")
    elif terms.service_tier and terms.service_tier not in priced.rules.get("standard", ()):
        yield ("service_tier", terms.service_tier)
    if terms.speed and terms.speed != "standard":
        yield ("speed", terms.speed)


def _apply_term(priced: PricedModel, at: float, when: tuple[str, str], card: Card) -> tuple[Card, tuple[str, ...]]:
    """Return ``card`` on another term, and a note if there is no price for it."""
    blocks = tuple(_active(priced, at, when))
    if blocks:
        for block in blocks:
            card = merge_cards(card, block.card)
        return card, ()
    variants = [v for v in priced.listing.variants if v.when == when] if priced.listing else []
    if variants and priced.listing:
        # The day a variant was recorded is not the day it began: batch, flex and priority are older than that. Before
        # it, and where a layer above changed the standard price, the variant keeps its ratio to the standard price.
        variant = variants[0]
        return _in_ratio(card, priced.listing.standard(max(at, variant.start)), variant), ()
    if when == ("processing", "batch") and "batch" in priced.rules:
        return _scale_token_prices(card, Decimal(priced.rules["batch"])), ()
    return card, (f"no price for {when[0]}={when[1]} of {priced.id}: priced as standard",)


def _in_ratio(card: Card, reference: Card, variant: Variant) -> Card:
    """Return the variant's card, scaled for every price in which ``card`` differs from ``reference``."""
    out = dict(card)
    for key, price in variant.card.items():
        here, there = card.get(key), reference.get(key)
        if here == there or here is None or there is None:
            out[key] = price
        elif _base(there):
            out[key] = scale_price(here, _base(price) / _base(there))
    return out


def _base(price: Price) -> Decimal:
    return price.base if isinstance(price, TieredPrice) else price


def _scale_token_prices(card: Card, factor: Decimal) -> Card:
    # Factors of a price list (batch, region) apply to tokens, not to fees per search or call.
    return {key: scale_price(price, factor) if key.endswith("_mtok") else price for key, price in card.items()}


def _apply_list_rules(rules: Mapping[str, Any], card: Card) -> Card:
    """Return the card with the provider's general rules for every price that the model does not name."""
    out = dict(card)
    if "cache_write_5m" in rules and "cache_write_mtok" not in out and "cache_write_5m_mtok" not in out:
        out["cache_write_mtok"] = scale_price(out["input_mtok"], Decimal(rules["cache_write_5m"]))
    if "cache_write_1h" in rules:
        out.setdefault("cache_write_1h_mtok", scale_price(out["input_mtok"], Decimal(rules["cache_write_1h"])))
    if "cache_write_12h" in rules and "cache_write_mtok" in out:
        out.setdefault("cache_write_12h_mtok", scale_price(out["input_mtok"], Decimal(rules["cache_write_12h"])))
    if "web_searches_kcount" in rules:
        out.setdefault("web_searches_kcount", Decimal(rules["web_searches_kcount"]))
    return out


def _fees(card: Card) -> Mapping[str, int]:
    fees = {call: pico(_base(card[key]), PICO_PER_KCOUNT) for call, key in _FEES.items() if key in card}
    if "web_search_call" in fees:  # of most models the preview of the tool costs the same
        fees.setdefault("web_search_preview_call", fees["web_search_call"])
    return fees


def highest_rates(candidates: list[Rates]) -> Rates:
    """Return rates with the highest price of every bucket, at each context length."""
    first = candidates[0]
    starts = sorted({level.above for rates in candidates for level in rates.levels})
    levels = []
    for above in starts:
        rows = [rates.level(above + 1)[1:] for rates in candidates]
        tops = [max((v for v in column if v is not None), default=None) for column in zip(*rows, strict=True)]
        levels.append(Level(above, *tops))  # type: ignore[arg-type]  # only audio columns can be empty
    fees = {kind: max(rates.fees.get(kind, 0) for rates in candidates) for rates in candidates for kind in rates.fees}
    return Rates(first.provider, first.model, tuple(levels), fees)
