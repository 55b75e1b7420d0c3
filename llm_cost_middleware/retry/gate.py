"""The gate in front of one target: a circuit breaker that half-opens, and a paced release after it did.

Closed, everybody passes. When half of the last outcomes are trouble, the gate opens its circuit: for a moment that
doubles with every failed probe, or for as long as the provider asks. Then one call at a time is let through as a probe.
After the first that succeeds, calls are released at a rate that starts below what the target bore before, grows, and
is cut on trouble. When that rate exceeds the demand, the gate is closed again.

Calls that may wait do so in a queue of tickets, first come, first served; those that may not are turned away with the
time after which it is worth asking again. Everything here is arithmetic on numbers handed in.
"""

from __future__ import annotations

from collections import deque
from math import exp
from random import Random
from typing import Literal, NamedTuple

OUTCOMES = 20  # the last outcomes that are looked at
MIN_FAILURES = 10  # of them, so that a quiet process is not judged by two of them
TIMEOUT_WEIGHT = 2  # a timeout tells of many calls behind it, and each of them may be billed
FAILURE_SHARE = 0.5
FORGET_S = 30.0  # without an outcome for this long, the earlier ones say nothing
FIRST_OPEN_S = 1.0
LONGEST_OPEN_S = 5.0  # a probe every five seconds costs little, and finds the end of an outage early
HEALTH_UP_S = 30.0  # the healthy rate follows more calls in this time, and fewer ten times as slowly,
HEALTH_DOWN_S = 300.0  # because a target that slows down must not be taken for a smaller demand
LEAST_RATE = 1.0  # calls a second
START = 0.3  # of the healthy rate, after the first successful probe
GROWTH = 0.2  # of the healthy rate, a second
GROWTH_AFTER_CUT = 0.05
CUT = 0.7
CUT_EVERY_S = 1.0
ENOUGH = 1.2  # times the healthy rate: there is nothing left to pace, once nobody is held up either
FAST_UNTIL = 1.3  # times the healthy rate; beyond it a queue is drained slowly, so that it makes no new peak
CREEP = 0.01
QUIET_S = 3.0
BURST_S = 1.0
POLL_S = (0.05, 1.0)  # the shortest and the longest sleep of a call that waits while others are released


class Admission(NamedTuple):
    """The answer of a gate."""

    action: Literal["go", "wait", "open"]
    """``go``: send. ``wait``: sleep ``delay_s``, then ask again with this admission. ``open``: do not send."""
    delay_s: float = 0.0
    retry_after: float = 0.0
    """Seconds after which it is worth asking again, when ``open``."""
    since: float = 0.0
    """When the call began to wait."""
    ticket: int = 0

    @property
    def open(self) -> bool:
        """The circuit is open, and the call may not wait any longer."""
        return self.action == "open"


GO = Admission("go")


