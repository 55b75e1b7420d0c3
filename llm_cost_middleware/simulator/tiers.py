"""Service tiers of OpenAI as they are sold: capacity, delays, what an answer was really served at, and its bill.

Sources: the guide to flex processing (developers.openai.com: slower answers, timeouts more likely, ``408`` after which
the SDKs retry, ``429 Resource Unavailable`` that is not charged, only chats and responses), the guide to priority
processing (traffic that grows too fast is served and billed at ``default``; a project may be set to a tier, which
requests without one then get), and the SDK's docstring of ``service_tier`` (openai 3.57: the answer names the tier that
was used, which may differ from the one asked for). Which models sell a tier stands in ``prices/openai.toml``.

Whether a flex request that ends in 408 is charged is said nowhere: here the work was done, and is on the bill.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import exp
from statistics import NormalDist
from typing import Any, NamedTuple

from .reading import Reading
from .refusals import Refusal, openai_error

_UNSAID = frozenset({None, "auto"})
_SURE = 1.0 - 1e-9


class Service(NamedTuple):
    """How one request is served."""

    tier: str
    """What it is billed at, and its answer says."""
    wait_s: float = 0.0
    """Seconds until its answer begins."""
    refusal: Refusal | None = None
    """What it ends with instead of an answer."""
    billed: bool = True


@dataclass(frozen=True, slots=True)
class TierMarket:
    """What the tiers are like. Draws depend on the seed and the number of the request alone.

    Args:
        flex_unavailable: The share of flex requests that find no capacity: 429, not charged.
        flex_timeouts: The share that end in 408, on the bill.
        flex_delay_s: The median delay of a flex answer, in seconds.
        flex_spread: The spread of its logarithm: with 1.0 one of twenty takes five times as long as the median.
        standard_delay_s: The median delay at every other tier, in seconds, with a spread of 0.5.
        timeout_s: The seconds after which 408 ends a request.
        priority_default: The share of priority requests that are served, and billed, at ``default``.
        project: The tier of requests that name none, or ``auto``, where their model sells it.
        pace: Real seconds a second: 0 does not wait at all. ``openai-processing-ms`` says how long it took either way.
        seed: Makes the draws.
    """

    flex_unavailable: float = 0.0
    flex_timeouts: float = 0.0
    flex_delay_s: float = 0.0
    flex_spread: float = 1.0
    standard_delay_s: float = 0.0
    timeout_s: float = 600.0
    priority_default: float = 0.0
    project: str = "standard"
    pace: float = 1.0
    seed: int = 0

    def serve(self, reading: Reading, body: Mapping[str, Any], number: int) -> Service:
        """How a valid request to OpenAI is served; ``number`` counts requests."""
        tier = reading.tier
        if tier == "standard" and body.get("service_tier") in _UNSAID and self.project in reading.model.rates:
            tier = self.project
        if tier == "flex":
            if self._draw(number, "capacity") < self.flex_unavailable:
                return Service(tier, 0.0, resource_unavailable(), billed=False)
            wait = self._delay(number, self.flex_delay_s, self.flex_spread)
            if self._draw(number, "timeout") < self.flex_timeouts or wait > self.timeout_s:
                return Service(tier, self.timeout_s, openai_error(408))
            return Service(tier, wait)
        if tier == "priority" and self._draw(number, "ramp") < self.priority_default:
            tier = "standard"
        return Service(tier, self._delay(number, self.standard_delay_s, 0.5))

    def _draw(self, number: int, what: str) -> float:
        digest = blake2b(f"{self.seed}:{number}:{what}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    def _delay(self, number: int, median_s: float, spread: float) -> float:
        if not median_s:
            return 0.0
        drawn = min(max(self._draw(number, "delay"), 1 - _SURE), _SURE)
        return median_s * exp(spread * NormalDist().inv_cdf(drawn))


def resource_unavailable() -> Refusal:
    """429 for want of capacity at the flex tier: not charged."""
    words = "Resource Unavailable: flex processing lacks the resources for this request. You were not charged."
    return openai_error(429, words, kind="resource_unavailable", code="resource_unavailable")
