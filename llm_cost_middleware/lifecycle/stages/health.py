"""Whether a model may be asked now, what an error means, and whether to ask again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from math import inf
from random import Random

from llm_cost_middleware.clock import Clock
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import ReservedAttempt, RoutedCall, Settings
from llm_cost_middleware.provider import Failure
from llm_cost_middleware.request import CallRequest, ModelRef
from llm_cost_middleware.retry.breaker import ADMITTED, Admission
from llm_cost_middleware.retry.classify import classify_error
from llm_cost_middleware.retry.decision import FailedAttempt, RetryDecision, decide
from llm_cost_middleware.retry.policy import RetryPolicy
from llm_cost_middleware.retry.state import RetryState
from llm_cost_middleware.retry.terms import follow
from llm_cost_middleware.usage import attached_usage

_CONNECTIONS = 256
_LEAST_TIMEOUT_S = 0.001  # of an attempt that begins when the deadline ends


class HealthStage:
    """Circuit breakers, retry quotas and deadlines. Safe to share between threads.

    A target that is well needs no lock: its breaker is asked and told what changes no state of it, by reads and writes
    of single attributes, on an interpreter without a global lock too.
    """

    _lock = ForkSafeLock()

    def __init__(self, settings: Settings, policy: RetryPolicy, clock: Clock, rng: Random) -> None:
        self._settings, self._policy, self._clock, self._rng = settings, policy, clock, rng
        self._states: OrderedDict[str, RetryState] = OrderedDict()
        self._latest: tuple[str | None, RetryState] = None, RetryState(policy, rng)
        self.falls_back = policy.fallback and not settings.observe
        """Whether another model may be asked where the chosen one fails."""
        cuts = policy.cut_at_deadline and policy.deadline_s != inf
        self.limits_time = not settings.observe and (cuts or bool(settings.timeouts))
        """Whether ``limits_s`` says anything of any attempt."""

    def take_over(self, before: HealthStage) -> None:
        """Go on with the breakers of another one, where their policy is the same."""
        if before._policy == self._policy:
            self._states, self._latest = before._states, before._latest

    def admit(self, call: RoutedCall, target: ModelRef, previous: Admission | None = None) -> Admission:
        """Ask the circuit breaker whether to send; after a wait, pass its previous answer. Always in observe mode."""
        if self._settings.observe:
            return ADMITTED
        now, (latest, state) = self._clock.monotonic(), self._latest  # one read of a pair that is never changed
        if previous is None and latest == call.request.connection and state.admits(target.plain, now):
            return ADMITTED
        with self._lock:
            return self._state(call.request).admit(target.plain, now, previous)

    def not_sent(self, call: RoutedCall, target: ModelRef) -> None:
        """Note that an admitted attempt was refused afterwards."""
        with self._lock:
            self._state(call.request).not_sent(target.plain, now=self._clock.monotonic())

    def limits_s(self, call: RoutedCall, target: ModelRef, now: float) -> tuple[float | None, float | None]:
        """Seconds that the configuration lets a request take, and after which the deadline cuts it; ``None``: neither.

        Asked where ``limits_time``: an observer leaves the caller's own timeout alone.
        """
        timeout_s, policy = self._settings.timeouts.get(target.provider), self._policy
        if not policy.cut_at_deadline or policy.deadline_s == inf:
            return timeout_s, None
        return timeout_s, max(_deadline_s(policy, call) - (now - call.started_at), _LEAST_TIMEOUT_S)

    def classify(self, error: BaseException, target: ModelRef) -> Failure:
        """The meaning of an exception."""
        return classify_error(error, provider=target.provider, now=self._clock.now())

    def succeeded(self, call: RoutedCall, reserved: ReservedAttempt, retry_tokens: int) -> None:
        """Note that an attempt was answered; it gives back the retry-quota tokens that led to it."""
        target, now = reserved.attempt.target, self._clock.monotonic()
        latest, state = self._latest
        if latest == call.request.connection and state.answered(target, now, reserved.started_at):
            return
        with self._lock:
            self._state(call.request).succeeded(target, now, retry_tokens, reserved.started_at)

    def failed(self, call: RoutedCall, reserved: ReservedAttempt, failure: Failure) -> None:
        """Note that an attempt failed with nothing to follow it."""
        with self._lock:
            now, started = self._clock.monotonic(), reserved.started_at
            self._state(call.request).failed(reserved.attempt.target, failure, now=now, started=started)

    def decide_retry(
        self,
        call: RoutedCall,
        reserved: ReservedAttempt,
        failure: Failure,
        fallbacks: tuple[ModelRef, ...],
        error: BaseException,
        flex_tries: int = 0,
    ) -> RetryDecision:
        """Note that an attempt failed, and decide whether to try again, where and when.

        ``flex_tries`` of its attempts were at the flex tier, and do not count.
        """
        now, policy, weighed = self._clock.monotonic(), self._policy, failure
        number = reserved.attempt.number - flex_tries
        if (deadline_s := _deadline_s(policy, call)) != policy.deadline_s:
            policy = replace(policy, deadline_s=deadline_s)
        # what fails on this machine fails again, whatever an owner says of errors of its class
        if (terms := call.request.retry_terms) is not None and not _in_vain(error):
            policy, weighed = follow(terms.after(error, number), policy, failure)
        with self._lock:
            # First: the decision must see the circuit as this failure leaves it.
            state = self._state(call.request)
            state.failed(reserved.attempt.target, failure, now=now, started=reserved.started_at)
            elapsed_s = now - call.started_at
            failed = FailedAttempt(weighed, reserved.attempt.target, number, elapsed_s, now, fallbacks)
            return decide(policy, state, failed, self._rng)

    def _state(self, request: CallRequest) -> RetryState:
        """The state of a connection; the lock is held. The least recently used of many is dropped."""
        latest, state = self._latest
        if latest == request.connection:
            return state
        known = self._states.get(request.connection)
        if known is None:
            known = self._states[request.connection] = RetryState(self._policy, self._rng)
            if len(self._states) > _CONNECTIONS:
                self._states.popitem(last=False)
        else:
            self._states.move_to_end(request.connection)
        self._latest = request.connection, known
        return known


def _deadline_s(policy: RetryPolicy, call: RoutedCall) -> float:
    """The deadline of a call: one that began in a slower lane has as long as it can wait."""
    patient = call.lane is not None and call.lane.lane != "standard"
    return max(policy.deadline_s, call.lane.patience_s) if patient and call.lane else policy.deadline_s


def _in_vain(error: BaseException) -> bool:
    reading = attached_usage(error)
    return reading is not None and reading.in_vain
