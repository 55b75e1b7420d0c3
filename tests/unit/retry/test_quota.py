from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.retry.quota import CAPACITY, RetryQuota, token_cost


def test_a_full_bucket_is_good_for_35_transient_or_100_throttled_retries():
    for kind, retries in ((K.SERVER_ERROR, 35), (K.RATE_LIMITED, 100)):
        quota = RetryQuota()
        drawn = 0
        while quota.acquire(token_cost(kind)):
            drawn += 1
        assert drawn == retries


@given(st.lists(st.one_of(st.integers(1, 60).map(lambda n: ("draw", n)), st.integers(0, 60).map(lambda n: ("put", n)))))
def test_the_bucket_never_leaves_its_bounds(steps):
    quota = RetryQuota()
    for what, tokens in steps:
        before = quota.tokens
        if what == "draw":
            assert quota.acquire(tokens) is (tokens <= before)
        else:
            quota.refund(tokens)
        assert 0 <= quota.tokens <= CAPACITY


def test_under_a_lock_ten_threads_keep_the_bucket_in_its_bounds():
    quota, lock, seen = RetryQuota(), threading.Lock(), []

    def hammer() -> None:
        for step in range(2_000):
            with lock:
                if step % 3:
                    quota.acquire(14)
                else:
                    quota.refund(5)
                seen.append(quota.tokens)

    threads = [threading.Thread(target=hammer) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(seen) >= 0
    assert max(seen) <= CAPACITY


def test_under_steady_failures_retries_stay_a_small_part_of_the_load():
    quota, calls, retries = RetryQuota(), 0, 0
    for number in range(20_000):
        calls += 1
        if number % 2:  # every other call fails, for ever
            retries += quota.acquire(token_cost(K.SERVER_ERROR))
        else:
            quota.refund(1)
    assert retries / calls < 0.04 + 35 / calls
