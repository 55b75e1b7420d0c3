"""Price cards: the common form of every price source, compiled to ``Rates``.

A card holds a model's prices at one moment, in US dollars per million tokens, under genai-prices' names
(``input_mtok``, ``cache_read_mtok`` …). Layers of blocks override one another, the later over the earlier, key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple

from llm_cost_middleware.pricing.rates import Level, Rates

PICO_PER_MTOK = Decimal(10**6)
"""USD per million tokens to pico-dollars per token."""
PICO_PER_KCOUNT = Decimal(10**9)
"""USD per thousand calls to pico-dollars per call."""


class TieredPrice(NamedTuple):
    """Price by context length: the last step whose threshold the input exceeds applies to every token."""

    base: Decimal
    steps: tuple[tuple[int, Decimal], ...]

    def at(self, above: int) -> Decimal:
        """Return the price for more than ``above`` input tokens (and not more than the next step)."""
        price = self.base
        for start, stepped in self.steps:
            if above >= start:
                price = stepped
        return price


Price = Decimal | TieredPrice
Card = Mapping[str, Price]

KEYS = frozenset(
    {
        "input_mtok",
        "cache_read_mtok",
        "cache_write_mtok",
        "cache_write_5m_mtok",
        "cache_write_1h_mtok",
        "cache_write_12h_mtok",
        "output_mtok",
        "input_audio_mtok",
        "cache_audio_read_mtok",
        "output_audio_mtok",
        "web_searches_kcount",
        "web_search_previews_kcount",
        "requests_kcount",
        "storage_searches_kcount",
    }
)
FALLBACK: Mapping[str, tuple[str, ...]] = {
    "cache_read_mtok": ("input_mtok",),
    "cache_write_5m_mtok": ("cache_write_mtok", "input_mtok"),
    "cache_write_1h_mtok": ("cache_write_mtok", "input_mtok"),
    "cache_write_30m_mtok": ("cache_write_mtok", "input_mtok"),
    "cache_write_12h_mtok": ("cache_write_mtok", "input_mtok"),
    "cache_audio_read_mtok": ("input_audio_mtok",),
}
"""Prices to use for a missing one, most specific first: a write without its own price is plain input."""


def scale_price(price: Price, factor: Decimal) -> Price:
    """Return ``price`` times ``factor``, at every context length."""
    if isinstance(price, TieredPrice):
        return TieredPrice(price.base * factor, tuple((start, step * factor) for start, step in price.steps))
    return price * factor


def compile_rates(
    provider: str, model: str, card: Card, *, fees: Mapping[str, int], notes: tuple[str, ...] = ()
) -> Rates:
    """Compile a card to integer rates. Fractions of a pico-dollar are rounded up."""
    # One level per threshold of any price, so that a level is a plain row of numbers when a cost is computed.
    starts = {0} | {start for price in card.values() if isinstance(price, TieredPrice) for start, _ in price.steps}
    levels = tuple(_level(card, above) for above in sorted(starts))
    return Rates(provider, model, levels, fees, notes)


def _level(card: Card, above: int) -> Level:
    def usd(key: str) -> Decimal | None:
        for name in (key, *FALLBACK.get(key, ())):
            price = card.get(name)
            if price is not None:
                return price.at(above) if isinstance(price, TieredPrice) else price
        return None

    def tokens(key: str) -> int:
        return pico(usd(key) or Decimal(0))

    def audio(key: str) -> int | None:
        # Unknown is never zero: a missing audio price must refuse the call, not make audio free.
        price = usd(key)
        return None if price is None else pico(price)

    return Level(
        above=above,
        uncached_input=tokens("input_mtok"),
        cache_read=tokens("cache_read_mtok"),
        cache_write_5m=tokens("cache_write_5m_mtok"),
        cache_write_1h=tokens("cache_write_1h_mtok"),
        cache_write_30m=tokens("cache_write_30m_mtok"),
        cache_write_12h=tokens("cache_write_12h_mtok"),
        output=tokens("output_mtok"),
        audio_input=audio("input_audio_mtok"),
        audio_cache_read=audio("cache_audio_read_mtok"),
        audio_output=audio("output_audio_mtok"),
        web_searches=pico(usd("web_searches_kcount") or Decimal(0), PICO_PER_KCOUNT),
    )


def pico(usd: Decimal, per: Decimal = PICO_PER_MTOK) -> int:
    """Convert dollars per unit to whole pico-dollars, rounded up."""
    return int((usd * per).to_integral_value(rounding=ROUND_CEILING))
