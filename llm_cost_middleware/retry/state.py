"""State of retries on one connection of a pipeline: a quota per provider, a circuit breaker per target."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from random import Random

from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.retry.breaker import ADMITTED, Admission, CircuitBreaker
from llm_cost_middleware.retry.policy import UNHEALTHY, RetryPolicy
from llm_cost_middleware.retry.quota import SUCCESS_REFUND, RetryQuota, token_cost

_TARGETS = 1_024  # breakers kept; the least recently used is dropped


class RetryState:
    """Retry quotas by provider and circuit breakers by target, of one connection. Bounded.

    Not thread-safe but for ``admits`` and ``answered``: the pipeline calls the others under its lock. Every attempt
    that was admitted is followed by one ``succeeded`` or ``failed``. Times are monotonic seconds.

    Args:
        policy: The limits.
        rng: Spreads what several processes would otherwise do at the same moment.
    """

    def __init__(self, policy: RetryPolicy, rng: Random | None = None) -> None:
        self._policy = policy
        self._rng = rng or Random()  # noqa: S311  # to spread load, not to keep a secret
        self._quotas: defaultdict[str, RetryQuota] = defaultdict(RetryQuota)
        self._breakers: OrderedDict[ModelRef, CircuitBreaker] = OrderedDict()

    def admit(self, target: ModelRef, now: float, previous: Admission | None = None) -> Admission:
        """Ask the breaker before every attempt; after a ``wait``, again with its previous answer."""
        breaker = self._breakers.get(target)  # none before the first outcome, and with breakers switched off
        return breaker.admit(now, previous) if breaker is not None else ADMITTED

    def admits(self, target: ModelRef, now: float) -> bool:
        """Admit an attempt where the breaker of its target is closed; false: ``admit`` must be asked."""
        breaker = self._breakers.get(target)
        return breaker is None or breaker.admits(now)

    def answered(self, target: ModelRef, now: float, started: float) -> bool:
        """Record one more answer of a target that has given answers alone; false: ``succeeded`` must be told of it."""
        breaker = self._breakers.get(target)
        return breaker is not None and target.provider not in self._quotas and breaker.answered(now, started)

    def succeeded(
        self, target: ModelRef, now: float, retry_tokens: int = 0, started: float | None = None
    ) -> None:  # fmt: skip
        """Record an answered attempt.

        Args:
            target: Where it was sent.
            now: When the answer was in.
            retry_tokens: What the retry that led to it took from the quota; it is given back.
            started: When it was sent; an answer to what was sent before a breaker opened does not close it.
        """
        quota = self._quotas.get(target.provider)  # none before the first retry, and with quotas switched off
        if quota is not None:
            quota.refund(retry_tokens or SUCCESS_REFUND)
        if self._policy.breaker:
            self._breaker(target).succeeded(now, started)

    def failed(self, target: ModelRef, failure: Failure, *, now: float, started: float | None = None) -> None:
        """Record a failed attempt; to be called before ``decide``."""
        if not self._policy.breaker:
            return
        breaker = self._breaker(target)
        if failure.kind in {FailureKind.CANCELLED, FailureKind.UNKNOWN}:
            breaker.ended(now)
        elif failure.kind in UNHEALTHY and (failure.retryable or failure.kind is not FailureKind.RATE_LIMITED):
            timeout = failure.kind is FailureKind.TIMEOUT
            breaker.failed(now, started, failure.retry_after, timeout=timeout)
        else:
            breaker.succeeded(now, started)

    def not_sent(self, target: ModelRef, *, now: float) -> None:
        """Note that an admitted attempt was not sent after all: another may take its place."""
        breaker = self._breakers.get(target)
        if breaker is not None:
            breaker.ended(now)

    def seconds_until_probe(self, target: ModelRef, *, now: float) -> float:
        """Seconds until the open breaker of ``target`` admits a call; 0 where it is not open."""
        breaker = self._breakers.get(target)
        return breaker.seconds_until_probe(now) if breaker is not None else 0.0

    def acquire(self, provider: str, kind: FailureKind) -> int | None:
        """Take one retry from the quota of ``provider``: its cost in tokens, or ``None`` where too few are left."""
        if not self._policy.quota:
            return 0
        cost = token_cost(kind)
        return cost if self._quotas[provider].acquire(cost) else None

    def _breaker(self, target: ModelRef) -> CircuitBreaker:
        breaker = self._breakers.get(target)
        if breaker is None:
            policy = self._policy
            breaker = CircuitBreaker(
                max_wait_s=policy.max_wait_s, longest_pause_s=policy.max_retry_after_s, rng=self._rng
            )
            self._breakers[target] = breaker
            if len(self._breakers) > _TARGETS:
                self._breakers.popitem(last=False)
        elif len(self._breakers) > _TARGETS // 2:  # in their order once that counts
            self._breakers.move_to_end(target)
        return breaker
