"""The wishes of the owner of a host stand over ``[retry]``; the quota, the breaker and a cancellation do not move."""

from __future__ import annotations

from random import Random

import pytest

from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.request import FixedRetries, ModelRef, RetryAdvice
from llm_cost_middleware.retry.decision import FailedAttempt, decide
from llm_cost_middleware.retry.policy import RetryPolicy
from llm_cost_middleware.retry.state import RetryState
from llm_cost_middleware.retry.terms import follow

TARGET = ModelRef("openai", "gpt-5-mini")
BUSY = Failure(FailureKind.OVERLOADED, retryable=True, retry_after=None, billed="no", reason="503")
LIMIT = Failure(FailureKind.RATE_LIMITED, retryable=True, retry_after=8.0, billed="no", reason="429")
KEY = Failure(FailureKind.AUTHENTICATION, retryable=False, retry_after=None, billed="no", reason="401")
GONE = Failure(FailureKind.CANCELLED, retryable=False, retry_after=None, billed="unknown", reason="cancelled")


def decided(advice, failure, *, attempt=1, policy=None, elapsed_s=0.0, state=None):
    policy, failure = follow(advice, policy or RetryPolicy(), failure)
    failed = FailedAttempt(failure, TARGET, attempt, elapsed_s, 0.0)
    return decide(policy, state or RetryState(policy), failed, Random(1))


@pytest.mark.parametrize(("retries", "made"), [(0, 1), (1, 2), (5, 6)])
def test_as_many_attempts_are_made_as_the_owner_says(retries, made):
    actions = [decided(FixedRetries(retries + 1).after(OSError(), n), BUSY, attempt=n).action for n in range(1, 8)]
    assert actions == ["retry"] * (made - 1) + ["raise"] * (8 - made)


def test_no_advice_leaves_the_policy_and_the_failure_as_they_are():
    policy = RetryPolicy(max_attempts=7)
    assert follow(RetryAdvice(), policy, BUSY) == (policy, BUSY)


def test_what_the_owner_wants_retried_is_retried_and_what_he_does_not_want_is_not():
    assert decided(RetryAdvice(), KEY).action == "raise"
    assert decided(RetryAdvice(retryable=True), KEY).action == "retry"
    narrow = RetryPolicy(retry_on=frozenset({FailureKind.OVERLOADED}))
    assert decided(RetryAdvice(retryable=True), KEY, policy=narrow).action == "retry"
    assert decided(RetryAdvice(retryable=False), BUSY).action == "raise"
    assert decided(RetryAdvice(retryable=True), GONE).action == "raise"


def test_another_deployment_is_asked_at_once_whatever_the_first_one_asks_to_wait():
    assert decided(RetryAdvice(), LIMIT).delay_s >= 8.0
    assert decided(RetryAdvice(at_once=True), LIMIT).delay_s == 0.0


@pytest.mark.parametrize("least", [3.0, 90.0])
def test_the_least_wait_is_kept_and_a_longer_one_of_the_provider_too(least):
    assert decided(RetryAdvice(least_delay_s=least), BUSY).delay_s >= least
    assert decided(RetryAdvice(least_delay_s=least), LIMIT).delay_s >= max(least, 8.0)


def test_a_deadline_of_the_whole_is_kept_by_each_part():
    assert decided(RetryAdvice(deadline_s=1.0, at_once=True), BUSY, elapsed_s=0.5).action == "retry"
    assert decided(RetryAdvice(deadline_s=1.0, at_once=True), BUSY, elapsed_s=1.5).rule == "deadline"
    assert decided(RetryAdvice(deadline_s=-5.0, at_once=True), BUSY, elapsed_s=0.5).rule == "deadline"
    assert decided(RetryAdvice(deadline_s=900.0, at_once=True), BUSY, elapsed_s=400.0).rule == "deadline"


def test_the_retry_quota_holds_whatever_is_wished():
    policy = RetryPolicy()
    state = RetryState(policy)
    wished = RetryAdvice(max_attempts=100, retryable=True, at_once=True)
    rules = [decided(wished, BUSY, state=state).rule for _ in range(60)]
    assert rules[0] == "retryable"
    assert rules[-1] == "quota"
