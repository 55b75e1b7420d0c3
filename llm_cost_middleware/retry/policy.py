"""Retry policy: after a failure, retry, fall back to another model, or raise. One place owns every retry.

A retry must be able to help (the kind of failure), fit the provider's retry quota, the attempts, the deadline and the
circuit breaker, and come at least as late as the provider asks, but never at the same moment as other processes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan
from random import Random
from typing import Literal, NamedTuple

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.retry.breaker import ADMITTED, TIMEOUT_WEIGHT, Admission, CircuitBreaker
from llm_cost_middleware.retry.quota import SUCCESS_REFUND, THROTTLED, THROTTLED_COST, RetryQuota, token_cost

__all__ = ["Admission", "FailedAttempt", "RetryDecision", "RetryPolicy", "RetryState", "decide"]

_K = FailureKind
_TARGETS = 1_024  # breakers kept; the least recently used is dropped
_SPREAD = 0.25  # of the asked wait, at least: retry-after obeyed exactly made a herd of 50 times the load in simulation
_UNHEALTHY = frozenset(
    {_K.RATE_LIMITED, _K.OVERLOADED, _K.SERVER_ERROR, _K.CONNECTION, _K.TIMEOUT, _K.INTERRUPTED_STREAM}
)
"""Kinds that count against the target's health. Every other answer shows that it is up."""
_MODEL_SPECIFIC = frozenset({_K.RATE_LIMITED, _K.OVERLOADED, _K.CONTEXT_OVERFLOW})
"""Kinds that another model of the same provider may avoid: limits and load are per model."""
RetryRule = Literal["retryable", "fallback", "delivered", "not_retryable", "attempts", "deferred", "deadline", "quota"]


