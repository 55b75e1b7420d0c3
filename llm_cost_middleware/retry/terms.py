"""The retries that a host's owner set for a call, read over ``[retry]``."""

from __future__ import annotations

from dataclasses import replace

from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.request import RetryAdvice
from llm_cost_middleware.retry.policy import RetryPolicy

_MOST_ATTEMPTS = 100  # as many as a policy takes


def follow(advice: RetryAdvice, policy: RetryPolicy, failure: Failure) -> tuple[RetryPolicy, Failure]:
    """The policy and the failure as the owner's wishes make them; the quota and the breaker stay.

    A cancelled call is never repeated, whatever is wished.

    Args:
        advice: The wishes after this failure.
        policy: ``[retry]``.
        failure: What the failure means by our own rules.
    """
    changes: dict[str, object] = {}
    if advice.max_attempts is not None:
        changes["max_attempts"] = min(max(advice.max_attempts, 1), _MOST_ATTEMPTS)
    if advice.deadline_s is not None:
        changes["deadline_s"] = max(min(advice.deadline_s, policy.deadline_s), 0.001)
    if advice.retryable is not None and failure.kind is not FailureKind.CANCELLED:
        failure = failure.changed(retryable=advice.retryable)
        if advice.retryable:
            changes["retry_on"] = None
    if advice.at_once:
        failure = failure.changed(retry_after=None)
        changes |= {"base_s": 0.0, "throttle_base_s": 0.0}
    elif advice.least_delay_s > (failure.retry_after or 0.0):
        failure = failure.changed(retry_after=advice.least_delay_s)
        changes["max_retry_after_s"] = max(policy.max_retry_after_s, advice.least_delay_s)
    return (replace(policy, **changes) if changes else policy), failure  # type: ignore[arg-type]  # fields by name
