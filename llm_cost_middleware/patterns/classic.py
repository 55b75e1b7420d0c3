"""Small functions of the pattern: choose a model, retry transient errors, mark the system prompt for caching."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import SystemRandom
from typing import Any, TypeVar

from llm_cost_middleware.clock import Clock
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.sections import DEFAULT_TIERS
from llm_cost_middleware.natural_values import read_whole
from llm_cost_middleware.providers import get_provider, provider_of
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.retry.classify import classify_error
from llm_cost_middleware.retry.decision import FailedAttempt, decide
from llm_cost_middleware.retry.policy import RetryPolicy
from llm_cost_middleware.retry.state import RetryState
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.system_clock import SystemClock

T = TypeVar("T")
_BYTES_PER_TOKEN = 4  # of ordinary text: an estimate is enough, a mark on a prompt that is too short costs nothing


def select_model(
    text_length: int,
    item_count: int,
    force_model: str | None = None,
    *,
    policy: CostConfig | RoutingPolicy | None = None,
) -> str:
    """Return the model for a text length and a number of items: the small one below both thresholds, else the next.

    Args:
        text_length: Characters.
        item_count: Items in the prompt.
        force_model: Returned as it is, if given.
        policy: Thresholds, and with a ``CostConfig`` the tiers; the packaged defaults, if ``None``.

    Returns:
        A bare model id, such as ``claude-haiku-4-5-20251001``.

    Raises:
        ConfigurationError: A count that is no whole number.
    """
    if force_model:
        return force_model
    text_length = read_whole(text_length, "text_length", form="a number of characters, len(text)")
    item_count = read_whole(item_count, "item_count")
    tiers = policy.tiers if isinstance(policy, CostConfig) else DEFAULT_TIERS
    rule = policy.routing if isinstance(policy, CostConfig) else policy or RoutingPolicy()
    tier = min(rule.is_large(text_length, item_count), len(tiers) - 1)
    return tiers[tier].models[0].model


def call_with_retry(
    func: Callable[[], T], *, max_retries: int = 3, policy: RetryPolicy | None = None, clock: Clock | None = None
) -> T:
    """Call ``func``, again on connection, rate-limit and server errors; raise at once on anything else.

    Args:
        func: Makes one request. A client's own retries should be off (``max_retries=0``), or they multiply.
        max_retries: Maximum number of calls, with waits of ``2 ** attempt`` seconds between them.
        policy: Another policy, which replaces ``max_retries``.
        clock: Time and sleep.

    Raises:
        Exception: The error of the last call.
    """
    attempts = _Attempts(max_retries, policy, clock)
    while True:
        try:
            return func()
        except Exception as error:
            delay = attempts.delay_after(error)
            if delay is None:
                raise
        attempts.clock.sleep(delay)


async def acall_with_retry(
    func: Callable[[], Awaitable[T]],
    *,
    max_retries: int = 3,
    policy: RetryPolicy | None = None,
    clock: Clock | None = None,
) -> T:
    """``call_with_retry`` for a coroutine function."""
    attempts = _Attempts(max_retries, policy, clock)
    while True:
        try:
            return await func()
        except Exception as error:
            delay = attempts.delay_after(error)
            if delay is None:
                raise
        await attempts.clock.asleep(delay)


class _Attempts:
    """Attempts so far, and the next delay: shared by both forms of ``call_with_retry``."""

    def __init__(self, max_retries: int, policy: RetryPolicy | None, clock: Clock | None) -> None:
        self.clock: Clock = clock if clock is not None else SystemClock()
        self._policy = policy or replace(RetryPolicy.classic(), max_attempts=max_retries)
        self._state = RetryState(self._policy)
        self._target = ModelRef("", "")
        self._rng = SystemRandom()
        self._count = 0
        self._started = self.clock.monotonic()

    def delay_after(self, error: Exception) -> float | None:
        """Return the seconds to wait before the next call; ``None``: raise the error."""
        self._count += 1
        now = self.clock.monotonic()
        failure = classify_error(error, now=self.clock.now())
        failed = FailedAttempt(failure, self._target, self._count, now - self._started, now)
        decision = decide(self._policy, self._state, failed, self._rng)
        return decision.delay_s if decision.action == "retry" else None


def build_cached_messages(system_prompt: str, user_input: str, *, model: str | None = None) -> list[dict[str, Any]]:
    """Return messages with a cache mark on the system prompt, before the varying part.

    Args:
        system_prompt: The stable prefix.
        user_input: The varying part.
        model: The model, if known: no mark below its minimum length (it would have no effect), and none for a model
            of a provider without the Messages API: there the prompt becomes a system message.
    """
    marked = model is None
    provider = None if model is None else provider_of(model)
    if model is not None and provider is not None:
        ability = get_provider(provider).cache_capabilities(model)
        if ability.style != "explicit":
            return [{"role": "system", "content": system_prompt}, {"role": "user", "content": user_input}]
        marked = len(system_prompt.encode("utf-8", "surrogatepass")) >= ability.min_tokens * _BYTES_PER_TOKEN
    # In the user message, not in ``system``: the pattern builds messages alone, and any prefix can be cached.
    prefix: dict[str, Any] = {"type": "text", "text": system_prompt}
    if marked:
        prefix["cache_control"] = {"type": "ephemeral"}
    blocks = [prefix] if system_prompt else []  # the Messages API refuses empty text blocks
    return [{"role": "user", "content": [*blocks, {"type": "text", "text": user_input}]}]
