"""Values of cache planning: prices of a cache, the application's policy, and the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from llm_cost_middleware.money import ZERO, NanoUSD, floor_picousd
from llm_cost_middleware.request import CacheDirectives
from llm_cost_middleware.sentences import Sentence, told_when_read, unread
from llm_cost_middleware.typed_fields import canonical_fields, names_unknown_keys
from llm_cost_middleware.usage import TokenUsage

LIFETIME_S: Mapping[str, float] = MappingProxyType(
    {"5m": 300.0, "30m": 1_800.0, "1h": 3_600.0, "12h": 43_200.0, "24h": 86_400.0}
)
"""Lifetime of an entry, from the start of the request that wrote or last read it."""
HORIZONS_S = (300.0, 1_800.0, 3_600.0)
"""Gaps between arrivals within which reuse is counted."""
HORIZON_OF: Mapping[str, int] = MappingProxyType({"5m": 0, "30m": 1, "1h": 2})
"""Index in ``HORIZONS_S`` that covers a lifetime."""
ReuseProbability = tuple[float, float, float]
"""Probability that a prefix comes back within each of ``HORIZONS_S``."""


@dataclass(frozen=True, slots=True)
class CachePrices:
    """Prices of a model's cached input, in integer pico-dollars (1e-12 USD) per token."""

    read: int
    write: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Price of a write by lifetime. A lifetime without a price is not used; empty if writes are free."""
    uncached: int = 0

    def saving(self, usage: TokenUsage) -> NanoUSD:
        """Return the saving of an answered call against sending it all uncached. Negative if writes cost more.

        Without audio, which is not planned for.
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
        return floor_picousd(pico)

    def read_saving(self, tokens: int) -> NanoUSD:
        """Return the saving of reading tokens from the cache."""
        return floor_picousd(tokens * (self.uncached - self.read))


@names_unknown_keys("cache")
@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Application's policy for prompt caching."""

    mode: Literal["auto", "system", "off"] = "auto"
    """``auto``: marks where they are expected to pay. ``system``: always one, on the system prompt. ``off``: none."""
    ttl: Literal["auto", "5m", "1h"] = "auto"
    """``1h`` also requests OpenAI's 24-hour retention from models that offer it. ``auto`` never does: it stores prompts
    on the provider's disks."""
    warm_first: bool = False
    """Application is about to send many requests over one prefix: the first writes it, the others wait."""

    def __post_init__(self) -> None:
        canonical_fields(self, "cache")


DEFAULT_POLICY = CachePolicy()


@told_when_read("reason")
@dataclass(frozen=True, slots=True)
class CachePlan(CacheDirectives):
    """Cache directives of one attempt, with the reason. A value: rendered on copies when the attempt is sent."""

    expected_saving_nanousd: NanoUSD = ZERO
    """Expected saving against sending the request uncached: of this call and the reuse it prepares."""
    expected_now_nanousd: NanoUSD = ZERO
    """Expected saving of this call alone, as ``CachePrices.saving`` should find it. Negative for a first write."""
    reason: str = ""
    marks_end: bool = False
    """The provider's own breakpoint at the end of the request stays on, and writes it."""
    warm: int = 0
    """Tokens expected to be read from the cache."""
    warm_s: float = 0.0
    """Lifetime of the entry that is expected to be read, in seconds from the call that wrote or last read it."""
    wait_for: bytes | None = None
    """With ``warm_first``: fingerprint of a prefix that another call is writing. Hold this call while
    ``PrefixStatistics.is_pending`` is true, then plan again."""
    at: float = 0.0
    """Time of planning: lifetimes count from here."""
    prices: CachePrices | None = None
    """Prices it was planned with."""
    write_risk_picousd: int = 0
    """Cost of the planned writes beyond uncached input, in pico-dollars, as far as no evidence covers it."""
    proven_share: float = 0.0
    """The part of that cost, from 0 to 1, that evidence covers: the proven odds that it will be read."""

    def without_marks(self) -> UnmarkedPlan:
        """The same plan with none of its marks: it writes no more than the request does by itself."""
        why: Sentence = ("no money for the writes of {}".format, unread(self, "reason"))
        return UnmarkedPlan(
            cache_key=self.cache_key,
            retention=self.retention,
            explicit=self.explicit,
            marks_end=self.marks_end,
            reason=why,
            at=self.at,
            prices=self.prices,
            given_up=len(self.marks),
        )


@dataclass(frozen=True, slots=True)
class UnmarkedPlan(CachePlan):
    """A plan whose marks were given up, so that the attempt holds less."""

    given_up: int = 0
    """How many marks it had."""


NO_PLAN = CachePlan(reason="nothing to cache")
