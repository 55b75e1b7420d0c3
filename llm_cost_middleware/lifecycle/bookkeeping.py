"""Writing down what happened: events to the observers, records to the tracker."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from llm_cost_middleware.budget.model import Receipt
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.events import (
    Adjusted,
    Capped,
    Escalated,
    Event,
    Failed,
    Observer,
    Refused,
    Reserved,
    Retried,
    Routed,
    Settled,
    ThresholdCrossed,
    Voided,
)
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import Call, Hold, Outcome, Quote
from llm_cost_middleware.money import ZERO
from llm_cost_middleware.observers.logging import LoggingObserver
from llm_cost_middleware.provider import Failure
from llm_cost_middleware.request import Target
from llm_cost_middleware.tracker import CostRecord, CostTracker

_log = logging.getLogger(__name__)
KEEP = 10_000
"""Records kept in memory; totals are kept for all. The ledger keeps every row."""
_AT_ONCE = 256


class Bookkeeper:
    """Tells the observers and keeps the tracker. Safe to share between threads."""

    _lock = ForkSafeLock()

    def __init__(self, clock: Clock, observers: Sequence[Observer]) -> None:
        self._clock, self.observers = clock, tuple(observers)
        self._only_logs = all(isinstance(observer, LoggingObserver) for observer in self.observers)
        self._tracker = CostTracker(None)
        self._new: list[CostRecord] = []

    @property
    def tracker(self) -> CostTracker:
        """What was spent through this pipeline since it was opened."""
        with self._lock:
            self._take_new()
            return self._tracker

    def add(self, record: CostRecord) -> None:
        """Keep a record."""
        with self._lock:
            self._new.append(record)
            if len(self._new) >= _AT_ONCE:
                self._take_new()

    def _take_new(self) -> None:
        """A version of the tracker for many records costs what one for a single record costs."""
        if self._new:
            tracker = self._tracker.add_all(self._new)
            self._tracker, self._new = tracker if len(tracker) < 2 * KEEP else tracker.compact(KEEP), []

    def heard(self) -> bool:
        """Whether anybody would take note of an ordinary event."""
        return not self._only_logs or LoggingObserver.listens()

    def emit(self, event: Event) -> None:
        """Tell every observer. An observer that raises is logged, and loses only this event."""
        for observer in self.observers:
            try:
                observer.on_event(event)
            except Exception:  # noqa: BLE001 - an observer must not break the call it watches
                _log.exception("observer %r failed on %s", observer, type(event).__name__)

    def routed(self, call: Call) -> None:
        """A model was chosen."""
        if call.heard and (decision := call.decision) is not None:
            now = self._clock.now()
            self.emit(
                Routed(
                    call.id,
                    now,
                    str(decision.target),
                    call.request.model,
                    decision.tier_name,
                    decision.policy,
                    decision.reason,
                )
            )

    def reserved(self, call: Call, hold: Hold) -> None:
        """Money was set aside."""
        if call.heard and hold.reservation_id is not None:
            quote = hold.quote
            self.emit(
                Reserved(
                    call.id, self._clock.now(), hold.reservation_id, call.attempts, str(quote.target),
                    quote.amount_nanousd, hold.scopes, hold.attempt.max_tokens, quote.injected, quote.bound.guaranteed,
                )
            )  # fmt: skip

    def settled(self, call: Call, hold: Hold, outcome: Outcome, receipt: Receipt | None, saving: int) -> None:
        """An attempt was booked: record it, and say so."""
        now, quote, reading = self._clock.now(), hold.quote, outcome.reading
        usage = reading.usage if reading is not None and reading.items else None
        record = CostRecord.of_checked(
            model=quote.target.model,
            input_tokens=usage.input_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
            cost_usd=outcome.amount_nanousd.usd,
            usage=usage,
            at=now,
            status=outcome.status,
            provider=quote.target.provider,
            call_id=call.id,
            attempt=call.attempts,
            tier=call.decision.tier_name if call.decision is not None else "",
            requested_model=call.request.model,
            response_id=reading.response_id if reading is not None else None,
            price_version=outcome.priced.price_version if outcome.priced is not None else "",
            max_tokens_injected=quote.injected,
            reserved_nanousd=quote.amount_nanousd,
            cache_saving_nanousd=saving,
            expected_cache_saving_nanousd=hold.plan.expected_saving_nanousd if hold.plan is not None else 0,
            scopes=hold.scopes,
        )
        call.records.append(record)
        call.spent_nanousd += outcome.amount_nanousd
        self.add(record)
        if call.heard:
            self.emit(
                Settled(
                    call.id, now, hold.reservation_id or "", call.attempts, str(quote.target), outcome.amount_nanousd,
                    receipt.overrun_nanousd if receipt is not None else ZERO, outcome.status, usage,
                    record.response_id,
                )
            )  # fmt: skip
        if quote.injected and reading is not None and reading.truncated:
            self.emit(Capped(call.id, now, str(quote.target), quote.max_tokens))
        for scope, window in receipt.warnings if receipt is not None else ():
            self.emit(ThresholdCrossed(call.id, now, scope, window))

    def voided(self, call: Call, hold: Hold, reason: str) -> None:
        """An attempt that was not billed gave its reservation back."""
        if call.heard:
            self.emit(
                Voided(
                    call.id, self._clock.now(), hold.reservation_id or "", call.attempts, str(hold.quote.target), reason
                )
            )

    def retried(self, call: Call, hold: Hold, failure: Failure, delay_s: float, following: Target) -> None:
        """An attempt failed, and another follows."""
        self.emit(
            Retried(
                call.id, self._clock.now(), call.attempts, str(hold.quote.target), failure.kind, failure.reason,
                delay_s, str(following),
            )
        )  # fmt: skip

    def escalated(self, call: Call, hold: Hold, following: Target) -> None:
        """An answer was not accepted, and a stronger model is asked."""
        self.emit(Escalated(call.id, self._clock.now(), call.attempts, str(hold.quote.target), str(following)))

    def failed(self, call: Call, hold: Hold, failure: Failure, reason: str) -> None:
        """A call ended in an error."""
        why = f"{failure.reason}; {reason}"
        self.emit(Failed(call.id, self._clock.now(), call.attempts, str(hold.quote.target), failure.kind, why))

    def refused(self, call: Call, quote: Quote, *, enforced: bool, scope: str | None) -> None:
        """A call did not fit."""
        amount = quote.amount_nanousd
        self.emit(Refused(call.id, self._clock.now(), str(quote.target), scope or "", amount, enforced))

    def adjusted(self, call: Call, action: str, before: str, after: str, *, enforced: bool) -> None:
        """A call was changed so that it fits."""
        self.emit(Adjusted(call.id, self._clock.now(), action, before, after, enforced))
