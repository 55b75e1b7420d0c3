"""After an attempt: book its cost, learn from it, record it, and decide what follows a failure."""

from __future__ import annotations

import logging
from functools import partial

from llm_cost_middleware.budget.ledger import SettlementStatus
from llm_cost_middleware.budget.model import Receipt
from llm_cost_middleware.budget.notes import Notes
from llm_cost_middleware.budget.rules import ScopeBalance
from llm_cost_middleware.budget.tallies import written_memo
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LedgerError, LedgerUnavailableError, ReservationNotFoundError
from llm_cost_middleware.lifecycle.call_facts import SHOWS, facts_of
from llm_cost_middleware.lifecycle.commands import (
    Extend,
    PostUnreserved,
    ReadBalances,
    Settle,
    Sleep,
    StreamEnd,
    Void,
    WriteLog,
)
from llm_cost_middleware.lifecycle.deferred import DEFERRED_LIFETIME_S, DeferredBill
from llm_cost_middleware.lifecycle.reserving import Steps
from llm_cost_middleware.lifecycle.spool_file import Unbooked
from llm_cost_middleware.lifecycle.stages import Stages
from llm_cost_middleware.lifecycle.stages.route import fallbacks_of
from llm_cost_middleware.lifecycle.state import CallReport, Posting, ReservedAttempt, RoutedCall
from llm_cost_middleware.metering import AttemptMemo
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.retry.flex import as_flex
from llm_cost_middleware.routing.signals import PARSE_FAILED
from llm_cost_middleware.sentences import unread
from llm_cost_middleware.usage import FAILED_LOCALLY, LOST_LOCALLY, NOT_SENT, TokenUsage, UsageReport, attached_usage

_log = logging.getLogger(__name__)
_UNSENT = (FAILED_LOCALLY, NOT_SENT)
_VERBS = {Settle: "settle", PostUnreserved: "book", Void: "void"}


