"""After an attempt: book its cost, learn from it, record it, and decide what follows a failure."""

from __future__ import annotations

import logging

from llm_cost_middleware.budget.model import Receipt
from llm_cost_middleware.errors import LedgerError
from llm_cost_middleware.lifecycle.commands import PostUnreserved, Settle, Sleep, StreamEnd, Void
from llm_cost_middleware.lifecycle.reserving import Steps
from llm_cost_middleware.lifecycle.stages import Stages
from llm_cost_middleware.lifecycle.stages.route import fallbacks_of
from llm_cost_middleware.lifecycle.state import CallReport, Posting, ReservedAttempt, RoutedCall, Settings
from llm_cost_middleware.metering import encode_memo
from llm_cost_middleware.provider import Failure
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.signals import PARSE_FAILED, TRUNCATED
from llm_cost_middleware.usage import attached_usage

_log = logging.getLogger(__name__)


class Settling:
    """The steps that resolve a reservation, however its attempt ended. One a pipeline; keeps nothing of a call."""

    def __init__(self, stages: Stages, settings: Settings) -> None:
        self._stages, self._settings = stages, settings

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
        if reading is not None:  # billed, and the host could read for how much (an answer that failed to parse)
            yield from self.post(call, report, reserved, stages.price.posting(reserved, reading))
            if reading.complete:  # the target is up
                stages.health.succeeded(call, reserved, retry_tokens)
            if reading.error is None and not reading.unbilled:
                report.quality_signals += (PARSE_FAILED,)
        elif failure.billed == "no":
            yield from self._void(call, reserved, failure)
        else:  # it may have been billed: the reservation is the most that it can have cost
            unconfirmed = Posting(reserved.quote.amount_nanousd, "unconfirmed")
            yield from self.post(call, report, reserved, unconfirmed)
        # Never again for this call: not as a fallback, and not as a step down when money is short.
        report.tried_targets.append(target)
        others = fallbacks_of(call, target) if stages.health.falls_back else ()
        decision = stages.health.decide_retry(
            call, reserved, failure, tuple(other for other in others if other not in report.tried_targets), error
        )
        if decision.action == "raise" or call.sent_externally:
            stages.record.failed(reserved, failure, decision.reason)
            if failure.retry_after and isinstance(error, Exception):
                error.add_note(f"llm_cost_middleware: the provider asks to retry after {failure.retry_after:g} s")
            return None, 0
        following = decision.target or target
        stages.record.retried(reserved, failure, decision.delay_s, following)
        if decision.delay_s > 0:
            yield Sleep(decision.delay_s)
        return following, decision.retry_tokens

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
        yield from self.post(call, report, reserved, posting)
        if failure is not None:
            stages.record.failed(reserved, failure, "in the middle of its stream")

    def post(self, call: RoutedCall, report: CallReport, reserved: ReservedAttempt, posting: Posting) -> Steps[None]:
        """Book an attempt, whatever happens meanwhile, then learn from it and record it."""
        reading, attempt = posting.reading, reserved.attempt
        memo = encode_memo(
            call_id=call.id, attempt=attempt.number, target=attempt.target, priced=posting.priced, reading=reading
        )
        verb: Settle | PostUnreserved
        if reserved.reservation_id is None:
            report.reservations += 1
            verb = PostUnreserved(
                f"{call.id}.{report.reservations}", posting.amount_nanousd, reserved.scopes, posting.status, memo
            )
        else:
            verb = Settle(reserved.reservation_id, posting.amount_nanousd, posting.status, memo)
        receipt, interruption = yield from self._resolve_uninterruptibly(verb)
        usage, stages = None, self._stages
        if reading is not None:
            if reading.complete and reading.items:
                usage = reading.usage
            if reading.finish_reason is not None:
                report.quality_signals = (TRUNCATED,) if reading.truncated else ()
        # Only complete answers teach: a cut one says little about how long answers are.
        if usage is not None:
            stages.route.observe(call, attempt.target, usage)
            if self._settings.calibrated:
                stages.price.observe(call, attempt.target, usage)
        if reserved.plan is not None:
            # Also without usage: a planned cache write that nobody can confirm must not count as warm.
            stages.cache.observe_result(call, reserved, usage)
            if usage is not None:
                stages.decisions.note_cache_trace(report, reserved, usage)
        stages.record.settled(call, report, reserved, posting, receipt, usage)
        if interruption is not None:
            raise interruption

    def _void(self, call: RoutedCall, reserved: ReservedAttempt, failure: Failure) -> Steps[None]:
        """Give back the reservation of an attempt that was certainly not billed."""
        interruption = None
        if reserved.reservation_id is not None:
            _, interruption = yield from self._resolve_uninterruptibly(Void(reserved.reservation_id))
        self._stages.cache.observe_result(call, reserved, None)
        if call.events_enabled:
            self._stages.record.voided(reserved, failure)
        if interruption is not None:
            raise interruption

    def _resolve_uninterruptibly(
        self, verb: Settle | PostUnreserved | Void
    ) -> Steps[tuple[Receipt | None, BaseException | None]]:
        """Run a verb that ends a reservation. Returns what interrupted it, to be raised once everything is recorded.

        Interrupted it may or may not have happened; its id makes the second go a no-op with the same answer. A ledger
        that does not answer costs the caller nothing: the reservation expires and is charged.
        """
        interruption: BaseException | None = None
        while True:
            try:
                return (yield verb), interruption
            except LedgerError as error:
                _log.error(
                    "%s failed; what is reserved will expire and be charged: %s", type(verb).__name__.lower(), error
                )
                return None, interruption
            except GeneratorExit:
                raise
            except BaseException as error:
                if interruption is not None:
                    raise
                interruption = error
