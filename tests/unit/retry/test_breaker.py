from __future__ import annotations

import itertools
from collections import deque
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_cost_middleware.retry.breaker import MAX_OPEN_S, MIN_FAILURES, SLOW_OPEN_S, CircuitBreaker
from llm_cost_middleware.retry.gate import Gate

LATE = 1.25 * MAX_OPEN_S[1]  # no pause without a word of the provider is longer


def breaker(max_wait_s: float = 0.0) -> CircuitBreaker:
    return CircuitBreaker(max_wait_s=max_wait_s, longest_pause_s=60.0, rng=Random(7))


def healthy(it: CircuitBreaker, until: float = 60.0, rate: float = 5.0) -> float:
    """Calls at a steady rate, each answered two seconds later."""
    for step in range(int(until * rate)):
        now = step / rate
        assert it.admit(now).action == "admit"
        it.succeeded(now, started=now - 2)
    return until


def fail(
    it: CircuitBreaker,
    now: float,
    times: int = MIN_FAILURES,
    retry_after: float | None = None,
    *,
    timeout: bool = False,
) -> None:
    for _ in range(times):
        it.failed(now, now, retry_after, timeout=timeout)


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


@pytest.mark.parametrize(
    ("every", "times", "opens"),
    [(0.6, 5, True), (0.6, 4, False), (0.1, 5, False), (2.0, 5, True)],
)
def test_where_calls_are_few_some_failures_in_a_row_open_it(every, times, opens):
    it = breaker()
    now = healthy(it)
    for at in (now + step * every for step in range(times)):
        it.failed(at, at, None)
        assert it.seconds_until_probe(at) == 0 or opens
    assert (it.seconds_until_probe(at) > 0) == opens


def test_an_answer_between_them_breaks_the_row():
    it = breaker()
    now = healthy(it)
    for step in range(9):
        at = now + step * 0.6
        it.succeeded(at, at) if step % 4 == 3 else it.failed(at, at, None)
        assert it.admit(at).action == "admit"


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_in_an_outage_few_of_the_calls_offered_are_sent(rate):
    """Over a minute, after many; at random moments, each tried up to three times while the circuit is closed."""
    sent = offered = 0
    for seed in range(40):
        rng = Random(seed)
        it = CircuitBreaker(max_wait_s=0.0, longest_pause_s=60.0, rng=rng)
        now = healthy(it)
        ends = now + 60
        events = []
        while (now := now + rng.expovariate(rate)) < ends:
            events += [(now + pause, pause == 0) for pause in (0.0, 0.7, 2.0)]
        for at, is_new in sorted(events):
            offered += is_new
            if (is_new or it._state == "closed") and it.admit(at).action == "admit":
                sent += 1
                it.failed(at + 0.05, at, None)
    assert sent <= 0.6 * offered


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
        it.failed(1.0, 1.0, None, timeout=True)
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


@pytest.mark.parametrize(("offered", "longest"), [(10.0, 2.0), (1.0, 6.5), (0.2, 8.0)])
def test_probes_become_rarer_and_the_fewer_calls_are_offered_the_rarer_they_stay(offered, longest):
    it = breaker()
    now = healthy(it)
    fail(it, now)
    probes = []
    for step in range(int(120 * offered)):
        at = now + step / offered
        if it.admit(at).action == "admit":
            probes.append(at)
            it.failed(at, at, None)
    pauses = [after - before for before, after in itertools.pairwise(probes)]
    assert pauses[0] <= max(1.25 * 2.0, 3 / offered)
    assert all(pause <= 1.25 * longest + 2 / offered for pause in pauses)
    assert max(pauses) >= 0.75 * longest
    assert len(probes) <= 0.5 * 120 * offered + 1


def test_probes_of_a_target_that_times_out_are_rarer_as_they_may_be_billed():
    it = breaker()
    now = healthy(it)
    for _ in range(MIN_FAILURES // 2):
        it.failed(now, now, None, timeout=True)
    probes = []
    for step in range(1_200):
        at = now + step / 10
        if it.admit(at).action == "admit":
            probes.append(at)
            it.failed(at, at, None, timeout=True)
    assert min(after - before for before, after in itertools.pairwise(probes[4:])) >= 0.75 * SLOW_OPEN_S


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


@pytest.mark.parametrize("timeout", [False, True])
@pytest.mark.parametrize(("before", "after"), [(50, 50), (5, 50), (1, 50), (1, 200), (200, 200), (100, 2)])
def test_two_seconds_after_a_good_probe_every_call_passes_whatever_the_rate(before, after, timeout):
    it = breaker()
    now = healthy(it, rate=before)
    fail(it, now, timeout=timeout)
    for step in range(10 * after):
        at = now + step / after
        if it.admit(at).action == "admit":
            it.failed(at, at, None, timeout=timeout)
    now = probed(it, now + 10.0)
    answers, under_way = [], deque()
    for step in range(30 * after):
        at = now + step / after
        while under_way and under_way[0] <= at - 2.0:  # answered after two seconds, as before the failure
            it.succeeded(at, started=under_way.popleft())
        admitted = it.admit(at).action == "admit"
        answers.append(admitted)
        if admitted:
            under_way.append(at)
    assert all(answers[2 * after :])
    first = answers[: after // 2]
    assert sum(first) <= 0.6 * len(first) + 1  # not all of them at once


def test_a_target_that_timed_out_and_is_slow_still_has_no_queue_of_calls_in_flight():
    it = breaker()
    now = healthy(it, rate=10.0)
    fail(it, now, timeout=True)
    now = probed(it, now + 1.0)
    admitted = 0
    for step in range(300):  # nothing is answered: a queue at the provider
        admitted += it.admit(now + step / 10).action == "admit"
    assert 15 <= admitted <= 60  # about two seconds' worth, twice
    # the same after quick failures is not held up: nothing shows that it is slow
    it = breaker()
    now = healthy(it, rate=10.0)
    fail(it, now)
    now = probed(it, now + 1.0)
    assert sum(it.admit(now + step / 10).action == "admit" for step in range(300)) > 280


def test_a_call_in_flight_that_is_cancelled_makes_room():
    it = breaker()
    now = healthy(it, rate=1.0)
    fail(it, now, timeout=True)
    now = probed(it, now + 1.0)
    for step in range(600):
        at = now + step / 10
        if it.admit(at).action == "admit":
            it.ended(at)
        assert step < 30 or it.admit(at).action == "admit"
        it.ended(at)


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
    answers = [it.admit(now) for _ in range(500)]
    waits = [answer.action for answer in answers].count("wait")
    assert 30 <= waits <= 300  # ten seconds' worth of the rate that is offered now, and a third more
    assert all(answer.retry_after > 0 for answer in answers if answer.rejected)


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


def test_what_is_told_without_a_lock_is_what_is_told_with_one():
    plain, short = breaker(), breaker()
    now = healthy(plain)
    assert healthy(short) == now
    for _ in range(100):
        now += 0.2
        assert plain.admit(now).action == "admit"
        assert short.admits(now)
        plain.succeeded(now, now - 1)
        assert short.answered(now, now - 1)
    for it in (plain, short):
        fail(it, now, 3)
        assert not it.answered(now, now - 1), "a failure is in the window"
        fail(it, now)
        assert not it.admits(now), "it is open"
        assert it.admit(now).rejected
    assert plain.seconds_until_probe(now) == short.seconds_until_probe(now) > 0
