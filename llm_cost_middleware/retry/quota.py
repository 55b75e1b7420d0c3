"""Retry quota of a provider: a token bucket that keeps retries a small part of the load when everything fails.

Figures as in the AWS SDKs' default since November 2026 (botocore 1.44): 500 tokens; a retry of a transient failure
takes 14, one of a throttled call 5; a call that succeeds after a retry gives back what it took, one that succeeds at
once gives back 1. Empty, the bucket lets calls fail instead of multiplying an outage.
"""

from __future__ import annotations

from llm_cost_middleware.provider import FailureKind

CAPACITY = 500
TRANSIENT_COST = 14  # more: a target that is down gains nothing from being asked again
THROTTLED_COST = 5
SUCCESS_REFUND = 1
THROTTLED = frozenset({FailureKind.RATE_LIMITED})


def token_cost(kind: FailureKind) -> int:
    """Tokens that a retry after a failure of this kind takes."""
    return THROTTLED_COST if kind in THROTTLED else TRANSIENT_COST


class RetryQuota:
    """One token bucket. Not thread-safe: its owner holds a lock."""

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = CAPACITY

    def acquire(self, cost: int) -> bool:
        """Take ``cost`` tokens; return ``False`` and take none where fewer are left."""
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True

    def refund(self, tokens: int) -> None:
        """Put tokens back, up to the capacity."""
        if self.tokens < CAPACITY:
            self.tokens = min(self.tokens + tokens, CAPACITY)