class Gate:
    """One target's gate. Not thread-safe: its owner holds a lock.

    Args:
        max_wait_s: How long a call may wait; 0: not at all.
        longest_pause_s: The longest pause that a provider may ask for.
        rng: Spreads probes and polls, so that processes do not move in step.
    """

    __slots__ = (
        "_allowed",
        "_bad",
        "_changed",
        "_counted",
        "_counting_since",
        "_cut_at",
        "_growth",
        "_healthy",
        "_issued",
        "_last",
        "_longest_pause_s",
        "_max_wait_s",
        "_mode",
        "_outcomes",
        "_probing",
        "_rate",
        "_rng",
        "_stepped",
        "_trips",
        "_troubled",
        "_until",
    )

    def __init__(self, *, max_wait_s: float, longest_pause_s: float, rng: Random) -> None:
        self._max_wait_s, self._longest_pause_s, self._rng = max_wait_s, longest_pause_s, rng
        self._mode: Literal["closed", "open", "paced"] = "closed"
        self._outcomes: deque[bool] = deque(maxlen=OUTCOMES)
        self._bad = 0
        self._last = self._changed = self._until = self._cut_at = self._stepped = self._troubled = 0.0
        self._trips = 0
        self._probing = False
        self._healthy: float | None = None
        self._counted, self._counting_since = 0, 0.0
        self._rate = LEAST_RATE
        self._growth = GROWTH
        self._issued, self._allowed = 0, 0.0

    def closed_for(self, now: float) -> float:
        """Seconds until the circuit lets a probe through; 0 where it is not open."""
        return max(self._until - now, 0.0) if self._mode == "open" else 0.0

    def admit(self, now: float, previous: Admission | None = None) -> Admission:
        """May one call be sent now? ``previous`` is the answer after which it waited."""
        if self._mode == "closed":
            return GO
        if self._mode == "open":
            return self._admit_open(now, previous)
        return self._admit_paced(now, previous)

    def succeeded(self, now: float, started: float | None) -> None:
        """A call was answered, if only with a refusal that is not the target's fault."""
        if self._mode == "closed":
            self._count(now)
            self._note(now, bad=False)
        elif self._mode == "open":
            if self._probing and (started is None or started >= self._changed):
                self._pace(now)
        else:
            self._note(now, bad=False)

    def failed(self, now: float, started: float | None, retry_after: float | None, *, weight: int = 1) -> None:
        """A call met trouble at the target. Trouble of calls that were under way before the last turn is old news."""
        if started is not None and started < self._changed and self._mode != "closed":
            return
        if self._mode == "open":
            if self._probing:
                self._until = max(self._until, now + self._pause(retry_after))
            return
        for _ in range(weight):
            self._note(now, bad=True)
        if self._mode == "paced":
            self._troubled = now
            self._cut(now)
            if retry_after is not None:  # asked of one call, meant for all
                self._stepped = max(self._stepped, now + min(retry_after, LONGEST_OPEN_S))
                self._allowed = min(self._allowed, float(self._issued))
        least = MIN_FAILURES if self._mode == "closed" else MIN_FAILURES // 2
        if self._bad >= least and self._bad >= FAILURE_SHARE * len(self._outcomes):
            self._trip(now, retry_after)

    def _admit_open(self, now: float, previous: Admission | None) -> Admission:
        if now >= self._until:
            self._probing = True
            self._trips += 1
            self._until = now + self._pause(None)  # the next probe, unless this one is answered before
            return GO
        return self._queue(now, self._until - now, previous)

    def _admit_paced(self, now: float, previous: Admission | None) -> Admission:
        self._step(now)
        ticket = previous.ticket if previous is not None else self._issued + 1
        if ticket <= self._allowed:
            self._issued = max(self._issued, ticket)
            if self._rate >= ENOUGH * self._health and now - self._troubled >= QUIET_S:
                self._close()
            return GO
        self._troubled = max(self._troubled, now)  # somebody is held up: the pace still matters
        return self._queue(now, (ticket - self._allowed) / self._rate, previous)

    def _queue(self, now: float, delay: float, previous: Admission | None) -> Admission:
        """Take, or keep, a place in the queue; ``open`` where the wait would be too long."""
        since = previous.since if previous is not None else now
        if previous is None:
            behind = max(self._issued - self._allowed, 0.0) / (FAST_UNTIL * self._health)
            if max(self.closed_for(now), 0.0) + behind >= self._max_wait_s:
                return Admission("open", retry_after=max(delay, self.closed_for(now) + behind))
            self._issued += 1
        elif now - since >= self._max_wait_s - POLL_S[0]:
            return self._turn_away(previous, delay)
        ticket = previous.ticket if previous is not None else self._issued
        left = since + self._max_wait_s - now
        poll = delay if self._mode == "open" else min(delay, POLL_S[1])
        sleep = min(max(poll, POLL_S[0]) * self._rng.uniform(1.0, 1.2), left)
        return Admission("wait", sleep, since=since, ticket=ticket)

    def _turn_away(self, previous: Admission, delay: float) -> Admission:
        if previous.ticket > self._allowed:
            self._allowed += 1  # its place goes to the one behind
        return Admission("open", retry_after=delay)

    def _note(self, now: float, *, bad: bool) -> None:
        outcomes = self._outcomes
        if now - self._last > FORGET_S:
            outcomes.clear()
            self._bad = 0
        elif len(outcomes) == OUTCOMES:
            self._bad -= outcomes[0]
        self._last = now
        outcomes.append(bad)
        self._bad += bad

    def _count(self, now: float) -> None:
        """Follow the rate of successes while all is well."""
        self._counted += 1
        spent = now - self._counting_since
        if spent >= BURST_S:
            rate = self._counted / spent
            if self._healthy is None:
                self._healthy = rate
            elif not self._bad:
                memory = HEALTH_UP_S if rate > self._healthy else HEALTH_DOWN_S
                self._healthy += (1.0 - exp(-spent / memory)) * (rate - self._healthy)
            self._counted, self._counting_since = 0, now

    @property
    def _health(self) -> float:
        return max(self._healthy or 0.0, LEAST_RATE)

    def _pause(self, asked: float | None) -> float:
        longest = min(FIRST_OPEN_S * 2.0 ** min(self._trips - 1, 16), LONGEST_OPEN_S)
        pause = longest * self._rng.uniform(0.75, 1.25)
        if asked is None or asked <= pause:
            return pause
        return min(asked, self._longest_pause_s) + self._rng.uniform(0.0, pause)

    def _trip(self, now: float, retry_after: float | None) -> None:
        self._trips = max(self._trips, 1)
        self._mode, self._changed, self._probing = "open", now, False
        self._until = now + self._pause(retry_after)

    def _pace(self, now: float) -> None:
        self._mode, self._changed = "paced", now
        self._rate = max(START * self._health, LEAST_RATE)
        self._growth = GROWTH
        self._stepped = self._troubled = now
        self._outcomes.clear()
        self._bad = 0
        self._allowed = max(self._allowed, self._issued - self._max_wait_s * FAST_UNTIL * self._health)

    def _step(self, now: float) -> None:
        spent = now - self._stepped
        if spent <= 0:
            return
        self._stepped = now
        health = self._health
        drained = self._rate >= FAST_UNTIL * health and self._max_wait_s > 0
        growth = CREEP if drained else self._growth
        self._rate += growth * health * spent
        self._allowed = min(self._allowed + self._rate * spent, self._issued + max(self._rate * BURST_S, 1.0))

    def _cut(self, now: float) -> None:
        if now - self._cut_at >= CUT_EVERY_S:
            self._cut_at = now
            self._rate = max(self._rate * CUT, LEAST_RATE / 2)
            self._growth = GROWTH_AFTER_CUT

    def _close(self) -> None:
        self._mode, self._trips = "closed", 0
        self._outcomes.clear()
        self._bad = 0
        self._allowed = float(self._issued)
