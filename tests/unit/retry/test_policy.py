from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from math import inf, nan
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.provider import Failure
from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.retry.classify import RETRYABLE
from llm_cost_middleware.retry.decision import FailedAttempt, decide
from llm_cost_middleware.retry.policy import RetryPolicy
from llm_cost_middleware.retry.state import RetryState

HERE = ModelRef("anthropic", "claude-haiku-4-5-20251001")
SIBLING = ModelRef("anthropic", "claude-sonnet-4-6")
ABROAD = ModelRef("openai", "gpt-5-mini")


def failure(kind: K, *, retryable: bool | None = None, retry_after: float | None = None) -> Failure:
    return Failure(kind, kind in RETRYABLE if retryable is None else retryable, retry_after, "no", "")


def decided(kind_or_failure, *, policy=None, state=None, **facts):
    policy = policy or RetryPolicy()
    what = kind_or_failure if isinstance(kind_or_failure, Failure) else failure(kind_or_failure)
    rng = facts.pop("rng", None) or Random(1)
    failed = FailedAttempt(what, HERE, attempt=1, elapsed_s=1.0, now=100.0)._replace(**facts)
    return decide(policy, state or RetryState(policy, Random(2)), failed, rng)


def broken(state: RetryState, target: ModelRef, now: float) -> None:
    for _ in range(10):
        state.failed(target, failure(K.SERVER_ERROR), now=now)
    assert state.admit(target, now=now).rejected


@pytest.mark.parametrize("kind", list(K))
def test_what_may_be_retried_is_retried_and_nothing_else(kind):
    decision = decided(kind)
    assert decision.action == ("retry" if kind in RETRYABLE else "raise")
    assert decision.target == (HERE if kind in RETRYABLE else None)
    assert kind in decision.reason


@pytest.mark.parametrize("kind", list(K))
def test_nothing_is_repeated_once_a_part_was_handed_on(kind):
    decision = decided(failure(kind, retryable=True), delivered=True, fallbacks=(ABROAD,))
    assert (decision.action, decision.rule) == ("raise", "delivered")


def test_a_cancelled_call_is_left_alone_whatever_a_header_says():
    assert decided(failure(K.CANCELLED, retryable=True), fallbacks=(ABROAD,)).action == "raise"


@pytest.mark.parametrize("kind", list(K))
def test_fallback_by_class(kind):
    decision = decided(failure(kind, retryable=False), fallbacks=(ABROAD,))
    may = {
        K.OVERLOADED, K.RATE_LIMITED, K.SERVER_ERROR, K.CONNECTION, K.TIMEOUT, K.INTERRUPTED_STREAM, K.CONTEXT_OVERFLOW,
    }  # fmt: skip
    assert decision.action == ("fallback" if kind in may else "raise")
    assert decided(failure(kind, retryable=False), fallbacks=(ABROAD,), policy=RetryPolicy(fallback=False)).action == (
        "raise"
    )


def test_money_falls_back_only_where_it_is_asked_for():
    policy = RetryPolicy(fallback_on=frozenset({K.QUOTA_EXHAUSTED}))
    assert decided(K.QUOTA_EXHAUSTED, fallbacks=(ABROAD,), policy=policy).target == ABROAD
    assert decided(K.SPEND_LIMIT, fallbacks=(ABROAD,), policy=policy).action == "raise"
    assert decided(failure(K.OVERLOADED, retryable=False), fallbacks=(ABROAD,), policy=policy).action == "raise"


def test_the_last_attempt_goes_elsewhere():
    assert decided(K.OVERLOADED, attempt=1, fallbacks=(ABROAD,)).action == "retry"
    assert decided(K.OVERLOADED, attempt=2, fallbacks=(ABROAD,)).action == "fallback"
    assert decided(K.OVERLOADED, attempt=2).action == "retry"
    assert decided(K.OVERLOADED, attempt=3, fallbacks=(ABROAD,)).rule == "attempts"


def test_another_provider_comes_before_another_model_and_a_sick_provider_is_left():
    assert decided(K.OVERLOADED, attempt=2, fallbacks=(SIBLING, ABROAD)).target == ABROAD
    assert decided(K.OVERLOADED, attempt=2, fallbacks=(SIBLING,)).target == SIBLING
    assert decided(K.CONNECTION, attempt=2, fallbacks=(SIBLING,)).action == "retry"
    assert decided(K.CONTEXT_OVERFLOW, fallbacks=(SIBLING, ABROAD)).target == SIBLING
    policy = RetryPolicy()
    state = RetryState(policy, Random(2))
    broken(state, ABROAD, now=100.0)
    assert decided(K.OVERLOADED, attempt=2, fallbacks=(ABROAD, SIBLING), policy=policy, state=state).target == SIBLING


def test_what_the_provider_asks_is_a_floor_with_spread_above_it():
    waits = [decided(failure(K.RATE_LIMITED, retry_after=20.0), rng=Random(seed)).delay_s for seed in range(200)]
    assert min(waits) >= 20.0
    assert max(waits) <= 25.0
    assert max(waits) - min(waits) > 4.0


def test_too_long_a_wait_falls_back_or_raises():
    late = failure(K.RATE_LIMITED, retry_after=61.0)
    decision = decided(late)
    assert (decision.action, decision.rule) == ("raise", "deferred")
    assert "61 s" in decision.reason
    assert decided(late, fallbacks=(ABROAD,)).target == ABROAD
    assert decided(late, policy=RetryPolicy(max_retry_after_s=120)).action == "retry"


