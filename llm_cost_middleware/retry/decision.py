"""Decision after a failed attempt: retry, fall back to another model, or raise. One place owns every retry.

A retry must be able to help (the kind of failure), fit the provider's retry quota, the attempts, the deadline and the
circuit breaker, and come at least as late as the provider asks, but never at the same moment as other processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple

from msgspec import Struct

from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.retry.policy import RetryPolicy
from llm_cost_middleware.retry.state import RetryState
from llm_cost_middleware.sentences import Sentence, told_when_read

_K = FailureKind
_MEANT = {_K.UNKNOWN: "a failure of an unknown kind"}
_MODEL_SPECIFIC = frozenset({_K.RATE_LIMITED, _K.OVERLOADED, _K.CONTEXT_OVERFLOW})
"""Kinds that another model of the same provider may avoid: limits and load are per model."""
RetryRule = Literal["retryable", "fallback", "delivered", "not_retryable", "attempts", "deferred", "deadline", "quota"]


@told_when_read("reason")
class RetryDecision(Struct, frozen=True, gc=False):
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
        return _raise("delivered", ("{}, and a part of the answer was handed on".format, failure.kind))
    if failure.kind is _K.CANCELLED:
        return _raise("not_retryable", "the call was cancelled")
    if attempt >= policy.max_attempts:
        return _raise("attempts", ("{} after {} of {} attempts".format, failure.kind, attempt, policy.max_attempts))
    other = _choose_fallback(policy, state, failed)
    rule: RetryRule
    why: Sentence
    if not failure.retryable or (policy.retry_on is not None and failure.kind not in policy.retry_on):
        rule, why = "not_retryable", ("a retry does not help against {}".format, _MEANT.get(failure.kind, failure.kind))
    elif other is not None and attempt + 1 == policy.max_attempts:
        rule, why = "attempts", ("{}, and one attempt is left".format, failure.kind)
    else:
        delay = policy.backoff(failure, attempt, rng)
        if closed := state.seconds_until_probe(target, now=failed.now):
            # past the probe by chance, so that processes whose breakers opened together do not return together
            delay = max(delay, closed + rng.uniform(0.0, policy.base_s))
        rule, why = _check_time(policy, failed, delay)
        if rule == "retryable":
            cost = state.acquire(target.provider, failure.kind)
            if cost is not None:
                why = ("{}, again in {:.1f} s".format, failure.kind, delay)
                return RetryDecision("retry", delay, target, why, rule, cost)
            used_up = "{}, and the retry quota of {} is used up".format
            rule, why = "quota", (used_up, failure.kind, target.provider)
    if other is not None and failed.elapsed_s < policy.deadline_s:
        why = ("{}: on to {}".format, why, other)
        return RetryDecision("fallback", 0.0, other, why, "fallback")
    return _raise(rule, why)


def _raise(rule: RetryRule, why: Sentence) -> RetryDecision:
    return RetryDecision("raise", 0.0, None, why, rule)


def _check_time(policy: RetryPolicy, failed: FailedAttempt, delay: float) -> tuple[RetryRule, Sentence]:
    """Return why a retryable failure cannot be retried in time, or ``retryable``."""
    failure = failed.failure
    asked = failure.retry_after or 0.0
    if asked > policy.max_retry_after_s:
        long = "{}, and a wait of {:g} s is asked for, more than {:g} s".format
        return "deferred", (long, failure.kind, asked, policy.max_retry_after_s)
    if failed.elapsed_s + delay >= policy.deadline_s:
        late = "{}, and the deadline of {:g} s leaves no time".format
        return "deadline", (late, failure.kind, policy.deadline_s)
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
