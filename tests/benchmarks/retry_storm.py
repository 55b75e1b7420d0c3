"""A seeded discrete-event simulation of many clients against a provider in trouble.

1,000 clients in 20 processes make 100 calls a second, whatever happens to them (an open loop). The provider has slots,
each busy for about two seconds a call, and a queue in front; a client gives up after 30 s, but what was sent is served
and billed all the same. Four troubles:

* ``outage``: every request is answered 503 for a minute;
* ``storm``: two minutes of a limit per fixed window of 60 s, answered 429 with ``retry-after`` to the next window;
* ``brownout``: for two minutes, most of the slots are gone;
* ``bucket``: as the storm, with a continuous token bucket and ``retry-after: 1``.

The policies of others are models of a few lines; ours is the package's own code, called as the lifecycle calls it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.retry.decision import FailedAttempt, decide
from llm_cost_middleware.retry.policy import RetryPolicy
from llm_cost_middleware.retry.state import RetryState

PROCESSES = 20
RATE = 100.0  # calls a second, all clients together
SLOTS = 300
SERVICE_S = 2.0
TIMEOUT_S = 30.0
PRICE = 0.01  # US dollars a served request
FAULT_AT = 60.0
LENGTH_S = 480.0
PROBE_S = 2.0  # from an accepted probe to the time when every call is to pass
AFTER_S = 120.0  # the part after the fault whose calls are watched for recovery
TARGET = ModelRef("anthropic", "claude-haiku-4-5-20251001")


@dataclass(frozen=True)
class Scenario:
    """One trouble. ``capacity`` is the share of the slots, or of the rate they can serve, that is left."""

    name: str
    kind: str
    fault_s: float
    capacity: float
    rate: float = RATE
    """Calls a second before the fault, all clients together."""
    rate_after: float = RATE
    """From its beginning on."""

    @property
    def slots(self) -> int:
        """What the provider can serve at once when it is whole: half as much again as the traffic needs."""
        return round(SLOTS * max(self.rate, self.rate_after) / RATE)

    def rate_at(self, now: float) -> float:
        return self.rate if now < FAULT_AT else self.rate_after

    @property
    def ends(self) -> float:
        return FAULT_AT + self.fault_s


SCENARIOS = {
    "outage": Scenario("outage", "outage", 60.0, 0.0),
    "storm": Scenario("storm", "window", 120.0, 1 / 3),
    "brownout": Scenario("brownout", "slots", 120.0, 0.3),
    "bucket": Scenario("bucket", "bucket", 120.0, 1 / 3),
}
TRAFFIC = {"rising 1 to 200": (1.0, 200.0), "rising 5 to 50": (5.0, 50.0), "falling 100 to 10": (100.0, 10.0)}
OTHER_TRAFFIC = {
    f"{name} {traffic}": replace(SCENARIOS[name], name=f"{name} {traffic}", rate=before, rate_after=after)
    for name in ("outage", "storm", "brownout")
    for traffic, (before, after) in TRAFFIC.items()
}
OTHER_CAPACITIES = {
    f"{name} at {capacity:.0%}": Scenario(f"{name} at {capacity:.0%}", SCENARIOS[name].kind, 120.0, capacity)
    for name in ("storm", "brownout", "bucket")
    for capacity in (0.1, 0.2, 0.5, 0.6)
}


class Simulation:
    """Time, and what happens next."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def at(self, time: float, what: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._heap, (time, next(self._order), what, args))

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.now, _, what, args = heapq.heappop(self._heap)
            what(*args)


@dataclass(eq=False, slots=True)
class Request:
    """One HTTP request: what the client is told, once."""

    done: Callable[[Failure | None], None]
    over: bool = False

    def tell(self, failure: Failure | None) -> bool:
        """Whether the client was still there to hear it."""
        if self.over:
            return False
        self.over = True
        self.done(failure)
        return True


OVERLOADED = Failure(FailureKind.SERVER_ERROR, retryable=True, retry_after=None, billed="no", reason="503")
TIMED_OUT = Failure(FailureKind.TIMEOUT, retryable=True, retry_after=None, billed="unknown", reason="timeout")


def _limited(seconds: float) -> Failure:
    return Failure(FailureKind.RATE_LIMITED, retryable=True, retry_after=seconds, billed="no", reason="429")


