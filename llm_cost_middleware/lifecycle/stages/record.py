"""The record of a call: events to the observers, cost records to the tracker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from inspect import iscoroutinefunction
from itertools import zip_longest
from typing import Any

from llm_cost_middleware.budget.model import Receipt
from llm_cost_middleware.budget.rules import ScopeBalance
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError, PriceNotFoundError, ScopePausedError
from llm_cost_middleware.events import (
    BudgetRefused,
    CallFailed,
    CallPaused,
    Escalated,
    Event,
    ModelUnpriced,
    Observer,
    OutputCapReached,
    PolicyDrifted,
    RequestAdjusted,
    Reserved,
    Retried,
    Routed,
    Settled,
    ThresholdCrossed,
    Unattributed,
    Ungoverned,
    Voided,
    WaitingForBudget,
)
from llm_cost_middleware.foresight import Foresight
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.attribution import AttributionConfig, Gap
from llm_cost_middleware.lifecycle.state import CallReport, Posting, Quote, ReservedAttempt, RoutedCall
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.observers.logging import LOGGER, LoggingObserver
from llm_cost_middleware.provider import Failure
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.sentences import Sentence, unread
from llm_cost_middleware.tracker import Booked, CostRecord, CostTracker
from llm_cost_middleware.usage import TokenUsage

_log = logging.getLogger(__name__)
_MOST_MISNAMED = 1_000
"""So many names are logged at most that nobody has: a client may send a new one with every request."""
KEEP = 10_000
"""Records kept in memory; totals are kept for all. The ledger keeps every row."""
_BATCH = 256  # records; a new version of the tracker costs as much for many as for one


class CallRecorder:
    """Notifies the observers and keeps the tracker. Safe to share between threads."""

    _lock = ForkSafeLock()

    def __init__(self, clock: Clock, observers: Sequence[Observer]) -> None:
        self._clock, self.observers = clock, tuple(observers)
        # ``only_warnings``: what is told without ``events_enabled`` is all that it looks at
        self._only_logs = all(
            isinstance(observer, LoggingObserver) or getattr(observer, "only_warnings", False)
            for observer in self.observers
        )
        for observer in self.observers:
            check_observer(observer)
        self._failed: set[int] = set()
        # Metrics add up what is booked, by whatever way: not every booking is an event of a call.
        self._keepers: tuple[Any, ...] = tuple(one for one in self.observers if hasattr(one, "on_record"))
        self._misnamed: set[tuple[str, str]] = set()
        self._tracker = CostTracker(None)
        self._new: list[Booked] = []
        self.foresee: Callable[[str], Foresight] | None = None
        """Makes the forecast of a run; set by the pipeline."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock.now()

    @property
    def tracker(self) -> CostTracker:
        """Everything spent through this pipeline since it was opened."""
        with self._lock:
            self._take_new()
            return self._tracker

    def keep(
        self,
        posting: Posting,
        target: ModelRef,
        call_id: str,
        at: float,
        usage: TokenUsage | None,
        requested_model: str,
        scopes: tuple[str, ...] = (),
        tier: str = "",
        cache_saving_nanousd: int = 0,
        reserved: ReservedAttempt | None = None,
        counted: bool = True,
    ) -> Booked:
        """Note an amount that was booked, and keep it.

        Args:
            posting: The amount, and the usage and the price that it rests on.
            target: The model that was asked.
            call_id: Names the call.
            at: When it was booked: seconds since the Unix epoch.
            usage: Its tokens; ``None`` where they are unknown.
            requested_model: The model that the caller named.
            scopes: The budget scopes it was booked under.
            tier: The tier of the model.
            cache_saving_nanousd: Nano-dollars that the provider's cache saved.
            reserved: The attempt, where money was set aside for it.
            counted: Keep it; otherwise it is a part of one that is kept.
        """
        reading, priced = posting.reading, posting.priced
        number, injected, held, expected, lane = 1, False, None, 0, ""
        if reserved is not None:
            quote, plan, number = reserved.quote, reserved.plan, reserved.attempt.number
            injected, held, lane = quote.injected, quote.amount_nanousd, quote.lane
            expected = plan.expected_saving_nanousd if plan is not None else 0
        response_id, service_tier = None, lane
        if reading is not None:
            response_id, service_tier = reading.response_id, reading.service_tier or ""
        version = priced.price_version if priced is not None else ""
        booked = Booked(
            target, posting.amount_nanousd, usage, at, posting.status, call_id, number, tier, requested_model,
            response_id, version, injected, held, cache_saving_nanousd, expected, scopes, service_tier,
        )  # fmt: skip
        if not counted:
            return booked
        self._new.append(booked)  # one step: needs no lock
        if len(self._new) >= _BATCH:
            with self._lock:
                self._take_new()
        if self._keepers:
            record = booked.record()
            for observer in self._keepers:
                self._tell(observer, observer.on_record, record)
        return booked

    def _take_new(self) -> None:
        """Move what is new into the tracker; the lock is held."""
        if new := self._new[:]:
            tracker = self._tracker.add_all(new)
            self._tracker = tracker if len(tracker) < 2 * KEEP else tracker.compact(KEEP)
            del self._new[: len(new)]  # others may have appended meanwhile

    @property
    def has_listeners(self) -> bool:
        """Whether any observer would receive events below a warning: most pipelines run with logging off."""
        return not self._only_logs or LOGGER.isEnabledFor(logging.INFO)

    def emit(self, event: Event) -> None:
        """Notify every observer. One that raises loses only this event, and is named the first time."""
        for observer in self.observers:
            self._tell(observer, getattr(observer, "on_event", observer), event)

    def _tell(self, observer: Any, receive: Any, what: Event | CostRecord) -> None:
        try:
            receive(what)
        except Exception:  # noqa: BLE001 - an observer must not break the call it watches
            first = id(observer) not in self._failed
            self._failed.add(id(observer))
            told = "observer %r failed on %s; the next times it is told at DEBUG alone"
            _log.log(logging.ERROR if first else logging.DEBUG, told, observer, type(what).__name__, exc_info=True)

    def routed(self, call: RoutedCall) -> None:
        """A model was chosen."""
        decision = call.decision
        self.emit(
            Routed(
                call.id, self._clock.now(), str(decision.target), call.request.model, decision.tier_name,
                decision.policy, unread(decision, "reason"),
            )
        )  # fmt: skip

    def reserved(self, reserved: ReservedAttempt, endpoint: str = "") -> None:
        """Money was set aside."""
        attempt, quote = reserved.attempt, reserved.quote
        self.emit(
            Reserved(
                attempt.call_id, self._clock.now(), reserved.reservation_id or "", attempt.number,
                str(attempt.target), quote.amount_nanousd, reserved.scopes, attempt.max_tokens, quote.injected,
                quote.bound.guaranteed, endpoint,
            )
        )  # fmt: skip

    def settled(
        self,
        call: RoutedCall,
        report: CallReport,
        reserved: ReservedAttempt,
        posting: Posting,
        receipt: Receipt | None,
        usage: TokenUsage | None,
        balances: Iterable[ScopeBalance] = (),
        failure: str = "",
    ) -> None:
        """Record an attempt that was booked.

        Args:
            call: The call.
            report: What became of it so far.
            reserved: The attempt.
            posting: What was booked.
            receipt: The ledger's answer.
            usage: The usage of its answer, where it was answered in full.
            balances: Of the budgets that ``receipt`` warns of.
            failure: Why it failed, where it did.
        """
        attempt, quote, plan = reserved.attempt, reserved.quote, reserved.plan
        now, reading, saving = self._clock.now(), posting.reading, 0
        if plan is not None and usage is not None and plan.prices is not None:
            saving = int(plan.prices.saving(usage))
        if usage is None and reading is not None and reading.items:
            usage = reading.usage
        booked = self.keep(  # by place: names cost as much again
            posting, attempt.target, call.id, now, usage, call.request.model, reserved.scopes,
            call.decision.tier_name, saving, reserved,
        )  # fmt: skip
        spent, amount = report.spent_nanousd, posting.amount_nanousd
        report.booked += (booked,)
        report.spent_nanousd = NanoUSD(spent + amount) if spent else amount
        if call.events_enabled:
            self.emit(
                Settled(
                    call.id, now, reserved.reservation_id or "", attempt.number, str(attempt.target),
                    posting.amount_nanousd, receipt.overrun_nanousd if receipt is not None else ZERO,
                    posting.status, usage, booked.response_id, reserved.scopes, failure,
                )
            )  # fmt: skip
        if quote.injected and reading is not None and reading.truncated:
            self.emit(OutputCapReached(call.id, now, str(attempt.target), quote.max_tokens))
        if receipt is not None and receipt.warnings:
            found = {(one.scope, one.budget.window): one for one in balances if one.budget is not None}
            for (scope, window), threshold in zip_longest(receipt.warnings, receipt.thresholds):
                figures = _figures(found.get((scope, window)))
                self.emit(
                    ThresholdCrossed(call.id, now, scope, window, threshold, *figures, foresight=self.foresight(scope))
                )

    def voided(self, reserved: ReservedAttempt, failure: Failure) -> None:
        """An attempt that was not billed gave its reservation back."""
        attempt, reservation_id = reserved.attempt, reserved.reservation_id or ""
        self.emit(
            Voided(
                attempt.call_id, self._clock.now(), reservation_id, attempt.number, str(attempt.target), failure.kind,
                unread(failure, "reason"),
            )
        )  # fmt: skip

    def retried(self, reserved: ReservedAttempt, failure: Failure, delay_s: float, following: ModelRef) -> None:
        """An attempt failed, and another follows."""
        attempt = reserved.attempt
        self.emit(
            Retried(
                attempt.call_id, self._clock.now(), attempt.number, str(attempt.target), failure.kind,
                unread(failure, "reason"), delay_s, str(following),
            )
        )  # fmt: skip

    def escalated(self, reserved: ReservedAttempt, following: ModelRef) -> None:
        """An answer was not accepted, and a stronger model is asked."""
        attempt = reserved.attempt
        now = self._clock.now()
        self.emit(Escalated(attempt.call_id, now, attempt.number, str(attempt.target), str(following)))

    def policy_drifted(self, call: RoutedCall, version: str, reason: str) -> None:
        """A learned policy fell back to the stronger model."""
        self.emit(PolicyDrifted(call.id, self._clock.now(), version, reason))

    def failed(self, reserved: ReservedAttempt, failure: Failure, reason: Sentence) -> None:
        """A call ended in an error."""
        attempt, now = reserved.attempt, self._clock.now()
        why: Sentence = ("{}; {}".format, unread(failure, "reason"), reason)
        self.emit(CallFailed(attempt.call_id, now, attempt.number, str(attempt.target), failure.kind, why))

    def refused(self, call: RoutedCall, quote: Quote, *, enforced: bool, scope: str | None) -> None:
        """A call did not fit."""
        now, amount = self._clock.now(), quote.amount_nanousd
        self.emit(BudgetRefused(call.id, now, str(quote.target), scope or "", amount, enforced, self.foresight(scope)))

    def foresight(self, scope: str | None) -> Foresight | None:
        """What there is to expect of a scope, where it is a run."""
        return self.foresee(scope) if scope and scope.startswith("run:") and self.foresee is not None else None

    def unpriced(self, call: RoutedCall, error: PriceNotFoundError) -> None:
        """A call was refused for want of a price."""
        self.emit(ModelUnpriced(call.id, self._clock.now(), f"{error.provider}/{error.model}"))

    def unattributed(self, gaps: Iterable[Gap], rule: AttributionConfig, *, enforced: bool) -> None:
        """A call does not say whose it is. A name that is let through although nobody has it is logged, once."""
        for gap in gaps:
            reason, error = "missing" if gap.name is None else "unknown", rule.error(gap)
            nearest = error.nearest[0] if error.nearest else ""
            self.emit(Unattributed("", self._clock.now(), gap.kind, reason, enforced, nearest))
            if gap.name is not None and not enforced and len(self._misnamed) < _MOST_MISNAMED:
                if (gap.kind, gap.name) not in self._misnamed:
                    _log.warning("%s (its calls are booked under %s)", error, gap.stands_for)
                self._misnamed.add((gap.kind, gap.name))

    def ungoverned(self, what: str, advice: str) -> None:
        """A call goes past the middleware."""
        self.emit(Ungoverned("", self._clock.now(), what, advice))

    def paused(self, call: RoutedCall, quote: Quote, error: ScopePausedError) -> None:
        """A call met a pause."""
        self.emit(CallPaused(call.id, self._clock.now(), str(quote.target), error.scope, error.reason, enforced=True))

    def waiting(self, call: RoutedCall, quote: Quote, scope: str, *, ahead: int) -> None:
        """A call waits for money."""
        self.emit(WaitingForBudget(call.id, self._clock.now(), str(quote.target), scope, quote.amount_nanousd, ahead))

    def adjusted(self, call: RoutedCall, action: str, before: object, after: object, *, enforced: bool) -> None:
        """A call was changed so that it fits."""
        self.emit(RequestAdjusted(call.id, self._clock.now(), action, str(before), str(after), enforced))


def check_observer(observer: Any) -> None:
    """Check that an observer can receive events: by its ``on_event``, or because it is a function.

    Raises:
        ConfigurationError: It is neither, a class instead of an instance, or asynchronous, which nobody would await.
    """
    form = "an observer is a function that takes an event, or an object with on_event(event)"
    if isinstance(observer, type):
        raise ConfigurationError(f"{observer.__name__} is a class: pass an instance; {form}", key="observers")
    receive = getattr(observer, "on_event", observer)
    if not callable(receive):
        raise ConfigurationError(f"{form}, not {observer!r}", key="observers")
    if iscoroutinefunction(receive) or iscoroutinefunction(type(receive).__call__):
        raise ConfigurationError(f"{observer!r} is asynchronous, and nobody would await it; {form}", key="observers")


def _figures(found: ScopeBalance | None) -> tuple[NanoUSD | None, NanoUSD | None, float | None]:
    if found is None:
        return None, None, None
    resets = None if found.resets_at is None else found.resets_at.timestamp()
    return found.balance.limit_nanousd, found.balance.settled_nanousd, resets
