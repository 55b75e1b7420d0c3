"""The log of a call beside money: its decision and what became of it, its cache use, the prefixes it taught.

It goes through the ledger's journal where the storage has one; otherwise decisions stay in a bounded memory. Where the
storage can, the lines of a call are written in the transaction that books its money; what is left at its end is a
command of its own, because writing may block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from llm_cost_middleware.budget.backend import Journal, JournalEntry
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import CacheTrace, CallReport, Posting, ReservedAttempt, RoutedCall
from llm_cost_middleware.metering.refused import REFUSAL
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.prompt_cache.trace import KIND as TRACE
from llm_cost_middleware.prompt_cache.trace import Tracer
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.decision_log import FEEDBACK, KEPT, SHADOW, DecisionLog, Settlement, StoredLine, newest
from llm_cost_middleware.routing.history import SiteHistory
from llm_cost_middleware.routing.signals import (
    ESCALATED,
    PARSE_FAILED,
    SIGNAL_SCORES,
    USER_RETRY,
    RepeatDetector,
    question_key,
)
from llm_cost_middleware.tracker import Booked
from llm_cost_middleware.usage import TokenUsage

_HISTORY_S = 7 * 86_400.0


class _Outbox:
    """The journal as the log sees it: while lines are gathered, they are kept back."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.gathered: list[JournalEntry] | None = None

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        if self.gathered is None:
            self._journal.append(kind, id_, at, data)
        else:
            self.gathered.append(JournalEntry(kind, id_, at, data))

    def read(self, kind: str, since: float | None = None) -> Iterator[JournalEntry]:
        return self._journal.read(kind, since)

    def newest(self, kind: str) -> Iterator[StoredLine]:
        return newest(self._journal, kind)


