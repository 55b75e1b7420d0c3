"""Circuit breaker of one target, with a slow start after it closes again.

Closed, every call is admitted. When half of the last outcomes are failures, the breaker opens for a time that doubles
with every failed probe, or for as long as the provider asks. Then one call at a time is admitted as a probe. After the
first that succeeds the breaker is recovering: calls are admitted at a rate that starts below the target's rate before
the failure, increases steadily and decreases on failure (additive increase, multiplicative decrease, as in TCP). When
that rate exceeds the demand, the breaker closes.

Calls that may wait take a ticket and are admitted in order; others are rejected with the time after which to ask again.
Pure arithmetic: time and randomness are arguments.
"""

from __future__ import annotations

from collections import deque
from math import exp
from random import Random
from typing import Literal, NamedTuple

# The figures were chosen in a simulation of 1,000 clients against an outage, a rate limit and a brownout
# (tests/benchmarks/retry_storm.py), and hold there for other seeds; other ratios of capacity were not tried.
WINDOW_SIZE = 20
MIN_FAILURES = 10  # one process sends few calls a minute: resilience4j's 100 would never be reached
TIMEOUT_WEIGHT = 2  # a timeout usually means several slow calls, and each of them may be billed
FAILURE_RATIO = 0.5  # as resilience4j; Polly's 0.1 would open on ordinary rate limits
WINDOW_MAX_AGE_S = 30.0  # after such a pause earlier outcomes describe another state of the target
MIN_OPEN_S = 1.0
MAX_OPEN_S = 5.0  # a probe every five seconds costs little; 30 s cost 17 s of recovery
BASELINE_RISE_S = 30.0  # the baseline follows more calls in this time, and fewer ten times as slowly,
BASELINE_FALL_S = 300.0  # because a target that slows down must not be taken for a smaller demand
MIN_RATE = 1.0  # calls a second
START_RATIO = 0.3  # of the baseline, after the first successful probe
INCREASE_PER_S = 0.2  # of the baseline, a second
INCREASE_AFTER_FAILURE_PER_S = 0.05
DECREASE_FACTOR = 0.7  # as in CUBIC and the AWS SDKs' adaptive mode
DECREASE_INTERVAL_S = 1.0  # calls sent together fail together: one decrease for all of them
CLOSE_RATIO = 1.2  # times the baseline: there is nothing left to limit, once no call is held up either
DRAIN_RATIO = 1.3  # times the baseline; beyond it a queue is drained slowly, so that it makes no new peak
DRAIN_INCREASE_PER_S = 0.01
QUIET_S = 3.0
BURST_S = 1.0
POLL_S = (0.05, 1.0)  # the shortest and the longest sleep of a call that waits while others are admitted


class Admission(NamedTuple):
    """Answer of a breaker to one call."""

    action: Literal["admit", "wait", "reject"]
    """``admit``: send. ``wait``: sleep ``delay_s``, then ask again with this admission. ``reject``: do not send."""
    delay_s: float = 0.0
    retry_after: float = 0.0
    """Seconds after which it is worth asking again, when ``reject``."""
    waiting_since: float = 0.0
    """Monotonic seconds at which the call began to wait."""
    ticket: int = 0

    @property
    def rejected(self) -> bool:
        """Whether the call must not be sent and may not wait any longer."""
        return self.action == "reject"


ADMITTED = Admission("admit")


