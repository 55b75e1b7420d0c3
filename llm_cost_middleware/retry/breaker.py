"""Circuit breaker of one target, which lets go as soon as the target accepts calls again.

Closed, every call is admitted. When half of the last outcomes are failures, or for some seconds none was anything else,
the breaker opens for a time that doubles with every failed probe, or for as long as the provider asks. Then one call at
a time is admitted as a probe. After the first that succeeds the breaker is recovering: it admits a share of the calls
that are offered now, whatever their rate before the failure, as client-side adaptive throttling does (Google, Site
Reliability Engineering, chapter "Handling Overload"). The share reaches one within ``RAMP_S`` unless failures come
back; each cuts it (multiplicative decrease, as in TCP), and what was cut returns the faster, the longer none follows
(as in CUBIC, RFC 9438). When the share is one and nothing was held up for a while, the breaker closes.

A target that failed by timeouts is slow, and its next failure is seen only when the next timeout ends. There the calls
in flight are limited, too: to twice what the demand of now keeps in flight at the latency of before (Little's law), so
that a queue at the provider stays short, and a target that is whole again never meets the limit.

Calls that may wait take a ticket and are admitted in order; others are rejected with the time after which to ask again.
Pure arithmetic: time and randomness are arguments.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Literal, NamedTuple

from llm_cost_middleware.retry.demand import InFlight, Rate, TypicalLatency

# The figures were chosen in a simulation of 1,000 clients against an outage, a rate limit and a brownout with steady
# traffic (tests/benchmarks/retry_storm.py, seeds 0 to 2), and are reported for other seeds, capacities and traffic.
WINDOW_SIZE = 20
MIN_FAILURES = 10  # one process sends few calls a minute: resilience4j's 100 would never be reached
TIMEOUT_WEIGHT = 2  # a timeout usually means several slow calls, and each of them may be billed
FAILURE_RATIO = 0.5  # as resilience4j; Polly's 0.1 would open on ordinary rate limits
FAILURES_IN_A_ROW = 5  # as Envoy's consecutive_5xx: at a call every two seconds, ten failures are a third of a minute's
IN_A_ROW_S = 2.0  # and for so long: calls sent together fail together, which is one sign and not five
WINDOW_MAX_AGE_S = 30.0  # after such a pause earlier outcomes describe another state of the target
MIN_OPEN_S = 1.0
OPEN_CALLS = 5  # of the calls offered, one in so many is a probe at most, within these limits of time:
MAX_OPEN_S = (2.0, 8.0)  # 30 s cost 17 s of recovery
SLOW_OPEN_S = 5.0  # a probe that times out may be billed
RAMP_S = 1.5  # from the first accepted probe to every call
START_SHARE = 0.2  # of the calls offered, right after it
DECREASE_FACTOR = 0.7  # as in CUBIC and the AWS SDKs' adaptive mode
DECREASE_INTERVAL_S = 1.0  # calls sent together fail together: one decrease for all of them
MIN_SHARE = 0.02
INCREASE_AFTER_FAILURE_PER_S = 0.03  # of the calls offered, in the first second without a failure; doubled in each next
DRAIN_RATIO = 1.3  # a queue is drained this much faster than it would grow, so that it makes no new peak
MIN_DRAIN_RATE = 1.0  # calls a second
QUIET_S = 3.0
POLL_S = (0.05, 1.0)  # the shortest and the longest sleep of a call that waits while others are admitted
RUSH_MEMORY_S = 2.0  # evens out chance at a few calls a second, and still follows a rush
TRAFFIC_MEMORY_S = 30.0
MIN_IN_FLIGHT = 4
IN_FLIGHT_RATIO = 2.0  # times what the demand needs at the usual latency


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

    But for ``admits`` and ``answered``: these change what is measured alone, and no state. Where two threads meet, one
    of two events may not count.

    Args:
        max_wait_s: How long a call may wait; 0: not at all.
        longest_pause_s: The longest pause that a provider may ask for.
        rng: Spreads probes and polls, so that processes do not move in step.
    """

    __slots__ = (
        "_changed_at",
        "_decreased_at",
        "_failures",
        "_in_flight",
        "_last_outcome_at",
        "_latency",
        "_longest_pause_s",
        "_max_wait_s",
        "_paused_until",
        "_pressure_at",
        "_probe_at",
        "_probing",
        "_rng",
        "_rush",
        "_share",
        "_slow",
        "_state",
        "_streak",
        "_streak_began",
        "_tickets_admitted",
        "_tickets_issued",
        "_timeouts",
        "_traffic",
        "_trips",
        "_updated_at",
        "_window",
    )

    def __init__(self, *, max_wait_s: float, longest_pause_s: float, rng: Random) -> None:
        self._max_wait_s, self._longest_pause_s, self._rng = max_wait_s, longest_pause_s, rng
        self._state: Literal["closed", "open", "recovering"] = "closed"
        self._window: deque[bool] = deque(maxlen=WINDOW_SIZE)
        self._failures = self._timeouts = self._streak = 0
        self._streak_began = 0.0
        self._last_outcome_at = self._changed_at = self._probe_at = self._paused_until = 0.0
        self._updated_at = self._pressure_at = 0.0
        self._decreased_at: float | None = None
        self._trips = 0
        self._probing = self._slow = False
        self._traffic, self._rush = Rate(TRAFFIC_MEMORY_S), Rate(RUSH_MEMORY_S)
        self._latency, self._in_flight = TypicalLatency(), InFlight()
        self._share = 1.0
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
        if previous is None:
            self._traffic.add(now)
            self._rush.add(now)
        if self._state == "closed":
            return ADMITTED
        if self._state == "open":
            return self._admit_open(now, previous)
        return self._admit_recovering(now, previous)

    def admits(self, now: float) -> bool:
        """Admit a call where it is closed; false: ``admit`` must be asked."""
        if self._state != "closed":
            return False
        self._traffic.add(now)
        self._rush.add(now)
        return True

    def answered(self, now: float, started: float) -> bool:
        """Record one more answer among answers alone: the window stays as it is. False: nothing, as it is not so."""
        if (
            self._failures
            or self._state != "closed"
            or len(self._window) != WINDOW_SIZE
            or now - self._last_outcome_at > WINDOW_MAX_AGE_S
        ):
            return False
        self._last_outcome_at = now
        self._latency.add(now, now - started)
        return True

    def succeeded(self, now: float, started: float | None) -> None:
        """Record an answer, if only a refusal that is not the target's fault."""
        if started is not None and self.answered(now, started):
            return
        if self._state == "closed":
            self._record(now, failed=False)
            if started is not None and not self._failures:
                self._latency.add(now, now - started)
        elif started is not None and started < self._changed_at:
            return  # an answer to what was sent before the last change shows nothing of the target now
        elif self._state == "open":
            if self._probing:
                self._start_recovery(now, started)
        else:
            self._in_flight.end()
            self._record(now, failed=False)

    def failed(self, now: float, started: float | None, retry_after: float | None, *, timeout: bool = False) -> None:
        """Record a failure of the target; one of a call sent before the last change of state is ignored.

        Args:
            now: Monotonic seconds.
            started: When the call was sent.
            retry_after: Seconds that the provider asks to wait.
            timeout: No answer came in time; it counts for more than one outcome.
        """
        if started is not None and started < self._changed_at and self._state != "closed":
            return
        if self._state == "open":
            if self._probing:
                self._probe_at = max(self._probe_at, now + self._open_time(now, retry_after))
            return
        for _ in range(TIMEOUT_WEIGHT if timeout else 1):
            self._record(now, failed=True)
        self._timeouts += TIMEOUT_WEIGHT if timeout else 0
        if self._state == "recovering":
            self._in_flight.end()
            self._pressure_at = now
            self._slow = self._slow or timeout
            self._decrease_share(now)
            if retry_after is not None:  # asked of one call, meant for all
                self._paused_until = max(self._paused_until, now + min(retry_after, SLOW_OPEN_S))
        least = MIN_FAILURES if self._state == "closed" else MIN_FAILURES // 2
        in_a_row = self._streak >= FAILURES_IN_A_ROW and now - self._streak_began >= IN_A_ROW_S
        if in_a_row or (self._failures >= least and self._failures >= FAILURE_RATIO * len(self._window)):
            self._open(now, retry_after)

    def ended(self, now: float) -> None:
        """Note that an admitted call ended in a way that says nothing of the target: cancelled, or not sent at all."""
        self._in_flight.end()
        if self._state == "open" and self._probing:
            self._probe_at = min(self._probe_at, now + POLL_S[0])  # it may have been the probe

    def _admit_open(self, now: float, previous: Admission | None) -> Admission:
        if now >= self._probe_at:
            self._probing = True
            self._trips += 1
            self._probe_at = now + self._open_time(now, None)  # the next probe, unless this one is answered before
            return ADMITTED
        return self._wait_or_reject(now, self._probe_at - now, previous)

    def _admit_recovering(self, now: float, previous: Admission | None) -> Admission:
        self._raise_share(now, offered=previous is None)
        ticket = previous.ticket if previous is not None else self._tickets_issued + 1
        if ticket <= self._tickets_admitted and now >= self._paused_until and not self._is_full(now):
            self._tickets_issued = max(self._tickets_issued, ticket)
            if self._share >= 1.0 and now - self._pressure_at >= self._quiet_s:
                self._close()
            elif self._slow:
                self._in_flight.begin(now)
            return ADMITTED
        self._pressure_at = max(self._pressure_at, now)  # a call is held up: the limit still matters
        ahead = max(ticket - self._tickets_admitted, 0.0) / self._drain_rate(now)
        return self._wait_or_reject(now, max(ahead, self._paused_until - now, POLL_S[0]), previous)

    @property
    def _quiet_s(self) -> float:
        """Seconds without trouble after which nothing needs to be limited any more."""
        # a limit on calls in flight shows only when so many of them are under way
        return QUIET_S + (IN_FLIGHT_RATIO * (self._latency.seconds or 0.0) if self._slow else 0.0)

    def _is_full(self, now: float) -> bool:
        if not self._slow:
            return False
        needed = self._rush.per_second(now) * (self._latency.seconds or 0.0)
        return self._in_flight.count(now) >= max(IN_FLIGHT_RATIO * needed, MIN_IN_FLIGHT)

    def _drain_rate(self, now: float) -> float:
        return max(DRAIN_RATIO * self._traffic.per_second(now), MIN_DRAIN_RATE)

    def _wait_or_reject(self, now: float, delay: float, previous: Admission | None) -> Admission:
        """Issue or keep a ticket; reject where the wait would be longer than ``max_wait_s``."""
        since = previous.waiting_since if previous is not None else now
        if previous is None:
            behind = max(self._tickets_issued - self._tickets_admitted, 0.0) / self._drain_rate(now)
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
        if failed and not self._streak:
            self._streak_began = now
        self._streak = self._streak + 1 if failed else 0
        window.append(failed)
        self._failures += failed
        if not self._failures:
            self._timeouts = 0

    def _clear_window(self) -> None:
        self._window.clear()
        self._failures = self._timeouts = self._streak = 0

    def _open_time(self, now: float, asked: float | None) -> float:
        shortest, most = MAX_OPEN_S
        offered = min(self._traffic.of_others(now), self._rush.of_others(now))
        spared = max(OPEN_CALLS / max(offered, 0.01), SLOW_OPEN_S if self._slow else shortest)
        most = min(spared, most)
        longest = min(MIN_OPEN_S * 2.0 ** min(self._trips - 1, 16), most)
        pause = longest * self._rng.uniform(0.75, 1.25)
        if asked is None or asked <= pause:
            return pause
        # never exactly what was asked: processes that obey to the second return together
        return min(asked, self._longest_pause_s) + self._rng.uniform(0.0, pause)

    def _open(self, now: float, retry_after: float | None) -> None:
        self._trips = max(self._trips, 1)
        self._slow = self._timeouts >= FAILURE_RATIO * self._failures
        self._state, self._changed_at, self._probing = "open", now, False
        self._probe_at = now + self._open_time(now, retry_after)

    def _start_recovery(self, now: float, started: float | None) -> None:
        self._state, self._changed_at = "recovering", now
        self._share, self._decreased_at, self._paused_until = START_SHARE, None, now
        self._updated_at = self._pressure_at = now
        self._clear_window()
        self._in_flight.clear()
        if self._latency.seconds is None and started is not None:
            self._latency.add(now, now - started)
        # calls that have waited longer than they may are gone: their tickets count as admitted
        longest_queue = self._max_wait_s * self._drain_rate(now)
        self._tickets_admitted = max(self._tickets_admitted, self._tickets_issued - longest_queue) + 1.0

    def _raise_share(self, now: float, *, offered: bool) -> None:
        """Let the share grow with time, and admit that share of the calls offered, and of those that wait."""
        spent = now - max(self._updated_at, self._paused_until)
        self._updated_at = now
        if spent > 0:
            if self._decreased_at is None:
                self._share += (1.0 - START_SHARE) / RAMP_S * spent
            else:
                calm = min(now - max(self._decreased_at, self._paused_until), 16.0)
                self._share += INCREASE_AFTER_FAILURE_PER_S * 2.0**calm * spent
            self._share = min(self._share, 1.0)
            if self._tickets_issued > self._tickets_admitted:  # some wait
                extra = self._drain_rate(now) - self._traffic.per_second(now)
                self._tickets_admitted += self._share * max(extra, 0.0) * spent
        self._tickets_admitted += self._share if offered else 0.0
        self._tickets_admitted = min(self._tickets_admitted, self._tickets_issued + 1.0)  # nothing is saved up

    def _decrease_share(self, now: float) -> None:
        if self._decreased_at is None or now - self._decreased_at >= DECREASE_INTERVAL_S:
            self._share = max(self._share * DECREASE_FACTOR, MIN_SHARE)
            self._decreased_at = now

    def _close(self) -> None:
        self._state, self._trips, self._slow = "closed", 0, False
        self._clear_window()
        self._in_flight.clear()
        self._tickets_admitted = float(self._tickets_issued)
