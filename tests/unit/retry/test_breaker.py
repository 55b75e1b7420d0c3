from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_cost_middleware.retry.breaker import MAX_OPEN_S, MIN_FAILURES, CircuitBreaker
from llm_cost_middleware.retry.gate import Gate

LATE = 1.25 * MAX_OPEN_S  # no pause without a word of the provider is longer


def breaker(max_wait_s: float = 0.0) -> CircuitBreaker:
    return CircuitBreaker(max_wait_s=max_wait_s, longest_pause_s=60.0, rng=Random(7))


def healthy(it: CircuitBreaker, until: float = 60.0, rate: float = 5.0) -> float:
    """Calls at a steady rate, each answered two seconds later."""
    for step in range(int(until * rate)):
        now = step / rate
        assert it.admit(now).action == "admit"
        it.succeeded(now, started=now - 2)
    return until


def fail(it: CircuitBreaker, now: float, times: int = MIN_FAILURES, retry_after: float | None = None) -> None:
    for _ in range(times):
        it.failed(now, now, retry_after)


def probed(it: CircuitBreaker, now: float) -> float:
    """Let the probe through, and answer it."""
    now += it.seconds_until_probe(now)
    assert it.admit(now).action == "admit"
    it.succeeded(now + 0.5, started=now)
    return now + 0.5


def test_a_few_failures_do_not_open_it():
    it = breaker()
    fail(it, 1.0, times=MIN_FAILURES - 1)
    assert it.admit(1.0).action == "admit"
    fail(it, 1.0, times=1)
    assert it.admit(1.0).action == "reject"


def test_failures_among_more_successes_do_not_open_it():
    it = breaker()
    for step in range(300):
        now = step / 10
        if step % 3 == 0:
            it.failed(now, now, None)
        else:
            it.succeeded(now, now)
        assert it.admit(now).action == "admit"


def test_old_failures_are_forgotten():
    it = breaker()
    fail(it, 0.0, times=MIN_FAILURES - 1)
    fail(it, 31.0, times=1)
    assert it.admit(31.0).action == "admit"


