"""The values of cache planning: what a cache costs, what a caller wants, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.prompt_cache.layout import BlockRef
from llm_cost_middleware.usage import TokenUsage

LIFETIME_S: Mapping[str, float] = MappingProxyType(
    {"5m": 300.0, "30m": 1_800.0, "1h": 3_600.0, "12h": 43_200.0, "24h": 86_400.0}
)
"""How long an entry lives, counted from the start of the request that wrote or last read it."""
HORIZONS_S = (300.0, 1_800.0, 3_600.0)
"""The gaps between arrivals that are told apart."""
HORIZON_OF: Mapping[str, int] = MappingProxyType({"5m": 0, "30m": 1, "1h": 2})
"""Which of them tells of the reuse within a lifetime."""
Odds = tuple[float, float, float]
"""The probability that a prefix comes back within each of ``HORIZONS_S``."""


@dataclass(frozen=True, slots=True)
class CachePrices:
    """What a model's input costs by way of its cache, in integer pico-dollars (1e-12 USD) a token."""

    read: int
    write: Mapping[str, int] = field(default_factory=dict, hash=False)
    """By lifetime. A lifetime without a price is not used; where writes are free the mapping is empty."""
    uncached: int = 0

    def saving(self, usage: TokenUsage) -> NanoUSD:
        """What the cache saved on an answered call, against sending it all uncached. Negative where writes cost more.

        Audio is left out: it is not planned for.
        """
        written = (
            (usage.cache_write_5m, "5m"),
            (usage.cache_write_30m, "30m"),
            (usage.cache_write_1h, "1h"),
            (usage.cache_write_12h, "12h"),
        )
        pico = usage.cache_read * (self.uncached - self.read) - sum(
            tokens * (self.write.get(ttl, self.uncached) - self.uncached) for tokens, ttl in written
        )
        return NanoUSD(pico // 1_000)


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What the application wants of the cache."""

    mode: Literal["auto", "system", "off"] = "auto"
    """``auto``: marks where they are expected to pay. ``system``: one on the system prompt, always. ``off``: none."""
    ttl: Literal["auto", "5m", "1h"] = "auto"
    """``1h`` also asks OpenAI for a day's retention, where a model offers it: it keeps prompts on the provider's disks,
    so it is never asked for unbidden."""
    warm_first: bool = False
    """The application is about to send many requests over one prefix: let the first one write it, the others wait."""


DEFAULT_POLICY = CachePolicy()


class Mark(NamedTuple):
    """A cache mark to place."""

    position: BlockRef
    ttl: str


@dataclass(frozen=True, slots=True)
class CachePlan:
    """Where one attempt carries cache marks, and why. A value: it is rendered on copies when the attempt is sent."""

    marks: tuple[Mark, ...] = ()
    cache_key: str | None = None
    """OpenAI's ``prompt_cache_key``."""
    retention: str | None = None
    """OpenAI's ``prompt_cache_retention``."""
    explicit: bool = False
    """Switch off the breakpoint that OpenAI places by itself, and pays for, from GPT-5.6 on."""
    expected_saving_nanousd: NanoUSD = ZERO
    """Against sending the request uncached: this call and the reuse it prepares."""
    expected_now_nanousd: NanoUSD = ZERO
    """The same for this call alone: what ``CachePrices.saving`` should find in its usage. A first write costs."""
    reason: str = ""
    warm: int = 0
    """Tokens expected to be read from the cache."""
    wait_for: bytes | None = None
    """With ``warm_first``: the fingerprint of a prefix that another call is writing just now. Hold this call while
    ``PrefixStatistics.is_pending`` says so, then plan again."""
    at: float = 0.0
    """When it was planned: lifetimes count from here."""
    prices: CachePrices | None = None
    """What it was planned with."""
    risk_pico: int = 0
    """What the planned writes cost beyond uncached input, in pico-dollars: lost if nothing comes back to read them."""


NO_PLAN = CachePlan(reason="nothing to cache")
