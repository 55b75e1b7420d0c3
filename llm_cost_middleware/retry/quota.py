"""The retry quota of a provider: a token bucket that keeps retries a small part of the load when everything fails.

Figures as in the AWS SDKs' default since November 2026: 500 tokens; a retry of a transient failure draws 14, one of a
throttled call 5; a call that succeeds after a retry gives back what it drew, one that succeeds at once gives back 1.
Dry, the bucket lets calls fail instead of multiplying an outage.
"""

from __future__ import annotations

from llm_cost_middleware.provider import FailureKind

CAPACITY = 500
TRANSIENT_COST = 14
THROTTLED_COST = 5
SUCCESS_REFUND = 1
THROTTLED = frozenset({FailureKind.RATE_LIMITED})


def cost_of(kind: FailureKind) -> int:
    """What a retry of a failure of this kind draws, in tokens."""
    return THROTTLED_COST if kind in THROTTLED else TRANSIENT_COST


class RetryQuota:
    """One bucket. Not thread-safe: its owner holds a lock."""

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = CAPACITY

    def draw(self, cost: int) -> bool:
        """Take ``cost`` tokens, or none and return ``False``."""
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True

    def refund(self, tokens: int) -> None:
        """Put tokens back, up to the capacity."""
        self.tokens = min(self.tokens + tokens, CAPACITY)
