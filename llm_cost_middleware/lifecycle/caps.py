"""Output caps of attempts whose caller set none: a usual answer, or what past answers of the site need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.capabilities.thinking import LEAST_ANSWER, default_cap, least_cap, thinking_budget
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import ReservedAttempt, RoutedCall
from llm_cost_middleware.limits import ModelLimits
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.output_caps import LearnedCaps
from llm_cost_middleware.usage import UsageReport


class OutputCaps:
    """Caps where the caller set none. Safe to share between threads.

    Args:
        configured: Tokens of a usual answer; ``None``: by model.
        risk: Share of the answers of a call site that may end at a learned cap, and are asked for again; 0: none is
            learned.
    """

    _lock = ForkSafeLock()

    def __init__(self, configured: int | None, risk: float) -> None:
        self._configured, self._risk = configured, risk
        self._learned = LearnedCaps(risk) if risk else None

    def take_over(self, before: OutputCaps) -> None:
        """Go on with what another one has learned, if it was asked the same."""
        if before._risk == self._risk:
            self._learned = before._learned

    def default(
        self, call: RoutedCall, target: ModelRef, limits: ModelLimits, changes: Mapping[str, Any]
    ) -> tuple[int, bool]:
        """The cap of an attempt at a model or an arm, and whether it was learned."""
        request = call.request
        cap = default_cap(request, limits, self._configured, changes)
        if self._learned is None or not _may_be_asked_again(call):
            return cap, False
        with self._lock:
            found = self._learned.cap(call.decision.site, target)
        if found is None:
            return cap, False
        # never below what the thinking that was asked for needs, and an answer behind it
        budget = thinking_budget(changes.get("thinking", request.settings.get("thinking")))
        found = max(found, least_cap(request, target.plain, changes), budget + LEAST_ANSWER if budget else 0)
        return (found, True) if found < cap else (cap, False)

    def observe(self, call: RoutedCall, reserved: ReservedAttempt, reading: UsageReport) -> None:
        """Learn from a complete answer how long it is, and whether its cap was too low."""
        if self._learned is None or call.request.choice_count > 1:
            return
        site, arm = call.decision.site, reserved.arm
        with self._lock:
            if reserved.quote.learned and reading.truncated:
                self._learned.note_cut(site, arm)  # how long it is tells the answer that is asked for again
                return
            self._learned.observe(site, arm, reading.usage.output_tokens)


def cut_at_learned_cap(reserved: ReservedAttempt, reading: UsageReport) -> bool:
    """Whether an answer ended at a cap that was learned: it is asked for once more, with the usual one."""
    return reserved.quote.learned and reading.truncated and not reading.pending


def _may_be_asked_again(call: RoutedCall) -> bool:
    """Whether an answer that is cut off can be asked for again before its caller has it."""
    request = call.request
    return not (
        call.full_cap
        or request.stream
        or call.sent_externally
        or not call.takes_cap
        or request.choice_count > 1
        or request.has_server_side_context
        or request.params.get("background")
        or request.params.get("batch")
        or request.output_schema  # an SDK that parses raises where an answer is cut, and has no answer to hand on
    )