class Settling:
    """The steps that resolve a reservation, however its attempt ended. One a pipeline; keeps nothing of a call."""

    def __init__(self, stages: Stages, clock: Clock) -> None:
        self._stages, self._clock = stages, clock

    def after_failure(
        self,
        call: RoutedCall,
        report: CallReport,
        reserved: ReservedAttempt,
        error: BaseException,
        retry_tokens: int,
    ) -> Steps[tuple[ModelRef | None, int]]:
        """Resolve a failed attempt.

        Returns:
            The target of the next attempt and the retry-quota tokens it took; ``None`` to let the error through.
        """
        if isinstance(error, GeneratorExit):  # the flow itself is being closed: it may not yield any more
            return None, 0
        stages, target = self._stages, reserved.attempt.target
        failure = stages.health.classify(error, target)
        reading = attached_usage(error)
        if reading is not None and reading.in_vain:
            billed = "no" if reading.unbilled else failure.billed
            failure = failure.changed(kind=FailureKind.UNKNOWN, retryable=False, billed=billed)
        if reserved.quote.lane:
            failure = as_flex(failure, error)
        yield from self._resolve_failed(call, report, reserved, failure, reading, retry_tokens)
        lane = stages.lanes.after_failure(call, report, reserved, failure)
        if lane is not None:
            stages.health.not_sent(call, target)
            why = ("{}; {}".format, unread(failure, "reason"), unread(lane, "reason"))
            stages.record.retried(reserved, failure.changed(reason=why), lane.delay_s, reserved.arm)
            if lane.delay_s > 0:
                yield Sleep(lane.delay_s)
            return reserved.arm, 0
        # Never again for this call: not as a fallback, and not as a step down when money is short.
        report.tried_targets += (reserved.arm,)
        tried = {other.plain for other in report.tried_targets}
        others = {
            other.plain: other for other in (fallbacks_of(call, target) if stages.health.falls_back else ())
            if other.plain not in tried
        }  # fmt: skip
        decision = stages.health.decide_retry(call, reserved, failure, tuple(others), error, report.flex_tries)
        if decision.action == "raise" or call.sent_externally:
            stages.record.failed(reserved, failure, unread(decision, "reason"))
            if failure.retry_after and isinstance(error, Exception):
                error.add_note(f"llm_cost_middleware: the provider asks to retry after {failure.retry_after:g} s")
            return None, 0
        following = others.get(decision.target or target, reserved.arm)
        stages.record.retried(reserved, failure, decision.delay_s, following)
        if decision.delay_s > 0:
            yield Sleep(decision.delay_s)
        return following, decision.retry_tokens

    def _resolve_failed(
        self,
        call: RoutedCall,
        report: CallReport,
        reserved: ReservedAttempt,
        failure: Failure,
        reading: UsageReport | None,
        retry_tokens: int,
    ) -> Steps[None]:
        """Give back the reservation of an attempt that failed, or book it: at its usage, or all of it."""
        stages = self._stages
        if reading in _UNSENT or (reading is None and failure.billed == "no"):
            yield from self._void(call, reserved, failure)
        elif reading is not None and reading is not LOST_LOCALLY:
            # billed, and the host could read for how much (an answer that failed to parse)
            unparsed = reading.error is None and not reading.unbilled and not reading.in_vain
            signals = (PARSE_FAILED,) if unparsed else ()
            posting = stages.price.posting(reserved, reading)
            why = PARSE_FAILED if unparsed else failure.kind.value
            yield from self.post(call, report, reserved, posting, signals, stands=False, failure=why)
            if reading.complete:  # the target is up
                stages.health.succeeded(call, reserved, retry_tokens)
        else:  # it may have been billed: the reservation is the most that it can have cost
            unconfirmed = Posting(reserved.quote.amount_nanousd, "unconfirmed")
            why = failure.kind.value
            yield from self.post(call, report, reserved, unconfirmed, stands=False, failure=why)

    def end_stream(
        self, call: RoutedCall, report: CallReport, reserved: ReservedAttempt, end: StreamEnd, retry_tokens: int
    ) -> Steps[None]:
        """Book a stream, however it was left: the usage it reported, and the most for what it did not report."""
        stages, reading, error = self._stages, end.reading, end.error
        failure = None
        if error is not None and not reading.complete and not isinstance(error, GeneratorExit):
            failure = stages.health.classify(error, reserved.attempt.target)
        if reading.complete or reading.unbilled:
            posting = stages.price.posting(reserved, reading)
        else:
            if failure is not None:
                stages.health.failed(call, reserved, failure)
            posting = stages.price.interrupted_posting(reserved, reading)
        if failure is None:  # also where its caller left it early: the target is up
            stages.health.succeeded(call, reserved, retry_tokens)
        yield from self.post(call, report, reserved, posting, failure=failure.kind.value if failure else "")
        if failure is not None:
            stages.record.failed(reserved, failure, "in the middle of its stream")

    def post(
        self,
        call: RoutedCall,
        report: CallReport,
        reserved: ReservedAttempt,
        posting: Posting,
        signals: tuple[str, ...] = (),
        *,
        stands: bool = True,
        failure: str = "",
    ) -> Steps[None]:
        """Book an attempt, whatever happens meanwhile, learn from it and record it; what is unfinished, later.

        Args:
            call: The call.
            report: What became of it so far.
            reserved: The attempt.
            posting: What to book.
            signals: Failures that its answer shows.
            stands: No other attempt can follow.
            failure: Why the attempt failed, where it did and may have been billed.
        """
        # No generator itself: each that stands between the driver and a verb is passed by every command.
        now = self._post_now(call, report, reserved, posting, signals, stands=stands, failure=failure)
        reading = posting.reading
        if reading is None or not reading.pending or reading.response_id is None:
            return now
        return self._post_pending(call, report, reserved, reading.response_id, now)

    def _post_pending(
        self, call: RoutedCall, report: CallReport, reserved: ReservedAttempt, response_id: str, now: Steps[None]
    ) -> Steps[None]:
        if not (yield from self._deferred(call, report, reserved, response_id)):
            yield from now

    def _post_now(
        self,
        call: RoutedCall,
        report: CallReport,
        reserved: ReservedAttempt,
        posting: Posting,
        signals: tuple[str, ...],
        *,
        stands: bool,
        failure: str,
    ) -> Steps[None]:
        reading = posting.reading
        served = reserved if reading is None or reading.served_by is None else call.as_served(reserved, reading)
        attempt, arm = served.attempt, served.arm
        memo = AttemptMemo.of(
            call.id, attempt.number, arm, posting.priced, reading, call.decision.tier_name,
            call.asked_of(attempt.target), facts_of(call, served, reading, report.content, failure),
        )  # fmt: skip
        report.content = None
        stages, held = self._stages, reserved
        reserved = served
        # Learned from before it is booked: what is written down of it rides in the transaction of the money.
        usage = None if reading is None else self._learned(call, report, reserved, arm, reading)
        if signals:
            report.quality_signals += signals
        report.answered = arm
        if reserved.plan is not None:
            # Also without usage: a planned cache write that nobody can confirm must not count as warm.
            stages.cache.observe_result(call, reserved, reading)
            if usage is not None:
                stages.decisions.note_cache_trace(report, reserved, usage)
        if stages.decisions.rides:
            tokens = _answered_tokens(usage, reading)
            stages.decisions.settling(call, report, arm, posting, tokens, stands=stands)
        notes = stages.notes(report) if stages.decisions.rides else None
        if held.reservation_id is None or served is not held:
            receipt, interruption = yield from self._book(call, report, held, served, posting, memo, notes)
        else:
            verb, interruption = Settle(held.reservation_id, posting.amount_nanousd, posting.status, memo, notes), None
            try:  # its first go here: one generator less that every call passes
                receipt = yield verb
            except BaseException as error:  # noqa: BLE001 - it decides
                receipt, interruption = yield from self._resolve_uninterruptibly(verb, served.scopes, error)
            if notes is not None:
                stages.noted(report, notes)
        stages.waiting.released(self._clock.monotonic() - reserved.started_at)
        balances: tuple[ScopeBalance, ...] = ()
        if receipt is not None and receipt.warnings and interruption is None:
            balances, interruption = yield from self._balances(receipt)
        stages.record.settled(call, report, reserved, posting, receipt, usage, balances, failure)
        if interruption is not None:
            raise interruption

    def _learned(
        self, call: RoutedCall, report: CallReport, reserved: ReservedAttempt, arm: ModelRef, reading: UsageReport
    ) -> TokenUsage | None:
        """Learn from an answer. Returns its usage, where it was answered in full."""
        if (end := reading.finish_reason) is not None and (end in SHOWS or report.quality_signals):
            report.quality_signals = SHOWS.get(end, ())
        # Only complete answers teach: a cut one says little about how long answers are.
        if not reading.complete or not reading.items:
            return None
        usage, stages = reading.usage, self._stages
        stages.route.observe(call, arm, usage)
        stages.price.observe(call, reserved, usage)
        stages.price.caps.observe(call, reserved, reading)
        return usage

    def _balances(self, receipt: Receipt) -> Steps[tuple[tuple[ScopeBalance, ...], BaseException | None]]:
        """Ask for the figures of the budgets that a booking warns of: once a window and threshold.

        Returns:
            The balances, and what interrupted it, to be raised once the booking is recorded.
        """
        try:
            found: tuple[ScopeBalance, ...] = yield ReadBalances(tuple(scope for scope, _ in receipt.warnings))
        except GeneratorExit:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the storage raises: the warning itself matters more
            _log.debug("the figures of a warning could not be read: %s", type(error).__name__)
            return (), None
        except BaseException as error:  # noqa: BLE001 - as above
            return (), error
        return found, None

    def _deferred(
        self, call: RoutedCall, report: CallReport, reserved: ReservedAttempt, response_id: str
    ) -> Steps[bool]:
        """Keep the money of an answer that is not finished until it is retrieved.

        Returns:
            Whether it is set aside; else the attempt is booked at its quote, and corrected by the answer.
        """
        stages, target, held = self._stages, reserved.attempt.target, reserved.reservation_id is not None
        bill = DeferredBill(
            reserved.reservation_id or f"{call.id}.{report.reservations + 1}", held, target, call.request.model,
            reserved.quote.amount_nanousd, reserved.scopes, stages.record.now(),
            reserved.quote.prices.laid if reserved.quote.prices is not None else None,
        )  # fmt: skip
        interruption: BaseException | None = None
        try:
            yield WriteLog(partial(stages.deferred.expect, response_id, bill))
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the storage raises: the answer is under way
            _log.error("whose bill %s brings was not kept: %s", response_id, type(error).__name__)
            interruption = None if isinstance(error, Exception) else error
        if held:
            try:
                yield Extend(bill.booking_id, DEFERRED_LIFETIME_S)
            except LedgerError as error:
                _log.error("a reservation was not extended; it will expire and be charged: %s", error)
            if reserved.plan is not None:
                stages.cache.observe_result(call, reserved, None)
        if interruption is not None:
            raise interruption
        return held

    def _book(
        self,
        call: RoutedCall,
        report: CallReport,
        reserved: ReservedAttempt,
        served: ReservedAttempt,
        posting: Posting,
        memo: AttemptMemo,
        notes: Notes | None,
    ) -> Steps[tuple[Receipt | None, BaseException | None]]:
        """Book an attempt that was not held, or that another model answered in place of the one that was."""
        held, amount, status = reserved.reservation_id, posting.amount_nanousd, posting.status
        report.reservations += 1
        booking_id = f"{call.id}.{report.reservations}"
        verb = PostUnreserved(booking_id, amount, served.scopes, status, memo, notes)
        receipt, interruption = yield from self._resolve_uninterruptibly(verb, served.scopes)
        self._stages.noted(report, notes)
        if held is not None and receipt is not None:
            # held under the scopes of all that might have answered; given back last, so that nobody takes the money
            _, again = yield from self._resolve_uninterruptibly(Void(held), reserved.scopes)
            interruption = interruption or again
        return receipt, interruption

    def _void(self, call: RoutedCall, reserved: ReservedAttempt, failure: Failure) -> Steps[None]:
        """Give back the reservation of an attempt that was certainly not billed."""
        interruption = None
        if reserved.reservation_id is not None:
            _, interruption = yield from self._resolve_uninterruptibly(Void(reserved.reservation_id), reserved.scopes)
            self._stages.waiting.released(self._clock.monotonic() - reserved.started_at)
        self._stages.cache.observe_result(call, reserved, None, billed=False)
        if call.events_enabled:
            self._stages.record.voided(reserved, failure)
        if interruption is not None:
            raise interruption

    def _resolve_uninterruptibly(  # noqa: C901 - one clause an ending
        self, verb: Settle | PostUnreserved | Void, scopes: tuple[str, ...], met: BaseException | None = None
    ) -> Steps[tuple[Receipt | None, BaseException | None]]:
        """Run a verb that ends a reservation. Returns what interrupted it, to be raised once everything is recorded.

        Interrupted it may or may not have happened; its id makes the second go a no-op with the same answer. A ledger
        that does not answer costs the caller nothing: what it could not take is booked later. ``met`` ended a first go.
        """
        interruption: BaseException | None = None
        while True:
            try:
                if met is not None:
                    raise met  # noqa: TRY301 - which of the endings below it is
                return (yield verb), interruption
            except LedgerUnavailableError as error:
                yield from self._keep(verb, scopes, f"{error}")
                return None, interruption
            except ReservationNotFoundError as error:  # a server that was promoted, or restored, had not heard of it
                if not isinstance(verb, Settle):
                    return None, interruption
                _log.error("the ledger lost a hold, what it paid for is booked past every limit: %s", error)
                verb = PostUnreserved(verb.reservation_id, verb.amount, scopes, verb.status, verb.memo, verb.notes)
            except LedgerError as error:
                _log.error("%s failed: %s", _VERBS[type(verb)], error)
                return None, interruption
            except GeneratorExit:
                raise
            except BaseException as error:
                # a storage of somebody's own fails in words of its own, at each go; a signal's handler interrupts once
                failed = isinstance(error, OSError) and not isinstance(error, TimeoutError)
                if failed or (isinstance(error, Exception) and type(error) is type(interruption)):
                    yield from self._keep(verb, scopes, type(error).__qualname__)
                    return None, None if type(error) is type(interruption) else interruption
                if interruption is not None:
                    raise
                interruption = error
            finally:
                met = None

    def _keep(self, verb: Settle | PostUnreserved | Void, scopes: tuple[str, ...], why: str) -> Steps[None]:
        """Keep what the ledger could not take, to be booked when it can."""
        name = _VERBS[type(verb)]
        _log.error("%s failed, and is tried again when the ledger can take it: %s", name, why)
        if self._stages.spool is None:
            return
        amount: NanoUSD = ZERO
        status: SettlementStatus = "unconfirmed"
        if not isinstance(verb, Void):
            amount, status = verb.amount, verb.status
        entry = Unbooked(name, verb.reservation_id, amount, status, scopes, written_memo(verb.memo))
        try:
            yield WriteLog(partial(self._stages.spool.keep, entry))
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - an interruption: the thread that keeps it goes on
            _log.warning("interrupted while a booking was kept: %s", type(error).__qualname__)


def _answered_tokens(usage: TokenUsage | None, reading: UsageReport | None) -> int | None:
    """The length of an answer as its record will say; ``None`` where it is not known."""
    if usage is None and reading is not None and reading.items:
        usage = reading.usage
    return usage.output_tokens if usage else None
