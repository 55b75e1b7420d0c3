"""How the layers of one model's prices compose: its standard card at a moment, and the ways that terms vary it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.pricing.cards import PICO_PER_KCOUNT, Card, Price, Tiered, compile_rates, pico, scaled
from llm_cost_middleware.pricing.genai import Listing, Variant
from llm_cost_middleware.pricing.overlay import Block, merged
from llm_cost_middleware.pricing.rates import Level, Rates

_NEWEST = float("inf")
_FEES = {"web_search_call": "web_searches_kcount", "file_search_call": "storage_searches_kcount"}
_Key = tuple[int, str | None, str | None, str | None, bool]


class Terms(NamedTuple):
    """What decides a price besides the model and the time."""

    service_tier: str | None
    speed: str | None
    geo: str | None
    batch: bool


@dataclass(slots=True)
class Entry:
    """All that is known of one model, and what of it has been compiled."""

    provider: str
    id: str
    listing: Listing | None
    blocks: tuple[Block, ...]
    rules: Mapping[str, Any]
    breaks: tuple[float, ...]
    compiled: dict[_Key, Rates] = field(default_factory=dict)
    dearest: dict[_Key, Rates] = field(default_factory=dict)

    def may_become(self, what: str) -> tuple[str, ...]:
        """What a request that does not say may be served at: service tiers, places."""
        return tuple(self.rules.get("may_become", {}).get(what, ()))


def compose(entry: Entry, at: float, terms: Terms) -> Rates:
    """The rates of a model at a moment and on terms.

    Raises:
        PriceNotFoundError: No layer has a price at that moment.
    """
    standard = _standard(entry, at)
    if "input_mtok" not in standard:
        raise PriceNotFoundError(entry.provider, f"{entry.id} at that date")
    card = standard
    notes: list[str] = []
    for when in _ways(entry, terms):
        card, note = _vary(entry, at, when, card)
        notes.extend(note)
    if terms.service_tier in entry.rules.get("commitment", ()):
        notes.append(f"{terms.service_tier} capacity is a commitment: priced at the list price")
    factor = entry.rules.get("geo", {}).get(terms.geo)
    if factor and not entry.id.startswith(tuple(entry.rules.get("geo_free", ()))):
        card = _tokens_times(card, Decimal(factor))
    card = _with_rules(entry.rules, card)
    return compile_rates(entry.provider, entry.id, card, fees=_fees(card), notes=tuple(notes))


def tiers_for(entry: Entry, tier: str | None) -> Iterable[str | None]:
    """The service tiers that a request for ``tier`` may be served at, the standard one (``None``) among them."""
    yield None
    if tier and tier not in entry.rules.get("standard", ()):
        yield tier
    elif tier in (None, "auto"):
        known = {variant.when for variant in entry.listing.variants} if entry.listing else set()
        known |= {block.when for block in entry.blocks if block.when}
        yield from (t for t in entry.may_become("service_tier") if ("service_tier", t) in known)


def change_moments(listing: Listing | None, blocks: Iterable[Block]) -> tuple[float, ...]:
    """The moments at which any price of a model changes, ascending."""
    moments = {period.start for period in listing.periods} if listing else set()
    moments |= {variant.start for variant in listing.variants} if listing else set()
    for block in blocks:
        moments |= {block.start, block.end}
    return tuple(sorted(moments - {float("inf"), float("-inf")}))


def _active(entry: Entry, at: float, when: tuple[str, str] | None) -> Iterable[Block]:
    return (b for b in entry.blocks if b.when == when and b.start <= at and (at < b.end or b.end == _NEWEST))


def _standard(entry: Entry, at: float) -> Card:
    card: Card = entry.listing.standard(at) if entry.listing else {}
    for block in _active(entry, at, None):
        card = merged(card, block.card)
    return card


def _ways(entry: Entry, terms: Terms) -> Iterable[tuple[str, str]]:
    """The ways of processing, other than the standard one, that the terms name."""
    if terms.batch:
        yield ("processing", "batch")
    elif terms.service_tier and terms.service_tier not in entry.rules.get("standard", ()):
        yield ("service_tier", terms.service_tier)
    if terms.speed and terms.speed != "standard":
        yield ("speed", terms.speed)


def _vary(entry: Entry, at: float, when: tuple[str, str], card: Card) -> tuple[Card, tuple[str, ...]]:
    """``card`` at another way of processing, and a note where there is no price for it."""
    blocks = tuple(_active(entry, at, when))
    if blocks:
        for block in blocks:
            card = merged(card, block.card)
        return card, ()
    variants = [v for v in entry.listing.variants if v.when == when] if entry.listing else []
    if variants and entry.listing:
        # The day a variant was recorded is not the day it began: batch, flex and priority are older than that. Before
        # it, and where a layer above changed the standard price, the variant keeps its ratio to the standard price.
        variant = variants[0]
        return _in_ratio(card, entry.listing.standard(max(at, variant.start)), variant), ()
    if when == ("processing", "batch") and "batch" in entry.rules:
        return _tokens_times(card, Decimal(entry.rules["batch"])), ()
    return card, (f"no price for {when[0]}={when[1]} of {entry.id}: priced as standard",)


def _in_ratio(card: Card, reference: Card, variant: Variant) -> Card:
    out = dict(card)
    for key, price in variant.card.items():
        here, there = card.get(key), reference.get(key)
        if here == there or here is None or there is None:
            out[key] = price
        elif _base(there):
            ratio = Fraction(_base(price)) / Fraction(_base(there))
            out[key] = scaled(here, _exact(ratio))
    return out


def _base(price: Price) -> Decimal:
    return price.base if isinstance(price, Tiered) else price


def _exact(ratio: Fraction) -> Decimal:
    return Decimal(ratio.numerator) / Decimal(ratio.denominator)


def _tokens_times(card: Card, factor: Decimal) -> Card:
    return {key: scaled(price, factor) if key.endswith("_mtok") else price for key, price in card.items()}


def _with_rules(rules: Mapping[str, Any], card: Card) -> Card:
    """The card with what follows from the provider's price list where the model names no price of its own."""
    out = dict(card)
    if "cache_write_5m" in rules and "cache_write_mtok" not in out and "cache_write_5m_mtok" not in out:
        out["cache_write_mtok"] = scaled(out["input_mtok"], Decimal(rules["cache_write_5m"]))
    if "cache_write_1h" in rules:
        out.setdefault("cache_write_1h_mtok", scaled(out["input_mtok"], Decimal(rules["cache_write_1h"])))
    if "cache_write_12h" in rules and "cache_write_mtok" in out:
        out.setdefault("cache_write_12h_mtok", scaled(out["input_mtok"], Decimal(rules["cache_write_12h"])))
    if "web_searches_kcount" in rules:
        out.setdefault("web_searches_kcount", Decimal(rules["web_searches_kcount"]))
    return out


def _fees(card: Card) -> Mapping[str, int]:
    return {call: pico(_base(card[key]), PICO_PER_KCOUNT) for call, key in _FEES.items() if key in card}


def dearest_of(candidates: list[Rates]) -> Rates:
    """At each context length, every bucket at its dearest among the candidates."""
    first = candidates[0]
    starts = sorted({level.above for rates in candidates for level in rates.levels})
    levels = []
    for above in starts:
        rows = [rates.level(above + 1)[1:] for rates in candidates]
        tops = [max((v for v in column if v is not None), default=None) for column in zip(*rows, strict=True)]
        levels.append(Level(above, *tops))  # type: ignore[arg-type]  # only audio columns can be empty
    return Rates(first.provider, first.model, tuple(levels), first.fees)