class CircuitBreaker:
    """Breaker of one target. Not thread-safe: its owner holds a lock.

    Args:
        max_wait_s: How long a call may wait; 0: not at all.
        longest_pause_s: The longest pause that a provider may ask for.
        rng: Spreads probes and polls, so that processes do not move in step.
    """

    __slots__ = (
        "_baseline",
        "_changed_at",
        "_counting_since",
        "_decreased_at",
        "_failures",
        "_increase",
        "_last_outcome_at",
        "_longest_pause_s",
        "_max_wait_s",
        "_pressure_at",
        "_probe_at",
        "_probing",
        "_rate",
        "_rng",
        "_state",
        "_successes",
        "_tickets_admitted",
        "_tickets_issued",
        "_trips",
        "_updated_at",
        "_window",
    )

    def __init__(self, *, max_wait_s: float, longest_pause_s: float, rng: Random) -> None:
        self._max_wait_s, self._longest_pause_s, self._rng = max_wait_s, longest_pause_s, rng
        self._state: Literal["closed", "open", "recovering"] = "closed"
        self._window: deque[bool] = deque(maxlen=WINDOW_SIZE)
        self._failures = 0
        self._last_outcome_at = self._changed_at = self._probe_at = self._decreased_at = 0.0
        self._updated_at = self._pressure_at = 0.0
        self._trips = 0
        self._probing = False
        self._baseline: float | None = None
        self._successes, self._counting_since = 0, 0.0
        self._rate = MIN_RATE
        self._increase = INCREASE_PER_S
        self._tickets_issued, self._tickets_admitted = 0, 0.0

    def seconds_until_probe(self, now: float) -> float:
        """Seconds until an open breaker admits a probe; 0 where it is not open."""
        return max(self._probe_at - now, 0.0) if self._state == "open" else 0.0

    def admit(self, now: float, previous: Admission | None = None) -> Admission:
        """Answer whether one call may be sent now.

        Args:
            now: Monotonic seconds.
            previous: The answer after which the call waited.
        """
        if self._state == "closed":
            return ADMITTED
        if self._state == "open":
            return self._admit_open(now, previous)
        return self._admit_recovering(now, previous)

    def succeeded(self, now: float, started: float | None) -> None:
        """Record an answer, if only a refusal that is not the target's fault."""
        if self._state == "closed":
            self._count_success(now)
            self._record(now, failed=False)
        elif self._state == "open":
            # an answer to what was sent before the breaker opened shows nothing of the target now
            if self._probing and (started is None or started >= self._changed_at):
                self._start_recovery(now)
        else:
            self._record(now, failed=False)

    def failed(self, now: float, started: float | None, retry_after: float | None, *, weight: int = 1) -> None:
        """Record a failure of the target; one of a call sent before the last change of state is ignored.

        Args:
            now: Monotonic seconds.
            started: When the call was sent.
            retry_after: Seconds that the provider asks to wait.
            weight: How many outcomes it counts for.
        """
        if started is not None and started < self._changed_at and self._state != "closed":
            return
        if self._state == "open":
            if self._probing:
                self._probe_at = max(self._probe_at, now + self._open_time(retry_after))
            return
        for _ in range(weight):
            self._record(now, failed=True)
        if self._state == "recovering":
            self._pressure_at = now
            self._decrease_rate(now)
            if retry_after is not None:  # asked of one call, meant for all
                self._updated_at = max(self._updated_at, now + min(retry_after, MAX_OPEN_S))
                self._tickets_admitted = min(self._tickets_admitted, float(self._tickets_issued))
        least = MIN_FAILURES if self._state == "closed" else MIN_FAILURES // 2
        if self._failures >= least and self._failures >= FAILURE_RATIO * len(self._window):
            self._open(now, retry_after)

    def _admit_open(self, now: float, previous: Admission | None) -> Admission:
        if now >= self._probe_at:
            self._probing = True
            self._trips += 1
            self._probe_at = now + self._open_time(None)  # the next probe, unless this one is answered before
            return ADMITTED
        return self._wait_or_reject(now, self._probe_at - now, previous)

    def _admit_recovering(self, now: float, previous: Admission | None) -> Admission:
        self._increase_rate(now)
        ticket = previous.ticket if previous is not None else self._tickets_issued + 1
        if ticket <= self._tickets_admitted:
            self._tickets_issued = max(self._tickets_issued, ticket)
            if self._rate >= CLOSE_RATIO * self._baseline_rate and now - self._pressure_at >= QUIET_S:
                self._close()
            return ADMITTED
        self._pressure_at = max(self._pressure_at, now)  # a call is held up: the limit still matters
        return self._wait_or_reject(now, (ticket - self._tickets_admitted) / self._rate, previous)

    def _wait_or_reject(self, now: float, delay: float, previous: Admission | None) -> Admission:
        """Issue or keep a ticket; reject where the wait would be longer than ``max_wait_s``."""
        since = previous.waiting_since if previous is not None else now
        if previous is None:
            behind = max(self._tickets_issued - self._tickets_admitted, 0.0) / (DRAIN_RATIO * self._baseline_rate)
            if self.seconds_until_probe(now) + behind >= self._max_wait_s:
                return Admission("reject", retry_after=max(delay, self.seconds_until_probe(now) + behind))
            self._tickets_issued += 1
        elif now - since >= self._max_wait_s - POLL_S[0]:
            if previous.ticket > self._tickets_admitted:
                self._tickets_admitted += 1  # its place goes to the call behind it
            return Admission("reject", retry_after=delay)
        ticket = previous.ticket if previous is not None else self._tickets_issued
        left = since + self._max_wait_s - now
        poll = delay if self._state == "open" else min(delay, POLL_S[1])
        sleep = min(max(poll, POLL_S[0]) * self._rng.uniform(1.0, 1.2), left)
        return Admission("wait", sleep, waiting_since=since, ticket=ticket)

    def _record(self, now: float, *, failed: bool) -> None:
        window = self._window
        if now - self._last_outcome_at > WINDOW_MAX_AGE_S:
            self._clear_window()
        elif len(window) == WINDOW_SIZE:
            self._failures -= window[0]
        self._last_outcome_at = now
        window.append(failed)
        self._failures += failed

    def _clear_window(self) -> None:
        self._window.clear()
        self._failures = 0

    def _count_success(self, now: float) -> None:
        """Follow the rate of successes while the breaker is closed."""
        self._successes += 1
        spent = now - self._counting_since
        if spent >= BURST_S:
            rate = self._successes / spent
            if self._baseline is None:
                self._baseline = rate
            elif not self._failures:
                memory = BASELINE_RISE_S if rate > self._baseline else BASELINE_FALL_S
                self._baseline += (1.0 - exp(-spent / memory)) * (rate - self._baseline)
            self._successes, self._counting_since = 0, now

    @property
    def _baseline_rate(self) -> float:
        return max(self._baseline or 0.0, MIN_RATE)

    def _open_time(self, asked: float | None) -> float:
        longest = min(MIN_OPEN_S * 2.0 ** min(self._trips - 1, 16), MAX_OPEN_S)
        pause = longest * self._rng.uniform(0.75, 1.25)
        if asked is None or asked <= pause:
            return pause
        # never exactly what was asked: processes that obey to the second return together
        return min(asked, self._longest_pause_s) + self._rng.uniform(0.0, pause)

    def _open(self, now: float, retry_after: float | None) -> None:
        self._trips = max(self._trips, 1)
        self._state, self._changed_at, self._probing = "open", now, False
        self._probe_at = now + self._open_time(retry_after)

    def _start_recovery(self, now: float) -> None:
        self._state, self._changed_at = "recovering", now
        self._rate = max(START_RATIO * self._baseline_rate, MIN_RATE)
        self._increase = INCREASE_PER_S
        self._updated_at = self._pressure_at = now
        self._clear_window()
        # calls that have waited longer than they may are gone: their tickets count as admitted
        longest_queue = self._max_wait_s * DRAIN_RATIO * self._baseline_rate
        self._tickets_admitted = max(self._tickets_admitted, self._tickets_issued - longest_queue)

    def _increase_rate(self, now: float) -> None:
        spent = now - self._updated_at
        if spent <= 0:
            return
        self._updated_at = now
        baseline = self._baseline_rate
        draining = self._rate >= DRAIN_RATIO * baseline and self._max_wait_s > 0
        self._rate += (DRAIN_INCREASE_PER_S if draining else self._increase) * baseline * spent
        burst = self._tickets_issued + max(self._rate * BURST_S, 1.0)  # what an idle second saved is not kept
        self._tickets_admitted = min(self._tickets_admitted + self._rate * spent, burst)

    def _decrease_rate(self, now: float) -> None:
        if now - self._decreased_at >= DECREASE_INTERVAL_S:
            self._decreased_at = now
            self._rate = max(self._rate * DECREASE_FACTOR, MIN_RATE / 2)
            self._increase = INCREASE_AFTER_FAILURE_PER_S

    def _close(self) -> None:
        self._state, self._trips = "closed", 0
        self._clear_window()
        self._tickets_admitted = float(self._tickets_issued)
