"""Before an attempt: wait until it may be sent, quote it, and set its money aside or make it fit."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from llm_cost_middleware.budget.model import GLOBAL
from llm_cost_middleware.budget.rules import Headroom
from llm_cost_middleware.capabilities.fitting import fit
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import (
    BudgetExceededError,
    CircuitOpenError,
    LedgerError,
    LedgerUnavailableError,
    ScopePausedError,
)
from llm_cost_middleware.lifecycle.commands import (
    Available,
    AwaitMoney,
    CheckPaused,
    Command,
    ReadHeadroom,
    Reserve,
    Sleep,
    Void,
    WriteLog,
)
from llm_cost_middleware.lifecycle.open_holds import OpenHolds
from llm_cost_middleware.lifecycle.provider_fields import filled
from llm_cost_middleware.lifecycle.sizing import Sizing
from llm_cost_middleware.lifecycle.spool_file import Unbooked
from llm_cost_middleware.lifecycle.stages import Stages
from llm_cost_middleware.lifecycle.stages.route import downgrades_of, fallbacks_of
from llm_cost_middleware.lifecycle.state import CallReport, Quote, ReservedAttempt, RoutedCall, Settings
from llm_cost_middleware.lifecycle.tightening import Tightening
from llm_cost_middleware.lifecycle.waiting import POLL_S
from llm_cost_middleware.metering import AttemptMemo
from llm_cost_middleware.metering.refused import refusal_line
from llm_cost_middleware.money import ZERO, NanoUSD, ceil_nanousd
from llm_cost_middleware.prompt_cache.plan import UnmarkedPlan
from llm_cost_middleware.request import EMPTY, Attempt, CallRequest, ModelRef
from llm_cost_middleware.retry.breaker import ADMITTED, Admission

_log = logging.getLogger(__name__)
_IN_LINE_S, _LAST_LOOK_S = 2.0, 0.001
_LEAST_TRY_S, _SPARE_S, _NO_LIMITS = 0.001, 60.0, (None, None)
_WARM_POLL_S, _WARM_POLLS = 0.05, 600  # thirty seconds: an answer that has not begun by then is no warm-up
_T = TypeVar("_T")
Steps = Generator[Command, Any, _T]
"""A part of a call's flow: yields commands, is sent their results, returns a value."""


class Fit(NamedTuple):
    """What became of making an attempt fit."""

    attempt: ReservedAttempt | None
    """Ready to be sent; ``None`` where nothing helped."""
    quote: Quote
    """The attempt as it was wanted, its input counted where it could be."""
    least: Quote
    """The least that was tried."""


