"""What to do about a failure: try again here, go elsewhere, or let it through. One place owns every retry.

A retry has to be worth it (the class of the failure), affordable (the quota of the provider), possible (attempts,
deadline, the circuit of the target) and polite: at least as late as the provider asks, and never at the same moment as
everybody else who was asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan
from random import Random
from typing import Literal, NamedTuple

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.request import Target
from llm_cost_middleware.retry.gate import GO, TIMEOUT_WEIGHT, Admission, Gate
from llm_cost_middleware.retry.quota import SUCCESS_REFUND, THROTTLED, THROTTLED_COST, RetryQuota, cost_of

__all__ = ["Admission", "RetryDecision", "RetryPolicy", "RetryState", "decide"]

_K = FailureKind
_TARGETS = 1_024  # gates kept; the least recently used goes
_SPREAD = 0.25  # of the asked wait, at least: what is obeyed exactly makes a herd
_TROUBLE = frozenset(
    {_K.RATE_LIMITED, _K.OVERLOADED, _K.SERVER_ERROR, _K.CONNECTION, _K.TIMEOUT, _K.INTERRUPTED_STREAM}
)
"""Kinds that say that the target is unwell. Every other answer shows that it is up."""
_OF_ONE_MODEL = frozenset({_K.RATE_LIMITED, _K.OVERLOADED, _K.CONTEXT_OVERFLOW})
"""Kinds that another model of the same provider may escape."""
Rule = Literal["retryable", "elsewhere", "delivered", "not_retryable", "attempts", "deferred", "deadline", "quota"]


_TIMES = (
    "deadline_s", "stream_deadline_s", "max_retry_after_s", "max_wait_s", "base_s", "throttle_base_s", "max_delay_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, how long and where to. Validated: raises ``ConfigurationError``. Times are in seconds."""

    max_attempts: int = 3
    """Requests of one call, the first included, over all targets."""
    deadline_s: float = 300.0
    """Over all attempts and waits of one call, until it is answered or its stream begins."""
    stream_deadline_s: float = 3_600.0
    """Until its stream ends: what drips on is ended. A long answer takes a quarter of an hour and more."""
    max_retry_after_s: float = 60.0
    """A provider that asks for a longer wait is left: for a fallback, or with the error."""
    max_wait_s: float = 0.0
    """How long a call may wait for an open circuit; 0 fails at once. For batches."""
    quota: bool = True
    """Draw retries from a quota per provider, so that an outage is not multiplied."""
    breaker: bool = True
    """Stop sending to a target that keeps failing, and release the calls slowly when it is back."""
    fallback: bool = True
    """Let another model take the call, where the class of the failure is one of ``fallback_on``."""
    base_s: float = 0.5
    """The first backoff after a transient failure; it doubles."""
    throttle_base_s: float = 1.0
    """The first backoff after a rate limit without a time of its own."""
    max_delay_s: float = 20.0
    """No backoff grows beyond this."""
    jitter: bool = True
    """Draw the backoff from zero to its value ("full jitter"), and spread waits above what the provider asks."""
    retry_on: frozenset[FailureKind] | None = None
    """Retry these kinds only; ``None``: every failure that is retryable."""
    fallback_on: frozenset[FailureKind] = _TROUBLE | {_K.CONTEXT_OVERFLOW}
    """Kinds that may go elsewhere. Money, keys and faulty requests do not, unless they are added here."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= 100:  # noqa: PLR2004  # nobody means more
            raise ConfigurationError(f"{self.max_attempts} is not between 1 and 100", key="retry.max_attempts")
        for name in _TIMES:
            value = getattr(self, name)
            if isnan(value) or value < 0 or (value == 0 and name.endswith("deadline_s")):
                raise ConfigurationError(f"{value} is not a time in seconds", key=f"retry.{name}")
        if self.fallback_on & {_K.CANCELLED, _K.UNKNOWN}:
            raise ConfigurationError("a cancelled or unknown failure never falls back", key="retry.fallback_on")

    @classmethod
    def classic(cls, max_retries: int = 3) -> RetryPolicy:
        """The published pattern: three attempts, ``2 ** attempt`` seconds between them, three kinds of errors."""
        return cls(
            max_attempts=max_retries,
            deadline_s=inf,
            stream_deadline_s=inf,
            quota=False,
            breaker=False,
            fallback=False,
            base_s=1.0,
            throttle_base_s=1.0,
            max_delay_s=inf,
            jitter=False,
            retry_on=frozenset({_K.CONNECTION, _K.TIMEOUT, _K.RATE_LIMITED, _K.OVERLOADED, _K.SERVER_ERROR}),
        )

    def backoff(self, failure: Failure, attempt: int, rng: Random) -> float:
        """Seconds to wait after the failed ``attempt`` (1 for the first), never less than the provider asks."""
        base = self.throttle_base_s if failure.kind in THROTTLED else self.base_s
        ceiling = min(base * 2.0 ** (attempt - 1), self.max_delay_s)
        floor = failure.retry_after
        if not self.jitter:
            return max(ceiling, floor or 0.0)
        if floor is None:
            return rng.uniform(0.0, ceiling)
        return floor + rng.uniform(0.0, max(ceiling, _SPREAD * floor))


class RetryDecision(NamedTuple):
    """What follows a failed attempt."""

    action: Literal["retry", "fallback", "raise"]
    delay_s: float
    """Seconds to sleep before it."""
    target: Target | None
    """Where the next attempt goes; ``None`` when the error is raised."""
    reason: str
    """One sentence for people."""
    rule: Rule
    """The rule that decided, for code."""
    cost: int = 0
    """What the retry drew from the quota."""


class RetryState:
    """What a pipeline remembers of its targets: quotas by provider, gates by target. Bounded.

    Not thread-safe: the pipeline calls it under its lock. Every attempt that was admitted is followed by one
    ``succeeded`` or ``failed``. Times are monotonic seconds.

    Args:
        policy: The limits.
        rng: Spreads what several processes would otherwise do at once.
    """

    def __init__(self, policy: RetryPolicy, rng: Random | None = None) -> None:
        self._policy = policy
        self._rng = rng or Random()  # noqa: S311  # to spread load, not to keep a secret
        self._quotas: dict[str, RetryQuota] = {}
        self._gates: OrderedDict[Target, Gate] = OrderedDict()

    def admit(self, target: Target, *, now: float, previous: Admission | None = None) -> Admission:
        """Ask before every attempt; after a ``wait``, again with what was answered."""
        return self._gate(target).admit(now, previous) if self._policy.breaker else GO

    def succeeded(
        self, target: Target, *, now: float, after_retry: bool = False, drew: int = 0, started: float | None = None
    ) -> None:
        """An attempt was answered.

        Args:
            target: Where it was sent.
            now: When the answer was in.
            after_retry: It was not the first attempt of its call.
            drew: The ``cost`` of the retry that led to it, which it gives back.
            started: When it was sent; answers to what was sent before a circuit opened do not close it.
        """
        if self._policy.quota:
            refund = drew or (THROTTLED_COST if after_retry else SUCCESS_REFUND)
            self._quota(target.provider).refund(refund)
        if self._policy.breaker:
            self._gate(target).succeeded(now, started)

    def failed(self, target: Target, failure: Failure, *, now: float, started: float | None = None) -> None:
        """An attempt failed. Call it before ``decide``."""
        if not self._policy.breaker or failure.kind in {_K.CANCELLED, _K.UNKNOWN}:
            return
        gate = self._gate(target)
        if failure.kind in _TROUBLE and (failure.retryable or failure.kind is not _K.RATE_LIMITED):
            weight = TIMEOUT_WEIGHT if failure.kind is _K.TIMEOUT else 1
            gate.failed(now, started, failure.retry_after, weight=weight)
        else:
            gate.succeeded(now, started)

    def closed_for(self, target: Target, *, now: float) -> float:
        """Seconds until the circuit of ``target`` lets a call through; 0 where it is not open."""
        return self._gate(target).closed_for(now) if self._policy.breaker else 0.0

    def draw(self, provider: str, kind: FailureKind) -> int | None:
        """Take one retry from the quota of ``provider``: its cost in tokens, or ``None`` where the quota is dry."""
        if not self._policy.quota:
            return 0
        cost = cost_of(kind)
        return cost if self._quota(provider).draw(cost) else None

    def _quota(self, provider: str) -> RetryQuota:
        quota = self._quotas.get(provider)
        if quota is None:
            quota = self._quotas[provider] = RetryQuota()
        return quota

    def _gate(self, target: Target) -> Gate:
        gate = self._gates.get(target)
        if gate is None:
            policy = self._policy
            gate = Gate(max_wait_s=policy.max_wait_s, longest_pause_s=policy.max_retry_after_s, rng=self._rng)
            self._gates[target] = gate
            if len(self._gates) > _TARGETS:
                self._gates.popitem(last=False)
        else:
            self._gates.move_to_end(target)
        return gate


def decide(
    policy: RetryPolicy,
    state: RetryState,
    failure: Failure,
    *,
    attempt: int,
    elapsed_s: float,
    target: Target,
    fallbacks: Sequence[Target],
    delivered: bool,
    rng: Random,
    now: float,
) -> RetryDecision:
    """What to do after the failure of one attempt.

    The same target is tried again while that can help; the last attempt goes to a fallback, where there is one. What
    may not be retried here may still go elsewhere, if its kind is one of ``policy.fallback_on``.

    Args:
        policy: The limits.
        state: Draws on the quota when the answer is ``retry``.
        failure: What happened.
        attempt: The number of the attempt that failed, 1 for the first.
        elapsed_s: Seconds since the call began.
        target: Where the attempt was sent.
        fallbacks: Other targets in order of preference, untried; after a context overflow only larger windows.
        delivered: A chunk of the answer was already handed on: nothing may be repeated.
        rng: Draws the jitter.
        now: Monotonic seconds.
    """
    if delivered:
        return _raise("delivered", f"{failure.kind}, and a part of the answer was handed on")
    if failure.kind is _K.CANCELLED:
        return _raise("not_retryable", "the call was cancelled")
    if attempt >= policy.max_attempts:
        return _raise("attempts", f"{failure.kind} after {attempt} of {policy.max_attempts} attempts")
    other = _elsewhere(policy, state, failure, target, fallbacks, now)
    rule: Rule
    if not failure.retryable or (policy.retry_on is not None and failure.kind not in policy.retry_on):
        rule, why = "not_retryable", f"a retry does not help against {failure.kind}"
    elif other is not None and attempt + 1 == policy.max_attempts:
        rule, why = "attempts", f"{failure.kind}, and one attempt is left"
    else:
        delay = policy.backoff(failure, attempt, rng)
        if closed := state.closed_for(target, now=now):
            delay = max(delay, closed + rng.uniform(0.0, policy.base_s))
        rule, why = _obstacle(policy, failure, elapsed_s, delay)
        if rule == "retryable":
            cost = state.draw(target.provider, failure.kind)
            if cost is not None:
                return RetryDecision("retry", delay, target, f"{failure.kind}, again in {delay:.1f} s", rule, cost)
            rule, why = "quota", f"{failure.kind}, and the retry quota of {target.provider} is used up"
    if other is not None and elapsed_s < policy.deadline_s:
        return RetryDecision("fallback", 0.0, other, f"{why}: on to {other}", "elsewhere")
    return _raise(rule, why)


def _raise(rule: Rule, why: str) -> RetryDecision:
    return RetryDecision("raise", 0.0, None, why, rule)


def _obstacle(policy: RetryPolicy, failure: Failure, elapsed_s: float, delay: float) -> tuple[Rule, str]:
    """Why a retryable failure cannot be retried in time, or ``retryable``."""
    asked = failure.retry_after or 0.0
    if asked > policy.max_retry_after_s:
        limit = policy.max_retry_after_s
        return "deferred", f"{failure.kind}, and a wait of {asked:g} s is asked for, more than {limit:g} s"
    if elapsed_s + delay >= policy.deadline_s:
        return "deadline", f"{failure.kind}, and the deadline of {policy.deadline_s:g} s leaves no time"
    return "retryable", ""


def _elsewhere(
    policy: RetryPolicy, state: RetryState, failure: Failure, target: Target, fallbacks: Sequence[Target], now: float
) -> Target | None:
    """The first fallback that may take the call and is not failing itself; another provider before another model."""
    if not policy.fallback or failure.kind not in policy.fallback_on:
        return None
    up = [other for other in fallbacks if other != target and not state.closed_for(other, now=now)]
    if failure.kind is _K.CONTEXT_OVERFLOW:
        return next(iter(up), None)
    abroad = next((other for other in up if other.provider != target.provider), None)
    return abroad or (next(iter(up), None) if failure.kind in _OF_ONE_MODEL else None)
