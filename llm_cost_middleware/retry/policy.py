"""Retry policy: limits on attempts, waits and fallbacks, and the backoff."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.retry.quota import THROTTLED
from llm_cost_middleware.typed_fields import canonical_fields, names_unknown_keys

_K = FailureKind
_SPREAD = 0.25  # of the asked wait, at least: retry-after obeyed exactly made a herd of 50 times the load in simulation


UNHEALTHY = frozenset(
    {_K.RATE_LIMITED, _K.OVERLOADED, _K.SERVER_ERROR, _K.CONNECTION, _K.TIMEOUT, _K.INTERRUPTED_STREAM}
)
"""Kinds that count against the target's health. Every other answer shows that it is up."""

_TIMES = (
    "deadline_s", "stream_deadline_s", "max_retry_after_s", "max_wait_s", "base_s", "throttle_base_s", "max_delay_s",
)  # fmt: skip


@names_unknown_keys("retry")
@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Limits on attempts, waits and fallbacks. Times are in seconds.

    Raises:
        ConfigurationError: A value outside its range.
    """

    max_attempts: int = 3
    """Requests of one call, the first included, over all targets. Three, as in the SDKs and in Google's SRE book."""
    deadline_s: float = 300.0
    """No attempt of a call begins later. One that is under way is not cut: its timeout is the client's own."""
    cut_at_deadline: bool = False
    """Cut the attempt that is under way when ``deadline_s`` ends: its timeout is then what is left at most."""
    stream_deadline_s: float = 3_600.0
    """Limit until a stream ends; later it is cut off. An hour, because long answers take a quarter of one and more."""
    max_retry_after_s: float = 60.0
    """Longest wait a provider may ask for; beyond it the call falls back or raises."""
    max_wait_s: float = 0.0
    """How long a call may wait for an open circuit breaker; 0 fails at once. For batches."""
    quota: bool = True
    """Limit retries by a quota per provider, so that an outage is not multiplied."""
    breaker: bool = True
    """Stop sending to a target that keeps failing, and admit calls slowly when it is back."""
    fallback: bool = True
    """Let another model take the call, where the kind of the failure is one of ``fallback_on``."""
    base_s: float = 0.5
    """First backoff after a transient failure; it doubles. Half a second, as in both SDKs."""
    throttle_base_s: float = 1.0
    """First backoff after a rate limit that names no time."""
    max_delay_s: float = 20.0
    """Longest backoff."""
    jitter: bool = True
    """Draw the backoff from zero to its value ("full jitter"), and spread waits above what the provider asks."""
    retry_on: frozenset[FailureKind] | None = None
    """Retry these kinds only; ``None``: every failure that is retryable."""
    fallback_on: frozenset[FailureKind] = UNHEALTHY | {_K.CONTEXT_OVERFLOW}
    """Kinds that may fall back. Money, keys and faulty requests do not, unless they are added here."""

    def __post_init__(self) -> None:
        for name in ("deadline_s", "stream_deadline_s", "max_delay_s"):
            if getattr(self, name) is None:  # no limit
                object.__setattr__(self, name, inf)
        canonical_fields(self, "retry")
        if not 1 <= self.max_attempts <= 100:  # noqa: PLR2004  # more is a slip
            raise ConfigurationError(f"{self.max_attempts} is not between 1 and 100", key="retry.max_attempts")
        for name in _TIMES:
            value = getattr(self, name)
            if value < 0 or (value == 0 and name.endswith("deadline_s")):
                raise ConfigurationError(f"{value} is not a time in seconds", key=f"retry.{name}")
        if self.fallback_on & {_K.CANCELLED, _K.UNKNOWN}:
            raise ConfigurationError("a cancelled or unknown failure never falls back", key="retry.fallback_on")

    @classmethod
    def classic(cls, max_retries: int = 3) -> RetryPolicy:
        """Return the published pattern: three attempts, ``2 ** attempt`` seconds apart, on three kinds of errors."""
        return cls(
            max_attempts=max_retries,
            deadline_s=inf,
            stream_deadline_s=inf,
            quota=False,
            breaker=False,
            fallback=False,
            base_s=1.0,
            throttle_base_s=1.0,
            max_delay_s=inf,
            jitter=False,
            retry_on=frozenset({_K.CONNECTION, _K.TIMEOUT, _K.RATE_LIMITED, _K.OVERLOADED, _K.SERVER_ERROR}),
        )

    def backoff(self, failure: Failure, attempt: int, rng: Random) -> float:
        """Return seconds to wait after the failed ``attempt`` (1 for the first), at least what the provider asks."""
        base = self.throttle_base_s if failure.kind in THROTTLED else self.base_s
        ceiling = min(base * 2.0 ** (attempt - 1), self.max_delay_s)
        floor = failure.retry_after
        if not self.jitter:
            return max(ceiling, floor or 0.0)
        if floor is None:
            return rng.uniform(0.0, ceiling)
        return floor + rng.uniform(0.0, max(ceiling, _SPREAD * floor))