def test_no_sleep_ends_after_the_deadline():
    slow = failure(K.RATE_LIMITED, retry_after=30.0)
    assert decided(slow, elapsed_s=260.0).action == "retry"
    decision = decided(slow, elapsed_s=280.0)
    assert (decision.action, decision.rule) == ("raise", "deadline")
    assert decided(slow, elapsed_s=280.0, fallbacks=(ABROAD,)).action == "fallback"
    assert decided(slow, elapsed_s=300.0, fallbacks=(ABROAD,)).action == "raise"


@pytest.mark.parametrize(("kind", "retries"), [(K.SERVER_ERROR, 35), (K.RATE_LIMITED, 100)])
def test_the_quota_of_a_provider_is_used_up_and_refunded(kind, retries):
    policy = RetryPolicy(breaker=False)
    state = RetryState(policy, Random(2))
    taken = 0
    while (decision := decided(kind, policy=policy, state=state)).action == "retry":
        taken += 1
        cost = decision.retry_tokens
    assert taken == retries
    assert decision.rule == "quota"
    assert decided(kind, policy=policy, state=state, target=SIBLING).rule == "quota"  # one quota a provider
    assert decided(kind, policy=policy, state=state, target=ABROAD).action == "retry"
    state.succeeded(HERE, now=101.0, retry_tokens=cost)
    assert decided(kind, policy=policy, state=state).action == "retry"
    assert decided(kind, policy=policy, state=state).action == "raise"
    for _ in range(14):
        state.succeeded(HERE, now=101.0)
    assert decided(kind, policy=policy, state=state).action == "retry"
    assert decided(kind, policy=replace(policy, quota=False)).action == "retry"


def test_a_retry_is_not_sent_into_an_open_circuit():
    policy = RetryPolicy()
    state = RetryState(policy, Random(2))
    broken(state, HERE, now=100.0)
    decision = decided(K.SERVER_ERROR, policy=policy, state=state)
    assert decision.delay_s >= state.seconds_until_probe(HERE, now=100.0) > 0
    assert state.seconds_until_probe(ABROAD, now=100.0) == 0.0


def test_refusals_that_are_not_the_targets_fault_do_not_open_its_circuit():
    state = RetryState(RetryPolicy(), Random(2))
    for kind in (K.INVALID_REQUEST, K.AUTHENTICATION, K.CONTEXT_OVERFLOW, K.CANCELLED, K.UNKNOWN, K.QUOTA_EXHAUSTED):
        for _ in range(30):
            state.failed(HERE, failure(kind), now=1.0)
    for _ in range(30):
        state.failed(HERE, failure(K.RATE_LIMITED, retryable=False), now=1.0)  # larger than the limit: only this one
    assert not state.admit(HERE, now=1.0).rejected


def test_without_a_breaker_every_call_is_admitted():
    state = RetryState(RetryPolicy(breaker=False), Random(2))
    for _ in range(50):
        state.failed(HERE, failure(K.SERVER_ERROR), now=1.0)
    assert state.admit(HERE, now=1.0).action == "admit"


def test_the_state_is_bounded():
    state = RetryState(RetryPolicy(), Random(2))
    for number in range(5_000):
        state.admit(ModelRef("openai", f"deployment-{number}"), now=1.0)
    assert len(state._breakers) <= 1_024


@given(st.integers(1, 12), st.sampled_from([K.SERVER_ERROR, K.RATE_LIMITED]), st.randoms(use_true_random=False))
def test_the_backoff_stays_below_its_doubling_ceiling(attempt, kind, rng):
    policy = RetryPolicy()
    base = policy.throttle_base_s if kind is K.RATE_LIMITED else policy.base_s
    assert 0 <= policy.backoff(failure(kind), attempt, rng) <= min(base * 2 ** (attempt - 1), policy.max_delay_s)


def test_the_jitter_is_uniform():
    rng, policy = Random(5), RetryPolicy()
    tenths = [0] * 10
    for _ in range(10_000):
        tenths[int(policy.backoff(failure(K.SERVER_ERROR), 3, rng) / 2.0 * 10)] += 1
    assert all(800 <= count <= 1200 for count in tenths), tenths


def test_the_classic_pattern():
    policy, sleeps = RetryPolicy.classic(), []
    for attempt in (1, 2, 3):
        decision = decided(K.RATE_LIMITED, policy=policy, attempt=attempt, elapsed_s=10_000.0)
        if decision.action == "retry":
            sleeps.append(decision.delay_s)
    assert sleeps == [1.0, 2.0]
    retried = {kind for kind in K if decided(failure(kind, retryable=True), policy=policy).action == "retry"}
    assert retried == {K.CONNECTION, K.TIMEOUT, K.RATE_LIMITED, K.OVERLOADED, K.SERVER_ERROR}
    assert decided(failure(K.RATE_LIMITED, retryable=False), policy=policy, fallbacks=(ABROAD,)).action == "raise"
    assert decided(failure(K.RATE_LIMITED, retry_after=7.0), policy=policy).delay_s == 7.0
    assert RetryPolicy.classic(5).max_attempts == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"deadline_s": 0},
        {"stream_deadline_s": 0},
        {"deadline_s": nan},
        {"max_wait_s": -1},
        {"base_s": -0.1},
        {"fallback_on": frozenset({K.CANCELLED})},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigurationError) as refused:
        RetryPolicy(**wrong)
    assert refused.value.key == f"retry.{next(iter(wrong))}"


def test_a_policy_is_a_value():
    assert RetryPolicy(deadline_s=inf) == RetryPolicy(deadline_s=inf)
    with pytest.raises(FrozenInstanceError):
        RetryPolicy().max_attempts = 5