class Reserving:
    """The steps from a chosen model to an attempt that may be sent. One a pipeline; keeps nothing of a call."""

    def __init__(self, stages: Stages, settings: Settings, clock: Clock, holds: OpenHolds) -> None:
        self._stages, self._settings, self._clock = stages, settings, clock
        self._sizing = Sizing(stages, settings, clock, self.available, self._check_paused)
        self.holds, self._tightening = holds, Tightening(stages, holds)
        self._sends = bool(settings.attribution.send) and not settings.observe

    def admit_and_reserve(
        self, call: RoutedCall, report: CallReport, target: ModelRef, number: int
    ) -> Steps[ReservedAttempt]:
        """Admit the attempt and set its money aside, here or at a model where it fits.

        In observe mode a misfit is only reported.
        """
        stages, observe = self._stages, self._settings.observe
        admission = stages.health.admit(call, target)
        if admission is not ADMITTED:
            target = yield from self._wait_for_breaker(call, target, admission)
        try:
            if stages.cache.warms_first:
                yield from self._wait_for_cache_write(call, target)
            if call.flex_at:
                call = stages.lanes.in_time(call)
            # After the waits, which may have chosen another model.
            quote = yield from self._sizing.first_quote(call, report, target)
            scope = None
            if stages.waiting.busy and not observe:
                scope = stages.waiting.line_of((GLOBAL, *call.scopes_at(target)))
            if scope is not None:  # others came first
                return (yield from self._wait_for_money(call, report, quote, number, scope))
            try:
                return (yield from self._reserve(call, report, quote, number))
            except BudgetExceededError as refusal:
                return (yield from self._make_fit(call, report, quote, number, refusal))
        except BaseException:
            stages.health.not_sent(call, target)
            raise

    def _make_fit(
        self, call: RoutedCall, report: CallReport, quote: Quote, number: int, refusal: BudgetExceededError
    ) -> Steps[ReservedAttempt]:
        """Make a refused attempt fit, or wait until it does, as far as the configuration allows."""
        observe = self._settings.observe
        fit = yield from self._fit_to_budget(call, report, quote, number, refusal)
        if fit.attempt is None and self._waits_for(refusal, fit.least):
            return (yield from self._wait_for_money(call, report, fit.quote, number, str(refusal.scope)))
        if fit.attempt is None:
            self._stages.record.refused(call, fit.least, enforced=not observe, scope=refusal.scope)
            if not observe:
                raise self._advised(call, report, fit.least, refusal) from refusal.__cause__
        # an observer sends the call as it is, whether it could be made to fit or not
        return self._unreserved(call, quote, number) if fit.attempt is None or observe else fit.attempt

    def _advised(
        self, call: RoutedCall, report: CallReport, least: Quote, refusal: BudgetExceededError
    ) -> BudgetExceededError:
        """The refusal, with what would have fitted, when money may return, and what a run is expected to spend yet."""
        stages = self._stages
        refusal.foreseen(stages.record.foresight(refusal.scope), stages.price.least_amount(least).usd)
        advised = stages.price.advise(refusal, least, stages.waiting.held_s)
        report.refusal = refusal_line(
            call_id=call.id, target=least.target, scopes=(GLOBAL, *call.scopes_at(least.target)),
            scope=advised.scope or "", wanted=least.amount_nanousd, tier=call.decision.tier_name,
            pending=ceil_nanousd(max(advised.pending or ZERO.usd, ZERO.usd)), fits=advised.max_tokens or 0,
        )  # fmt: skip
        return advised

    # --- waiting for money -----------------------------------------------------------------------------------------

    def _waits_for(self, refusal: BudgetExceededError, quote: Quote) -> bool:
        """Whether money that calls in flight hold, and have not spent, is all that stands in the way.

        It may have been taken by another call after this one was refused: what was pending then does not decide.
        """
        if not self._settings.max_wait_for_budget_s or self._settings.observe:
            return False
        unspent = refusal.available + (refusal.pending or 0)
        return self._stages.price.least_amount(quote) <= ceil_nanousd(max(unspent, ZERO.usd))

    def _wait_for_money(
        self, call: RoutedCall, report: CallReport, quote: Quote, number: int, scope: str
    ) -> Steps[ReservedAttempt]:
        """Wait in line until the attempt fits, at most as long as the configuration allows."""
        waiting, record = self._stages.waiting, self._stages.record
        ticket = waiting.join(scope)
        left, until = (
            self._settings.max_wait_for_budget_s,
            self._clock.monotonic() + self._settings.max_wait_for_budget_s,
        )
        record.waiting(call, quote, scope, ahead=waiting.ahead_of(ticket))
        try:
            while True:
                first = waiting.ahead_of(ticket) == 0
                # By the waits as well: a clock that is set by hand may stand still.
                left = min(left, until - self._clock.monotonic())
                if first:
                    try:
                        return (yield from self._reserve(call, report, quote, number))
                    except BudgetExceededError as error:
                        refusal = error
                    fit = yield from self._fit_to_budget(call, report, quote, number, refusal)
                    if fit.attempt is not None:
                        return fit.attempt
                    if left <= 0 or not self._waits_for(refusal, fit.least):
                        record.refused(call, fit.least, enforced=True, scope=refusal.scope)
                        raise self._advised(call, report, fit.least, refusal) from refusal.__cause__
                    quote = fit.quote
                pause = max(min(POLL_S if first else _IN_LINE_S, left), _LAST_LOOK_S)
                if not (yield AwaitMoney(ticket, pause)):
                    left -= pause
                if left <= 0:
                    waiting.leave(ticket)  # whoever is next has its turn; this call looks once more and ends
        finally:
            waiting.leave(ticket)

    def _wait_for_breaker(self, call: RoutedCall, target: ModelRef, admission: Admission) -> Steps[ModelRef]:
        """Wait until the circuit breaker admits an attempt; where the circuit is open, choose another model."""
        health = self._stages.health
        while admission.action == "wait":
            yield Sleep(admission.delay_s)
            admission = health.admit(call, target, admission)
        if not admission.rejected:
            return target
        # Only one that is admitted at once: a second queue would add its wait to the first.
        for other in fallbacks_of(call, target) if health.falls_back else ():
            if health.admit(call, other).action == "admit":
                return other
        raise CircuitOpenError(str(target), admission.retry_after)

    def _wait_for_cache_write(self, call: RoutedCall, target: ModelRef) -> Steps[None]:
        """With ``warm_first``: wait while another call writes the prefix that this one could read."""
        for _ in range(_WARM_POLLS):
            if not self._stages.cache.must_wait(call, target):
                return
            yield Sleep(_WARM_POLL_S)

    def _reserve(self, call: RoutedCall, report: CallReport, quote: Quote, number: int) -> Steps[ReservedAttempt]:
        """Set the money of an attempt aside."""
        # Decided here: the ledger knows no limit of a single call.
        if quote.over_call_limit is not None:
            raise quote.over_call_limit
        stages = self._stages
        report.reservations += 1  # an id once refused stays refused: every try has one of its own
        reservation_id: str | None
        reservation_id = held = f"{call.id}.{report.reservations}"
        scopes = call.scopes_at(quote.target)
        memo = AttemptMemo.of(call.id, number, quote.target)
        try:
            yield Reserve(held, quote.amount_nanousd, scopes, self._hold_ttl_s(call, quote), memo)
        except LedgerUnavailableError as error:
            if stages.spool is not None and stages.spool.voids:  # it may be held all the same
                entry = Unbooked("void", held, ZERO, "unconfirmed", scopes, b"")
                yield WriteLog(partial(stages.spool.keep, entry))
            if not self._settings.allow_unavailable:
                raise
            _log.error("sent without a reservation, as on_unavailable allows: %s", error)
            reservation_id = None
        except ScopePausedError as paused:  # a stop button stops, in every mode
            self._stages.record.paused(call, quote, paused)
            raise
        except (BudgetExceededError, LedgerError, GeneratorExit):
            raise
        except BaseException:  # interrupted at the very moment: nothing was sent, so nothing may stay reserved
            with suppress(LedgerError):
                yield Void(held)
            raise
        reserved = self._reserved(call, quote, number, reservation_id, scopes)
        self.holds.opened(call, report, reserved)
        return reserved

    def _check_paused(self, call: RoutedCall, quote: Quote) -> Steps[None]:
        """Look whether the attempt may be sent, ahead of its reservation."""
        try:
            yield CheckPaused(call.scopes_at(quote.target))
        except ScopePausedError as paused:
            self._stages.record.paused(call, quote, paused)
            raise
        except LedgerUnavailableError:
            if not self._settings.allow_unavailable:
                raise

    def _reserved(
        self, call: RoutedCall, quote: Quote, number: int, reservation_id: str | None, scopes: tuple[str, ...]
    ) -> ReservedAttempt:
        """The attempt, ready to be sent."""
        stages, request, target = self._stages, call.request, quote.target
        now = self._clock.monotonic()
        cache_plan = quote.plan
        if cache_plan is not None:
            stages.cache.begin(call, cache_plan)
        as_written = quote.cap_unsent or (self._settings.observe and not request.needs_cap)
        cap = request.max_tokens if as_written else quote.max_tokens
        timeout_s, cut_after_s = stages.health.limits_s(call, target, now) if stages.health.limits_time else _NO_LIMITS
        if quote.lane and call.lane is not None:  # a try at flex leaves time for the standard tier
            try_s = max(call.lane.left_s(now - call.started_at), _LEAST_TRY_S)
            cut_after_s = try_s if cut_after_s is None else min(try_s, cut_after_s)
        changes = fit(request, target).changes if self._settings.observe else quote.changes
        if quote.tier is not None and not self._settings.observe:
            changes = {**changes, "service_tier": quote.tier}
        plain = target.plain
        attempt = Attempt(
            call.id, number, plain, cap, cache_plan, timeout_s, request.choice_count, cut_after_s, changes,
            request.is_bare(plain), self._sent_fields(request, target, scopes) if self._sends else EMPTY,
        )  # fmt: skip
        reserved = ReservedAttempt(reservation_id, attempt, quote, scopes, now, cache_plan)
        if reservation_id is not None and call.events_enabled:
            stages.record.reserved(reserved, call.request.endpoint)
        return reserved

    def _hold_ttl_s(self, call: RoutedCall, quote: Quote) -> float:
        """The lifetime of a hold: longer than the try at flex that it is for."""
        ttl_s = self._settings.hold_ttl_s
        return max(ttl_s, call.lane.try_s + _SPARE_S) if quote.lane and call.lane is not None else ttl_s

    def _sent_fields(self, request: CallRequest, target: ModelRef, scopes: tuple[str, ...]) -> Mapping[str, Any]:
        if request.is_bare(target.plain):  # nothing is added
            return EMPTY
        return filled(self._settings.attribution.send, scopes, request.settings, target.provider)

    def _unreserved(self, call: RoutedCall, quote: Quote, number: int) -> ReservedAttempt:
        """The attempt as it is sent where no money could be set aside; it is booked afterwards."""
        return self._reserved(call, quote, number, None, call.scopes_at(quote.target))

    def _fit_to_budget(
        self, call: RoutedCall, report: CallReport, quote: Quote, number: int, refusal: BudgetExceededError
    ) -> Steps[Fit]:
        """Count where bytes were the bound, give up cache marks of ours, then do what ``on_insufficient`` allows."""
        fitting: ReservedAttempt | None = None
        room = ceil_nanousd(max(refusal.available, ZERO.usd))
        better = yield from self._sizing.counted(call, report, quote, refusal)
        if better.amount_nanousd < quote.amount_nanousd:
            quote = better
            if quote.amount_nanousd <= room:
                fitting = yield from self._try_reserve(call, report, quote, number)
        least = self._stages.price.unmarked(call, quote, report.token_counts) if fitting is None else quote
        if least is not quote and least.amount_nanousd <= room:
            fitting = yield from self._try_reserve(call, report, least, number)
        if fitting is None and not self._settings.observe and least.over_call_limit is None:
            while fitting is None and (yield from self._tightening.tighten(refusal, least)):
                fitting = yield from self._try_both(call, report, quote, least, number)
        for action in self._settings.on_insufficient:
            if fitting is not None or action == "raise":
                break
            if action == "downgrade":
                fitting, least = yield from self._downgrade(call, report, least, number)
            else:
                fitting = yield from self._cap_output(call, report, least, number)
        if fitting is not None and isinstance(fitting.plan, UnmarkedPlan):
            self._stages.record.adjusted(call, "drop_cache_marks", fitting.plan.given_up, 0, enforced=True)
        return Fit(fitting, quote, least)

    def _downgrade(
        self, call: RoutedCall, report: CallReport, quote: Quote, number: int
    ) -> Steps[tuple[ReservedAttempt | None, Quote]]:
        """Try the cheaper models. Returns the attempt that fits, if any, and the cheapest quote that was tried."""
        stages = self._stages
        for cheaper in downgrades_of(call, quote.target):
            if cheaper in report.tried_targets:
                continue
            lesser = yield from self._sizing.first_quote(call, report, cheaper)
            # Cheaper by its expected cost is not always cheaper by its bound: another tokenizer, a longer default
            # answer.
            bare = stages.price.unmarked(call, lesser, report.token_counts)
            if bare.amount_nanousd >= quote.amount_nanousd:
                continue
            fitting = yield from self._try_both(call, report, lesser, bare, number)
            if fitting is not None:
                enforced = not self._settings.observe
                stages.record.adjusted(call, "downgrade", quote.target, cheaper, enforced=enforced)
                return fitting, bare
            quote = bare
        return None, quote

    def _cap_output(
        self, call: RoutedCall, report: CallReport, quote: Quote, number: int
    ) -> Steps[ReservedAttempt | None]:
        """Try the largest output cap that the budget leaves room for."""
        # An observer may not take money from calls that are enforced elsewhere, so it looks instead of reserving.
        available = yield from self.available(call.scopes_at(quote.target))
        capped = self._stages.price.cap_to(call, quote, available, report.token_counts)
        if capped is None:
            return None
        fitting = yield from self._try_reserve(call, report, capped, number)
        if fitting is not None:
            enforced = not self._settings.observe
            self._stages.record.adjusted(call, "cap_output", quote.max_tokens, capped.max_tokens, enforced=enforced)
        return fitting

    def _try_reserve(
        self, call: RoutedCall, report: CallReport, quote: Quote, number: int
    ) -> Steps[ReservedAttempt | None]:
        """Set a lesser amount aside; in observe mode, only look whether it would have fitted."""
        if self._settings.observe:
            available = yield from self.available(call.scopes_at(quote.target))
            fits = quote.over_call_limit is None and (available is None or quote.amount_nanousd <= available)
            return self._unreserved(call, quote, number) if fits else None
        try:
            return (yield from self._reserve(call, report, quote, number))
        except BudgetExceededError:
            return None

    def _try_both(
        self, call: RoutedCall, report: CallReport, quote: Quote, bare: Quote, number: int
    ) -> Steps[ReservedAttempt | None]:
        """Try an attempt, and then without its marks; ``bare`` is ``quote`` where that would hold no less."""
        fitting = yield from self._try_reserve(call, report, quote, number)
        if fitting is None and bare is not quote:
            fitting = yield from self._try_reserve(call, report, bare, number)
        return fitting

    def headroom(self, scopes: tuple[str, ...]) -> Steps[Headroom | None]:
        """Ask for the money left in the tightest budget; ``None`` where nothing limits it or the ledger is away."""
        headroom: Headroom | None = None
        try:
            headroom = yield ReadHeadroom(scopes)
        except LedgerUnavailableError:
            if not self._settings.allow_unavailable:
                raise
        return headroom

    def available(self, scopes: tuple[str, ...]) -> Steps[NanoUSD | None]:
        """Ask for the money left in the tightest budget; ``None`` as for ``headroom``."""
        available: NanoUSD | None = None
        try:
            available = yield Available(scopes)
        except LedgerUnavailableError:
            if not self._settings.allow_unavailable:
                raise
        return available