def test_timeouts_count_twice():
    it = breaker()
    for _ in range(MIN_FAILURES // 2):
        it.failed(1.0, 1.0, None, weight=2)
    assert it.admit(1.0).action == "reject"


def test_an_open_circuit_gives_the_time_of_its_probe_and_then_admits_one():
    it = breaker()
    now = healthy(it)
    fail(it, now)
    refusal = it.admit(now)
    assert refusal.rejected
    assert 0.75 <= refusal.retry_after == it.seconds_until_probe(now) <= 1.25
    now += refusal.retry_after
    assert it.admit(now).action == "admit"
    assert it.admit(now).action == "reject"


def test_probes_become_rarer_up_to_a_limit_while_none_is_answered():
    it = breaker()
    now = healthy(it)
    fail(it, now)
    pauses = []
    for _ in range(8):
        pauses.append(it.seconds_until_probe(now))
        now += it.seconds_until_probe(now)
        assert it.admit(now).action == "admit"
        if len(pauses) % 2:
            it.failed(now, now, None)
    assert pauses[0] < pauses[1] < pauses[2]
    assert max(pauses) <= LATE
    assert min(pauses[3:]) >= 0.75 * MAX_OPEN_S


def test_it_stays_open_as_long_as_the_provider_asks_and_a_little_longer_but_not_for_ever():
    it = breaker()
    fail(it, 0.0, retry_after=30.0)
    assert 30.0 < it.seconds_until_probe(0.0) <= 30.0 + LATE
    it = breaker()
    fail(it, 0.0, retry_after=3600.0)
    assert 60.0 < it.seconds_until_probe(0.0) <= 60.0 + LATE


def test_answers_to_what_was_sent_before_it_opened_change_nothing():
    it = breaker()
    now = healthy(it)
    fail(it, now)
    closed = it.seconds_until_probe(now)
    it.succeeded(now + 0.1, started=now - 5)
    it.failed(now + 0.1, now - 5, None)
    assert it.seconds_until_probe(now) == closed
    now = probed(it, now)
    for _ in range(20):
        it.failed(now, now - 5, None)
    assert it.admit(now + 1).action == "admit"


def test_after_a_good_probe_calls_are_released_faster_and_faster_until_it_is_closed():
    it = breaker()
    now = healthy(it, rate=10.0)
    fail(it, now)
    now = probed(it, now)
    released = [0] * 20
    for step in range(20 * 50):  # fifty calls a second ask, ten did before
        at = now + step / 50
        if it.admit(at).action == "admit":
            released[step // 50] += 1
            it.succeeded(at, started=at)
    assert released[0] < 10 < released[6] <= 25
    assert released == sorted(released)
    for step in range(20 * 10):  # now as many as before: nobody is held up, and it closes
        at = now + 20 + step / 10
        assert it.admit(at).action == "admit"
        it.succeeded(at, started=at)
    assert [it.admit(now + 41).action for _ in range(500)] == ["admit"] * 500


def test_failures_while_recovering_cut_the_rate_and_many_open_the_circuit_again():
    def released(troubles: int) -> int:
        it = breaker()
        now = healthy(it, rate=10.0)
        fail(it, now)
        now = probed(it, now)
        count = 0
        for step in range(400):
            at = now + step / 50
            if it.admit(at).action == "admit":
                count += 1
                if count % 4 == 0 and troubles:
                    troubles -= 1
                    it.failed(at, at, None)
                else:
                    it.succeeded(at, started=at)
        return count

    assert released(troubles=3) < 0.8 * released(troubles=0)
    it = breaker()
    now = healthy(it)
    fail(it, now)
    now = probed(it, now)
    fail(it, now + 1, times=MIN_FAILURES // 2)
    assert it.admit(now + 1).rejected


def test_during_the_release_what_one_call_is_asked_to_wait_holds_for_all_of_them():
    it = breaker()
    now = healthy(it)
    fail(it, now)
    now = probed(it, now)
    assert it.admit(now + 1).action == "admit"
    it.failed(now + 1.1, now + 1, 2.0)
    assert {it.admit(now + 1.1 + step / 10).action for step in range(20)} == {"reject"}
    assert it.admit(now + 4.5).action == "admit"


def test_calls_that_may_wait_are_admitted_in_the_order_of_arrival():
    it = breaker(max_wait_s=30.0)
    now = healthy(it, rate=5.0)
    fail(it, now)
    waiting = {number: it.admit(now + number / 100) for number in range(20)}
    assert {admission.action for admission in waiting.values()} == {"wait"}
    asleep = {number: now + number / 100 + admission.delay_s for number, admission in waiting.items()}
    order, end = [], now + 30
    while asleep and (at := min(asleep.values())) < end:
        number = min(asleep, key=asleep.__getitem__)
        admission = it.admit(at, previous=waiting[number])
        if admission.action == "wait":
            waiting[number] = admission
            asleep[number] = at + admission.delay_s
        else:
            assert admission.action == "admit"
            order.append(number)
            del asleep[number]
            it.succeeded(at, started=at)
    assert not asleep
    assert sorted(order) == list(range(20))
    late = [abs(number - place) for place, number in enumerate(order[1:])]  # the first was the probe
    assert max(late) <= 8, order  # polls are spread, so neighbours may change places


def test_no_call_waits_longer_than_allowed_and_the_queue_is_bounded():
    it = breaker(max_wait_s=10.0)
    now = healthy(it, rate=5.0)
    fail(it, now)
    answers = [it.admit(now).action for _ in range(500)]
    assert 30 <= answers.count("wait") <= 75  # ten seconds' worth, at a third more than the five a second of before
    assert answers[-1] == "reject"
    first = it.admit(now)
    assert first.rejected
    assert first.retry_after > 0


def test_a_call_that_waited_as_long_as_allowed_is_rejected_and_the_next_takes_its_place():
    it = breaker(max_wait_s=3.0)
    now = healthy(it)
    fail(it, now, retry_after=2.0)
    first, second = it.admit(now), it.admit(now + 0.5)
    assert (first.action, second.action) == ("wait", "wait")
    now += it.seconds_until_probe(now)
    assert it.admit(now).action == "admit"  # a probe, which fails
    it.failed(now, now, 50.0)
    late = it.admit(now + 3.0, previous=first)
    assert late.rejected
    assert late.retry_after > 40
    now = probed(it, now)
    answer = it.admit(now + 1.0, previous=second._replace(waiting_since=now))
    assert answer.action == "admit"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.001, 3.0), st.sampled_from(["ok", "bad", "asks", "lost"])), max_size=250),
    st.sampled_from([0.0, 20.0]),
)
def test_a_healthy_target_is_always_reached_again_and_every_wait_ends(steps, max_wait_s):
    it, now = breaker(max_wait_s), 0.0
    for delay, outcome in steps:
        now += delay
        admission = it.admit(now)
        since = now
        while admission.action == "wait":
            assert 0 < admission.delay_s <= max_wait_s * 1.3
            now += admission.delay_s
            admission = it.admit(now, previous=admission)
            assert now - since <= max_wait_s + 1e-6
        if admission.rejected:
            assert admission.retry_after >= 0
        elif outcome == "ok":
            it.succeeded(now, started=now)
        elif outcome != "lost":
            it.failed(now, now, 45.0 if outcome == "asks" else None)
    end = now + 60 + 3 * LATE + 30
    last = []
    while now < end:
        now += 0.2
        admission = it.admit(now)
        while admission.action == "wait":  # one call after the other, each as patient as it may be
            now += admission.delay_s
            admission = it.admit(now, previous=admission)
        last.append(admission.action)
        if admission.action == "admit":
            it.succeeded(now, started=now)
    assert set(last[-25:]) == {"admit"}


@pytest.mark.parametrize("seed", range(3))
def test_processes_do_not_probe_in_step(seed):
    ends = []
    for process in range(50):
        it = CircuitBreaker(max_wait_s=0.0, longest_pause_s=60.0, rng=Random(seed * 100 + process))
        fail(it, 0.0, retry_after=20.0)
        ends.append(it.seconds_until_probe(0.0))
    assert max(ends) - min(ends) > 0.5
    assert len(set(ends)) == 50


def test_the_former_name_answers_with_the_former_actions():
    it = Gate(max_wait_s=0.0, longest_pause_s=60.0, rng=Random(7))
    assert it.admit(1.0).action == "go"
    fail(it, 1.0)
    assert it.admit(1.0).action == "open"
