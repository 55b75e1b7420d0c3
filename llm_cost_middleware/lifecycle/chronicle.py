"""What is kept of calls beside money: decisions and what became of them, cache traces, what was learned of prefixes.

It goes through the ledger's journal where the storage has one; otherwise decisions stay in a bounded memory. Writing
may block, so it is a command of its own, after the money is booked.
"""

from __future__ import annotations

from contextlib import suppress

from llm_cost_middleware.budget.backend import Journal
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import Call, Hold
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics
from llm_cost_middleware.prompt_cache.trace import KIND as TRACE
from llm_cost_middleware.prompt_cache.trace import Tracer
from llm_cost_middleware.request import Target
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.decisions import FEEDBACK, DecisionLog, Settlement
from llm_cost_middleware.routing.outcomes import AUTOMATIC, ESCALATED, PARSE_FAILED, USER_RETRY, Repeats, question
from llm_cost_middleware.usage import TokenUsage

_PREFIXES, _RECENT_S = "prefixes", 86_400.0  # what was learned a day ago is cold


class Chronicle:
    """Safe to share between threads.

    Args:
        journal: Where lines are kept beyond this process; ``None``: nowhere.
        clock: Time.
    """

    _lock = ForkSafeLock()

    def __init__(self, journal: Journal | None, clock: Clock) -> None:
        self._journal, self._clock = journal, clock
        self._log, self._tracer = DecisionLog(journal), Tracer()
        self._repeats = Repeats()

    def answered(self, call: Call, hold: Hold, usage: TokenUsage) -> None:
        """Note that an attempt's cache is worth a trace."""
        if self._journal is not None and call.layout is not None and hold.plan is not None:
            call.traces += ((hold, usage, self._clock.now()),)

    def write(self, call: Call) -> None:
        """Write down how a call was routed, and what it came to."""
        if call.decision is None:
            return
        now, records = self._clock.now(), call.records
        settlement: Settlement | None = None
        with self._lock:
            if records:
                last, cost = records[-1], NanoUSD(call.spent_nanousd)
                tokens = last.output_tokens if last.usage else None
                settlement = Settlement(call.id, Target(last.provider, last.model), cost, tokens, now)
            self._log.append(call.decision, settlement)
            for hold, usage, at in call.traces:
                self._trace(call, hold, usage, at)
            for name in (*call.seen, ESCALATED) if call.escalated else call.seen:
                self._log.outcome(call.id, name, AUTOMATIC[name], now)
            if call.decision.grams:  # learning is on
                self._notice_repeat(call, call.decision.site, now)

    def _notice_repeat(self, call: Call, site: str, now: float) -> None:
        """Where this call asks what an earlier one had answered in full, say so of that one; then remember this one."""
        key = question(call.request, site)
        if key is None:
            return
        if (earlier := self._repeats.earlier(key, call.started)) is not None:
            self._log.outcome(earlier, USER_RETRY, AUTOMATIC[USER_RETRY], now)
        if call.records and call.records[-1].status == "exact" and PARSE_FAILED not in call.seen:
            self._repeats.answered(key, call.id, self._clock.monotonic())

    def decisions(self) -> tuple[RoutingDecision, ...]:
        """The decisions, oldest first."""
        with self._lock:
            return tuple(logged.decision for logged in self._log.read())

    def feedback(self, call_id: str, score: float, name: str = FEEDBACK) -> None:
        """What the application says of an answer. Raises ``ConfigurationError`` for a score outside 0 to 1."""
        with self._lock:
            self._log.outcome(call_id, name, score, self._clock.now())

    def recall(self) -> PrefixStatistics:
        """What an earlier process learned of prefixes; nothing, where the storage does not keep it."""
        learned = PrefixStatistics()
        if self._journal is not None:
            for line in self._journal.read(_PREFIXES, self._clock.now() - _RECENT_S):
                with suppress(ValueError, KeyError, TypeError):  # of another version: learn anew
                    learned = PrefixStatistics.load(line.data)
        return learned

    def remember(self, learned: PrefixStatistics) -> None:
        """Keep what was learned of prefixes for the next process, where the storage can."""
        if self._journal is not None:
            self._journal.append(_PREFIXES, _PREFIXES, self._clock.now(), learned.dump())

    def _trace(self, call: Call, hold: Hold, usage: TokenUsage, at: float) -> None:
        if self._journal is not None and hold.plan is not None:
            trace = self._tracer.trace(call.request, hold.quote.target, hold.plan, usage, at=at, call_id=call.id)
            self._journal.append(TRACE, call.id, at, trace.encode())
