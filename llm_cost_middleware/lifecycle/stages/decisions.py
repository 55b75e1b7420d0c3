"""The log of a call beside money: its decision and what became of it, its cache use, the prefixes it taught.

It goes through the ledger's journal where the storage has one; otherwise decisions stay in a bounded memory. Writing
may block, so it is a command of its own, after the money is booked.
"""

from __future__ import annotations

from contextlib import suppress

from llm_cost_middleware.budget.backend import Journal
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import CacheTrace, CallReport, ReservedAttempt, RoutedCall
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.prompt_cache.trace import KIND as TRACE
from llm_cost_middleware.prompt_cache.trace import Tracer
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.decision_log import FEEDBACK, DecisionLog, Settlement
from llm_cost_middleware.routing.history import SiteHistory
from llm_cost_middleware.routing.signals import (
    ESCALATED,
    PARSE_FAILED,
    SIGNAL_SCORES,
    USER_RETRY,
    RepeatDetector,
    question_key,
)
from llm_cost_middleware.usage import TokenUsage

_HISTORY_S = 7 * 86_400.0


class DecisionRecorder:
    """Safe to share between threads.

    Args:
        journal: Where lines are kept beyond this process; ``None``: nowhere.
        clock: Time.
    """

    _lock = ForkSafeLock()

    def __init__(self, journal: Journal | None, clock: Clock) -> None:
        self._journal, self._clock = journal, clock
        self._log, self._tracer, self._repeats = DecisionLog(journal), Tracer(), RepeatDetector()
        self._outputs: SiteHistory | None = None

    def note_cache_trace(self, report: CallReport, reserved: ReservedAttempt, usage: TokenUsage) -> None:
        """Keep the cache use of an answered attempt, to be written with its call."""
        if self._journal is not None and reserved.plan is not None:
            report.cache_traces += (CacheTrace(reserved.attempt.target, reserved.plan, usage, self._clock.now()),)

    def record(self, call: RoutedCall, report: CallReport) -> None:
        """Write down how a call was routed, and what became of it."""
        now, records, decision = self._clock.now(), report.records, call.decision
        settlement: Settlement | None = None
        # Without a record nothing was billed: the decision is logged alone.
        if records:
            last = records[-1]
            tokens = last.output_tokens if last.usage else None
            model = ModelRef(last.provider, last.model)
            settlement = Settlement(call.id, model, NanoUSD(report.spent_nanousd), tokens, now)
        with self._lock:
            self._log.append(decision, settlement)
            for trace in report.cache_traces:
                self._trace(call, trace)
            signals = report.quality_signals
            for name in (*signals, ESCALATED) if report.escalated else signals:
                self._log.outcome(call.id, name, SIGNAL_SCORES[name], now)
            if decision.ngrams:  # learning is on
                self._notice_repeat(call, report, now)

    def _notice_repeat(self, call: RoutedCall, report: CallReport, now: float) -> None:
        """Mark an earlier call that had answered the same question in full, then remember this one."""
        key = question_key(call.request, call.decision.site)
        if key is None:
            return
        if (earlier := self._repeats.earlier(key, call.started_at)) is not None:
            self._log.outcome(earlier, USER_RETRY, SIGNAL_SCORES[USER_RETRY], now)
        records = report.records
        if records and records[-1].status == "exact" and PARSE_FAILED not in report.quality_signals:
            self._repeats.answered(key, call.id, self._clock.monotonic())

    def decisions(self) -> tuple[RoutingDecision, ...]:
        """The decisions, oldest first."""
        with self._lock:
            return tuple(logged.decision for logged in self._log.read())

    def usual_outputs(self) -> SiteHistory:
        """The lengths of answers by call site, as logged by all processes in the last week; read once."""
        with self._lock:
            if self._outputs is None:
                self._outputs = SiteHistory()
                with suppress(LLMCostError):  # a quote without history is better than none
                    for logged in self._log.read(self._clock.now() - _HISTORY_S):
                        if (end := logged.settlement) is not None and end.output_tokens is not None:
                            self._outputs.observe(logged.decision.site, end.target, end.output_tokens)
            return self._outputs

    def feedback(self, call_id: str, score: float, name: str = FEEDBACK) -> None:
        """Log the application's opinion of an answer.

        Raises:
            ConfigurationError: The score is outside 0 to 1, or the call is not in the log.
        """
        with self._lock:
            self._log.outcome(call_id, name, score, self._clock.now(), known_only=True)

    def _trace(self, call: RoutedCall, trace: CacheTrace) -> None:
        if self._journal is not None:
            line = self._tracer.trace(
                call.request, trace.target, trace.plan, trace.usage,
                at=trace.at, call_id=call.id, site=call.decision.site,
            )  # fmt: skip
            self._journal.append(TRACE, call.id, trace.at, line.encode())