class DecisionRecorder:
    """Safe to share between threads.

    Args:
        journal: Where lines are kept beyond this process; ``None``: nowhere.
        clock: Time.
        rides: The lines of a call are written in the transaction that settles it.
    """

    _lock = ForkSafeLock()

    def __init__(self, journal: Journal | None, clock: Clock, *, rides: bool = False) -> None:
        self._journal, self._clock = None if journal is None else _Outbox(journal), clock
        self._log, self._tracer, self._repeats = DecisionLog(self._journal), Tracer(), RepeatDetector()
        self._outputs: SiteHistory | None = None
        self._new: deque[tuple[RoutingDecision, ModelRef | None, NanoUSD, Booked | None]] = deque(maxlen=KEPT)
        self.in_memory = journal is None
        self.rides = rides and journal is not None
        """Whether lines are made before a call is settled."""

    def note_cache_trace(self, report: CallReport, reserved: ReservedAttempt, usage: TokenUsage) -> None:
        """Keep the cache use of an answered attempt, to be written with its call."""
        if self._journal is not None and reserved.plan is not None:
            report.cache_traces += (CacheTrace(reserved.attempt.target, reserved.plan, usage, self._clock.now()),)

    def settling(
        self, call: RoutedCall, report: CallReport, target: ModelRef, posting: Posting, tokens: int | None, *,
        stands: bool,
    ) -> None:  # fmt: skip
        """Make the lines of a call that is about to be settled, to be written with the money.

        Args:
            call: The call.
            report: Takes the lines.
            target: The model that answered.
            posting: What will be booked.
            tokens: The length of the answer, where it is known.
            stands: No other attempt follows: its outcomes are final.
        """
        spent = report.spent_nanousd + posting.amount_nanousd
        settlement = Settlement(call.id, target, NanoUSD(spent), tokens, self._clock.now())
        self._gather(call, report, settlement, final=stands, status=posting.status)

    def unwritten(self, call: RoutedCall, report: CallReport) -> bool:
        """Make the last lines of a call that has ended; return whether any is left to write."""
        self._gather(call, report, self._settlement(call, report), final=True)
        return bool(report.lines)

    def write(self, report: CallReport) -> None:
        """Write the lines of a call that did not ride with its money. May block."""
        if self._journal is not None:
            for line in report.lines:
                self._journal.append(*line)
        report.lines.clear()

    def record(self, call: RoutedCall, report: CallReport) -> None:
        """Write down how a call was routed, and what became of it, at its end."""
        plain = not (report.is_decided or report.quality_signals or report.escalated or report.shadow)
        if plain and self.in_memory and not call.decision.ngrams:
            # One step, which needs no lock; whoever reads the log takes it in. Most are never read.
            last = report.booked[-1] if report.booked else None
            self._new.append((call.decision, report.answered, report.spent_nanousd, last))
            report.is_decided = True
        elif not self.rides:
            with self._lock:
                self._take_new()
                self._tell(call, report, self._settlement(call, report), final=True)
        if report.lines:
            self.write(report)

    def _gather(
        self, call: RoutedCall, report: CallReport, settlement: Settlement | None, *, final: bool, status: str = ""
    ) -> None:
        if self._journal is None:
            return
        with self._lock:
            self._journal.gathered = report.lines
            try:
                self._tell(call, report, settlement, final=final, status=status)
            finally:
                self._journal.gathered = None

    def _take_new(self) -> None:
        """Take what was only put down into the log; the lock is held."""
        for _ in range(len(self._new)):  # others append meanwhile, and nobody else takes
            decision, answered, spent, last = self._new.popleft()
            end = None if last is None else _settlement(decision.call_id, answered, spent, last, last.at)
            self._log.append(decision, end)

    def _tell(
        self, call: RoutedCall, report: CallReport, settlement: Settlement | None, *, final: bool, status: str = ""
    ) -> None:
        """Log what was not logged yet; the lock is held. ``status``: of what is being booked, where anything is."""
        now = self._clock.now() if settlement is None else settlement.at
        if not report.is_decided:
            self._log.append(call.decision, settlement)
            report.is_decided = True
        elif settlement is not None and settlement.cost_nanousd != report.logged_nanousd:
            self._log.settled(settlement)
        if settlement is not None:
            report.logged_nanousd = settlement.cost_nanousd
        if report.cache_traces:
            traces, report.cache_traces = report.cache_traces, ()
            for trace in traces:
                self._trace(call, trace)
        if report.refusal is not None and self._journal is not None:
            self._journal.append(REFUSAL, call.id, now, report.refusal)
            report.refusal = None
        if not final:
            return
        if report.quality_signals or report.escalated or report.shadow is not None:
            self._tell_outcomes(call, report, now)
        if call.decision.ngrams and not report.is_compared:  # learning is on
            report.is_compared = True
            last = status or (report.booked[-1].status if report.booked else "")
            self._notice_repeat(call, report, now, exact=last == "exact")

    def _tell_outcomes(self, call: RoutedCall, report: CallReport, now: float) -> None:
        signals = report.quality_signals
        for name in (*signals, ESCALATED) if report.escalated else signals:
            if name not in report.logged_outcomes:
                report.logged_outcomes += (name,)
                self._log.outcome(call.id, name, SIGNAL_SCORES[name], now)
        if report.shadow is not None:
            (target, agrees), report.shadow = report.shadow, None
            self._log.outcome(call.id, f"{SHADOW}{target}", agrees, now)

    def _settlement(self, call: RoutedCall, report: CallReport) -> Settlement | None:
        """What a call cost, over all its attempts. Where none was booked its decision stands alone."""
        if not report.booked:
            return None
        return _settlement(call.id, report.answered, report.spent_nanousd, report.booked[-1], self._clock.now())

    def _notice_repeat(self, call: RoutedCall, report: CallReport, now: float, *, exact: bool) -> None:
        """Mark an earlier call that had answered the same question in full, then remember this one."""
        key = question_key(call.request, call.decision.site)
        if key is None:
            return
        if (earlier := self._repeats.earlier(key, call.started_at)) is not None:
            self._log.outcome(earlier, USER_RETRY, SIGNAL_SCORES[USER_RETRY], now)
        if exact and PARSE_FAILED not in report.quality_signals:
            self._repeats.answered(key, call.id, self._clock.monotonic())

    def decisions(self) -> tuple[RoutingDecision, ...]:
        """The decisions, oldest first, with their candidates and reasons written out."""
        with self._lock:
            self._take_new()
            found = [logged.decision for logged in self._log.read()]
        return tuple(one._replace(candidates=tuple(one.candidates), reason=one.reason) for one in found)

    def usual_outputs(self) -> SiteHistory:
        """The lengths of answers by call site, as logged by all processes in the last week; read once."""
        with self._lock:
            if self._outputs is None:
                self._outputs = SiteHistory()
                self._take_new()
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
            self._take_new()
            self._log.outcome(call_id, name, score, self._clock.now(), known_only=True)

    def _trace(self, call: RoutedCall, trace: CacheTrace) -> None:
        if self._journal is not None:
            line = self._tracer.trace(
                call.request, trace.target, trace.plan, trace.usage,
                at=trace.at, call_id=call.id, site=call.decision.site,
            )  # fmt: skip
            self._journal.append(TRACE, call.id, trace.at, line.encode())


def _settlement(call_id: str, answered: ModelRef | None, spent: NanoUSD, last: Booked, at: float) -> Settlement:
    tokens = last.usage.output_tokens if last.usage is not None else None
    return Settlement(call_id, answered or ModelRef(*last.target), spent, tokens, at)