_TIMES = (
    "deadline_s", "stream_deadline_s", "max_retry_after_s", "max_wait_s", "base_s", "throttle_base_s", "max_delay_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Limits on attempts, waits and fallbacks. Times are in seconds.

    Raises:
        ConfigurationError: A value outside its range.
    """

    max_attempts: int = 3
    """Requests of one call, the first included, over all targets. Three, as SDKs and Google's SRE book advise."""
    deadline_s: float = 300.0
    """Limit on all attempts and waits of one call, until it is answered or its stream begins."""
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
    fallback_on: frozenset[FailureKind] = _UNHEALTHY | {_K.CONTEXT_OVERFLOW}
    """Kinds that may fall back. Money, keys and faulty requests do not, unless they are added here."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= 100:  # noqa: PLR2004  # nobody means more
            raise ConfigurationError(f"{self.max_attempts} is not between 1 and 100", key="retry.max_attempts")
        for name in _TIMES:
            value = getattr(self, name)
            if isnan(value) or value < 0 or (value == 0 and name.endswith("deadline_s")):
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


class RetryDecision(NamedTuple):
    """Action after a failed attempt."""

    action: Literal["retry", "fallback", "raise"]
    delay_s: float
    """Seconds to sleep before it."""
    target: ModelRef | None
    """Where the next attempt goes; ``None`` when the error is raised."""
    reason: str
    """One sentence for people."""
    rule: RetryRule
    """The rule that decided, for code."""
    retry_tokens: int = 0
    """Tokens that the retry took from the quota."""


class FailedAttempt(NamedTuple):
    """One failed attempt of a call."""

    failure: Failure
    target: ModelRef
    """Where it was sent."""
    attempt: int
    """Its number, 1 for the first."""
    elapsed_s: float
    """Seconds since the call began."""
    now: float
    """Monotonic seconds."""
    fallbacks: Sequence[ModelRef] = ()
    """Other targets in order of preference, untried; after a context overflow only larger windows."""
    delivered: bool = False
    """Whether a part of the answer was already handed on: then nothing may be repeated."""


class RetryState:
    """Retry quotas by provider and circuit breakers by target, of one pipeline. Bounded.

    Not thread-safe: the pipeline calls it under its lock. Every attempt that was admitted is followed by one
    ``succeeded`` or ``failed``. Times are monotonic seconds.

    Args:
        policy: The limits.
        rng: Spreads what several processes would otherwise do at the same moment.
    """

    def __init__(self, policy: RetryPolicy, rng: Random | None = None) -> None:
        self._policy = policy
        self._rng = rng or Random()  # noqa: S311  # to spread load, not to keep a secret
        self._quotas: dict[str, RetryQuota] = {}
        self._breakers: OrderedDict[ModelRef, CircuitBreaker] = OrderedDict()

    def admit(self, target: ModelRef, *, now: float, previous: Admission | None = None) -> Admission:
        """Ask the breaker before every attempt; after a ``wait``, again with its previous answer."""
        return self._breaker(target).admit(now, previous) if self._policy.breaker else ADMITTED

    def succeeded(
        self,
        target: ModelRef,
        *,
        now: float,
        after_retry: bool = False,
        retry_tokens: int = 0,
        started: float | None = None,
    ) -> None:
        """Record an answered attempt.

        Args:
            target: Where it was sent.
            now: When the answer was in.
            after_retry: It was not the first attempt of its call.
            retry_tokens: What the retry that led to it took from the quota; it is given back.
            started: When it was sent; an answer to what was sent before a breaker opened does not close it.
        """
        if self._policy.quota:
            refund = retry_tokens or (THROTTLED_COST if after_retry else SUCCESS_REFUND)
            self._quota(target.provider).refund(refund)
        if self._policy.breaker:
            self._breaker(target).succeeded(now, started)

    def failed(self, target: ModelRef, failure: Failure, *, now: float, started: float | None = None) -> None:
        """Record a failed attempt; to be called before ``decide``."""
        if not self._policy.breaker or failure.kind in {_K.CANCELLED, _K.UNKNOWN}:
            return
        breaker = self._breaker(target)
        if failure.kind in _UNHEALTHY and (failure.retryable or failure.kind is not _K.RATE_LIMITED):
            weight = TIMEOUT_WEIGHT if failure.kind is _K.TIMEOUT else 1
            breaker.failed(now, started, failure.retry_after, weight=weight)
        else:
            breaker.succeeded(now, started)

    def seconds_until_probe(self, target: ModelRef, *, now: float) -> float:
        """Seconds until the open breaker of ``target`` admits a call; 0 where it is not open."""
        return self._breaker(target).seconds_until_probe(now) if self._policy.breaker else 0.0

    def acquire(self, provider: str, kind: FailureKind) -> int | None:
        """Take one retry from the quota of ``provider``: its cost in tokens, or ``None`` where too few are left."""
        if not self._policy.quota:
            return 0
        cost = token_cost(kind)
        return cost if self._quota(provider).acquire(cost) else None

    def _quota(self, provider: str) -> RetryQuota:
        quota = self._quotas.get(provider)
        if quota is None:
            quota = self._quotas[provider] = RetryQuota()
        return quota

    def _breaker(self, target: ModelRef) -> CircuitBreaker:
        breaker = self._breakers.get(target)
        if breaker is None:
            policy = self._policy
            breaker = CircuitBreaker(
                max_wait_s=policy.max_wait_s, longest_pause_s=policy.max_retry_after_s, rng=self._rng
            )
            self._breakers[target] = breaker
            if len(self._breakers) > _TARGETS:
                self._breakers.popitem(last=False)
        else:
            self._breakers.move_to_end(target)
        return breaker


def decide(policy: RetryPolicy, state: RetryState, failed: FailedAttempt, rng: Random) -> RetryDecision:
    """Decide what to do after a failed attempt.

    The same target is tried again while that can help; the last attempt goes to a fallback, where there is one. What
    may not be retried here may still fall back, if its kind is one of ``policy.fallback_on``.

    Args:
        policy: The limits.
        state: Quotas and breakers; a ``retry`` takes its tokens from the quota.
        failed: The attempt.
        rng: Source of jitter.
    """
    failure, target, attempt = failed.failure, failed.target, failed.attempt
    if failed.delivered:
        return _raise("delivered", f"{failure.kind}, and a part of the answer was handed on")
    if failure.kind is _K.CANCELLED:
        return _raise("not_retryable", "the call was cancelled")
    if attempt >= policy.max_attempts:
        return _raise("attempts", f"{failure.kind} after {attempt} of {policy.max_attempts} attempts")
    other = _choose_fallback(policy, state, failed)
    rule: RetryRule
    if not failure.retryable or (policy.retry_on is not None and failure.kind not in policy.retry_on):
        rule, why = "not_retryable", f"a retry does not help against {failure.kind}"
    elif other is not None and attempt + 1 == policy.max_attempts:
        rule, why = "attempts", f"{failure.kind}, and one attempt is left"
    else:
        delay = policy.backoff(failure, attempt, rng)
        if closed := state.seconds_until_probe(target, now=failed.now):
            # past the probe by chance, so that processes whose breakers opened together do not return together
            delay = max(delay, closed + rng.uniform(0.0, policy.base_s))
        rule, why = _check_time(policy, failed, delay)
        if rule == "retryable":
            cost = state.acquire(target.provider, failure.kind)
            if cost is not None:
                return RetryDecision("retry", delay, target, f"{failure.kind}, again in {delay:.1f} s", rule, cost)
            rule, why = "quota", f"{failure.kind}, and the retry quota of {target.provider} is used up"
    if other is not None and failed.elapsed_s < policy.deadline_s:
        return RetryDecision("fallback", 0.0, other, f"{why}: on to {other}", "fallback")
    return _raise(rule, why)


def _raise(rule: RetryRule, why: str) -> RetryDecision:
    return RetryDecision("raise", 0.0, None, why, rule)


def _check_time(policy: RetryPolicy, failed: FailedAttempt, delay: float) -> tuple[RetryRule, str]:
    """Return why a retryable failure cannot be retried in time, or ``retryable``."""
    failure = failed.failure
    asked = failure.retry_after or 0.0
    if asked > policy.max_retry_after_s:
        limit = policy.max_retry_after_s
        return "deferred", f"{failure.kind}, and a wait of {asked:g} s is asked for, more than {limit:g} s"
    if failed.elapsed_s + delay >= policy.deadline_s:
        return "deadline", f"{failure.kind}, and the deadline of {policy.deadline_s:g} s leaves no time"
    return "retryable", ""


def _choose_fallback(policy: RetryPolicy, state: RetryState, failed: FailedAttempt) -> ModelRef | None:
    """Return the first fallback that may take the call and is not failing itself; another provider's come first."""
    kind, target = failed.failure.kind, failed.target
    if not policy.fallback or kind not in policy.fallback_on:
        return None
    up = [
        other for other in failed.fallbacks if other != target and not state.seconds_until_probe(other, now=failed.now)
    ]
    if kind is _K.CONTEXT_OVERFLOW:  # any larger window will do, whosever it is
        return next(iter(up), None)
    other_provider = next((other for other in up if other.provider != target.provider), None)
    return other_provider or (next(iter(up), None) if kind in _MODEL_SPECIFIC else None)