class Provider:
    """Slots, a queue, and the trouble of a scenario."""

    def __init__(self, sim: Simulation, scenario: Scenario, rng: Random, slots: int) -> None:
        self.sim, self.scenario, self.rng, self.slots = sim, scenario, rng, slots
        self.queue: deque[Request] = deque()
        self.busy = 0
        self.arrivals: list[float] = []
        self.billed = self.wasted = 0
        self._window, self._used = -1, 0
        self._tokens, self._filled = 1.0, FAULT_AT
        for moment in (FAULT_AT, scenario.ends):
            sim.at(moment, self._fill)

    def request(self, request: Request) -> None:
        self.arrivals.append(self.sim.now)
        failure = self._refusal()
        if failure is not None:
            self.sim.at(self.sim.now + 0.05, request.tell, failure)
            return
        self.sim.at(self.sim.now + TIMEOUT_S, request.tell, TIMED_OUT)
        self.queue.append(request)
        self._fill()

    def _refusal(self) -> Failure | None:
        scenario, now = self.scenario, self.sim.now
        if not FAULT_AT <= now < scenario.ends or scenario.kind == "slots":
            return None
        if scenario.kind == "outage":
            return OVERLOADED
        rate = scenario.capacity * self.slots / SERVICE_S
        if scenario.kind == "window":
            window = int(now // 60)
            if window != self._window:
                self._window, self._used = window, 0
            if self._used >= rate * 60:
                return _limited(float(math.ceil((window + 1) * 60 - now)))
            self._used += 1
            return None
        self._tokens = min(self._tokens + (now - self._filled) * rate, rate)
        self._filled = now
        if self._tokens < 1:
            return _limited(1.0)
        self._tokens -= 1
        return None

    def _fill(self) -> None:
        scenario = self.scenario
        slow = scenario.kind == "slots" and FAULT_AT <= self.sim.now < scenario.ends
        slots = int(self.slots * scenario.capacity) if slow else self.slots
        while self.queue and self.busy < slots:
            self.busy += 1
            took = self.rng.lognormvariate(math.log(SERVICE_S) - 0.125, 0.5)
            self.sim.at(self.sim.now + took, self._served, self.queue.popleft())

    def _served(self, request: Request) -> None:
        self.busy -= 1
        self.billed += 1
        self.wasted += not request.tell(None)
        self._fill()


@dataclass(eq=False)
class Call:
    """One logical call, and how it ended."""

    at: float
    process: Process
    ok: bool | None = None


Steps = Iterator[tuple[str, float]]
"""What a client does: ``("send", 0)`` is answered with a failure or ``None``, ``("sleep", seconds)`` with nothing."""


class Process:
    """One process of clients. Subclasses say how a call is tried."""

    def __init__(self, sim: Simulation, rng: Random) -> None:
        self.sim, self.rng = sim, rng
        self.accepted_at: float | None = None
        """When the first call after the fault was answered."""

    def call(self) -> Any:
        """A generator of steps that returns whether the call succeeded."""
        failure = yield "send", 0.0
        return failure is None


class Attempts(Process):
    """Three attempts with a backoff, nested in ``wrapped`` more loops of the same kind."""

    attempts = 3
    wrapped = 1

    def delay(self, attempt: int, failure: Failure) -> float:
        raise NotImplementedError

    def outer_delay(self, attempt: int) -> float:
        return 2.0 ** (attempt - 1) * self.rng.uniform(0.75, 1.25)

    def call(self) -> Any:
        for outer in range(1, self.wrapped + 1):
            for attempt in range(1, self.attempts + 1):
                failure = yield "send", 0.0
                if failure is None:
                    return True
                if attempt < self.attempts:
                    yield "sleep", self.delay(attempt, failure)
            if outer < self.wrapped:
                yield "sleep", self.outer_delay(outer)
        return False


class Classic(Attempts):
    """The published pattern: ``2 ** attempt``, no jitter, no look at ``retry-after``."""

    def delay(self, attempt: int, failure: Failure) -> float:
        del failure
        return 2.0 ** (attempt - 1)


class SDK(Attempts):
    """Both SDKs: half a second doubled up to eight, jitter down to three quarters, ``retry-after`` obeyed exactly."""

    def delay(self, attempt: int, failure: Failure) -> float:
        if failure.retry_after is not None and failure.retry_after <= 120:
            return failure.retry_after
        return min(0.5 * 2.0 ** (attempt - 1), 8.0) * self.rng.uniform(0.75, 1.0)


class WrappedSDK(SDK):
    """The SDK's retries inside a framework's three."""

    wrapped = 3


class Ours(Process):
    """The package, as its lifecycle calls it."""

    policy = RetryPolicy()

    def __init__(self, sim: Simulation, rng: Random) -> None:
        super().__init__(sim, rng)
        self.state = RetryState(self.policy, rng)

    def call(self) -> Any:
        began, attempt, drew = self.sim.now, 1, 0
        while True:
            admission = self.state.admit(TARGET, now=self.sim.now)
            while admission.action == "wait":
                yield "sleep", admission.delay_s
                admission = self.state.admit(TARGET, now=self.sim.now, previous=admission)
            if admission.rejected:
                return False
            started = self.sim.now
            failure = yield "send", 0.0
            now = self.sim.now
            if failure is None:
                self.state.succeeded(TARGET, now=now, retry_tokens=drew, started=started)
                return True
            self.state.failed(TARGET, failure, now=now, started=started)
            failed = FailedAttempt(failure, TARGET, attempt, now - began, now)
            decision = decide(self.policy, self.state, failed, self.rng)
            if decision.action == "raise":
                return False
            attempt, drew = attempt + 1, decision.retry_tokens
            yield "sleep", decision.delay_s


class OursWaiting(Ours):
    """The same for a batch: a call may wait for the circuit."""

    policy = RetryPolicy(max_wait_s=75.0)


POLICIES: dict[str, type[Process]] = {
    "no retry": Process,
    "classic": Classic,
    "SDK default": SDK,
    "SDK in a 3-try wrapper": WrappedSDK,
    "ours": Ours,
    "ours, max_wait_s=75": OursWaiting,
}


@dataclass(frozen=True)
class Outcome:
    """The figures of one run."""

    load: float
    """Requests that reached the provider, by calls made: over everything."""
    load_in_fault: float
    requests: list[float]
    """Requests a second, second by second."""
    goodput: list[float]
    """The share of the calls begun in each second that succeeded."""
    peak_after: float
    """The busiest second after the fault, in times the offered rate."""
    billed_usd: float
    wasted_usd: float
    success: float
    success_in_fault: float
    success_after: float
    """Of the calls begun in the two minutes after the fault."""
    passed_after_probe: float
    """The share that succeeded of the calls begun in the two minutes after the fault, and two seconds or more after the
    first answer that their own process got then."""
    recovery_s: float | None
    """Seconds after the fault from which nine calls in ten succeed, over five seconds; ``None``: not within the run."""

    @property
    def wasted(self) -> float:
        return self.wasted_usd / self.billed_usd if self.billed_usd else 0.0


def simulate(policy: str, scenario: Scenario, seed: int, *, scale: float = 1.0) -> Outcome:
    """Run one policy through one scenario. ``scale`` shrinks the fleet and the provider alike."""
    rng = Random(f"{policy} {scenario.name} {seed}")
    sim = Simulation()
    provider = Provider(sim, scenario, rng, slots=round(scenario.slots * scale))
    processes = [POLICIES[policy](sim, Random(rng.random())) for _ in range(round(PROCESSES * scale))]
    calls: list[Call] = []
    last_call = LENGTH_S

    def begin() -> None:
        if sim.now < last_call:
            sim.at(sim.now + rng.expovariate(scenario.rate_at(sim.now) * scale), begin)
            calls.append(call := Call(sim.now, process := rng.choice(processes)))
            step(call, process.call(), None)

    def step(call: Call, steps: Any, answer: Failure | None) -> None:
        try:
            what, seconds = steps.send(answer)
        except StopIteration as stop:
            call.ok = stop.value
            if call.ok and sim.now > scenario.ends and call.process.accepted_at is None:
                call.process.accepted_at = sim.now
            return
        if what == "sleep":
            sim.at(sim.now + seconds, step, call, steps, None)
        else:
            provider.request(Request(lambda failure: step(call, steps, failure)))

    sim.at(0.0, begin)
    sim.run(until=last_call + 600.0)
    return _measure(scenario, provider, calls, scale)


def _measure(scenario: Scenario, provider: Provider, calls: list[Call], scale: float) -> Outcome:
    begins, ends = FAULT_AT, scenario.ends
    seconds = int(LENGTH_S)
    offered, requests, ok = [0] * seconds, [0] * seconds, [0] * seconds
    for call in calls:
        if call.at < seconds:
            offered[int(call.at)] += 1
            ok[int(call.at)] += bool(call.ok)
    for arrival in provider.arrivals:
        if arrival < seconds:
            requests[int(arrival)] += 1

    def share(counts: list[int], since: float, until: float) -> float:
        return sum(counts[int(since) : int(until)]) / max(sum(offered[int(since) : int(until)]), 1)

    watched = [
        bool(call.ok) for call in calls
        if (since := call.process.accepted_at) is not None and since + PROBE_S <= call.at < ends + AFTER_S
    ]  # fmt: skip
    recovery = next((t + 1 for t in range(int(AFTER_S) - 6, -1, -1) if share(ok, ends + t, ends + t + 5) < 0.9), 0)
    return Outcome(
        load=len(provider.arrivals) / len(calls),
        load_in_fault=share(requests, begins, ends),
        requests=[count / scale for count in requests],
        goodput=[good / max(total, 1) for good, total in zip(ok, offered, strict=True)],
        peak_after=max(requests[int(ends) :]) / (scenario.rate_after * scale),
        billed_usd=provider.billed * PRICE / scale,
        wasted_usd=provider.wasted * PRICE / scale,
        success=sum(bool(call.ok) for call in calls) / len(calls),
        success_in_fault=share(ok, begins, ends),
        success_after=share(ok, ends, ends + AFTER_S),
        passed_after_probe=sum(watched) / max(len(watched), 1),
        recovery_s=float(recovery) if recovery < AFTER_S - 6 else None,
    )
