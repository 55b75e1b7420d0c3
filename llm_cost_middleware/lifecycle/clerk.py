"""Money that is booked outside the flow of a call: answers that somebody else sent, and batches.

Whatever is booked here is recorded once, however often it is reported: the ledger says whether a booking repeats an
earlier one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from itertools import chain

from msgspec.structs import replace

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import BudgetExceededError, LedgerError, LedgerUnavailableError, ScopePausedError
from llm_cost_middleware.events import BudgetRefused, CallPaused
from llm_cost_middleware.lifecycle.attribution import with_scopes
from llm_cost_middleware.lifecycle.batches import quote_batch
from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.lifecycle.state import Posting, scopes_of
from llm_cost_middleware.metering import PricedCall, encode_memo
from llm_cost_middleware.money import USD, ZERO, NanoUSD, ceil_nanousd
from llm_cost_middleware.request import CallContext, CallRequest, ModelRef
from llm_cost_middleware.usage import FAILED_LOCALLY, NO_USAGE, NOT_SENT, UsageReport, attached_usage

_log = logging.getLogger(__name__)
OBSERVED = "observed."
"""Begins the id of a batch that did not fit, and was created all the same."""
BATCH_LIFETIME_S = 48 * 3_600
"""Both providers end a batch within a day, and keep its results for longer."""


class Clerk:
    """Books and reserves by hand. One a pipeline; keeps nothing itself."""

    def __init__(self, flow: CallFlow, ledger: Ledger, clock: Clock) -> None:
        self._flow, self._stages, self._ledger, self._clock = flow, flow.stages, ledger, clock

    def book(
        self,
        usage: UsageReport | NanoUSD | USD | None,
        target: ModelRef,
        context: CallContext,
        *,
        booking_id: str,
        estimated: bool,
        noted: bool = False,
    ) -> None:
        """Book a request that somebody else sends. Raises ``LedgerError``.

        Args:
            usage: The usage that its answer reports; the amount that a host names for a model without a price here; or
                ``None``: it is about to leave, must say whose it is, and gets a row that is marked ``unpriced``.
            target: The model that was asked.
            context: The scopes of the call.
            booking_id: Names the attempt.
            estimated: The usage is not the provider's own.
            noted: It has such a row, which this corrects.
        """
        context = self._flow.attribute(context, send=usage is None)
        if usage is not None and not isinstance(usage, UsageReport | NanoUSD):
            usage = ceil_nanousd(usage, what="usage")  # an amount as everywhere: US dollars
        if isinstance(usage, UsageReport):
            self._book_usage(usage, target, context, booking_id, estimated=estimated, noted=noted)
            return
        memo = encode_memo(call_id=booking_id, attempt=1, target=target if target.model else None)
        scopes = _scopes(target, context)
        if usage is None:
            self._ledger.book(ZERO, scopes, id=booking_id, memo=memo, status="unpriced")
        else:
            self._book(Posting(usage, "estimated"), target, scopes, memo, booking_id, noted=noted)

    def _book_usage(
        self, reading: UsageReport, target: ModelRef, context: CallContext, booking_id: str, *, estimated: bool,
        noted: bool,
    ) -> None:  # fmt: skip
        priced = self._stages.price.price(reading, target.provider, target.model)
        if priced.cost_nanousd is None:
            _log.warning("a call of %s was not booked: %s", target, "; ".join(priced.notes))
            return
        # A host may fill in counts of its own where the provider sent none: exact prices do not make them exact.
        exact = priced.status == "exact" and not estimated
        self._book(
            Posting(priced.cost_nanousd, "exact" if exact else "estimated", reading, priced),
            target, _scopes(target, context),
            encode_memo(call_id=booking_id, attempt=1, target=target, priced=priced, reading=reading),
            booking_id, noted=noted,
        )  # fmt: skip

    def _book(
        self, posting: Posting, target: ModelRef, scopes: tuple[str, ...], memo: bytes, booking_id: str, *, noted: bool
    ) -> None:
        if noted:
            receipt = self._ledger.reconcile(booking_id, posting.amount_nanousd, memo=memo, status=posting.status)
        else:
            receipt = self._ledger.book(posting.amount_nanousd, scopes, id=booking_id, memo=memo, status=posting.status)
        if not receipt.repeated:
            reading = posting.reading
            usage = reading.usage if reading is not None and reading.items else None
            self._stages.record.keep(
                posting, target, call_id=booking_id, at=receipt.at, usage=usage,
                requested_model=target.model, scopes=scopes,
            )  # fmt: skip

    def reserve_batch(self, provider: str, requests: Iterable[CallRequest], context: CallContext) -> str:
        """Set aside what a batch of one provider can cost at most.

        Returns:
            The id of the reservation, by which any process can end it.

        Raises:
            BudgetExceededError: It does not fit. PriceNotFoundError: A model has no price.
            ScopePausedError: One of its scopes, or of its models, is paused, whatever the mode is.
        """
        batch = list(requests)
        # One reservation has one set of scopes: a batch counts in those that its requests have in common.
        scopes, every = self._batch_scopes(provider, batch, context)
        context = self._flow.attribute(with_scopes(context, scopes), send=True)
        quote = quote_batch(self._flow, batch, frozenset((provider,)))
        target = ModelRef(provider, batch[0].model if batch else "")
        # Drawn, not counted: another process may create a batch at the same moment.
        reservation_id = f"batch.{os.urandom(8).hex()}"
        return self.hold_batch(reservation_id, target, quote.bound_nanousd, context.scopes, every)

    def hold_batch(
        self,
        reservation_id: str,
        target: ModelRef,
        amount: NanoUSD,
        scopes: tuple[str, ...],
        every: tuple[str, ...] = (),
    ) -> str:
        """Set aside what a batch can cost at most, for as long as it takes to be answered and collected.

        Args:
            reservation_id: The id of the reservation; it must never repeat.
            target: The model, where it is one for all requests.
            amount: The most that it can cost.
            scopes: Whose budgets it draws on.
            every: Scopes of some of its requests, which must not be paused either.

        Returns:
            The id by which it is ended: in observe mode another one, where it does not fit.

        Raises:
            BudgetExceededError, ScopePausedError: As ``reserve_batch``.
        """
        self._check_paused((*scopes, *every))
        memo = encode_memo(call_id=reservation_id, attempt=1, target=target)
        try:
            self._ledger.reserve(amount, scopes, id=reservation_id, ttl=BATCH_LIFETIME_S, memo=memo)
        except BudgetExceededError as refusal:
            if not self._flow.settings.observe:
                raise
            # a row of nothing, which its results correct: a batch may be settled where its scopes are not known
            reservation_id = f"{OBSERVED}{reservation_id}"
            self._ledger.book(ZERO, scopes, id=reservation_id, memo=memo, status="unpriced")
            self._stages.record.emit(
                BudgetRefused(
                    reservation_id, self._clock.now(), str(target), refusal.scope or "", amount, enforced=False
                )
            )
        return reservation_id

    def check_passing(self, context: CallContext, target: ModelRef | None) -> None:
        """Check that what is about to leave past the middleware may be sent.

        Args:
            context: Whose call it is.
            target: The model, where it is known.

        Raises:
            ScopePausedError: One of its scopes is paused.
            LedgerUnavailableError: The ledger does not answer, and ``on_unavailable`` is ``deny``.
        """
        rule = self._flow.settings.attribution
        scopes = rule.filled(rule.attributed(context.scopes))
        if target is not None and target.model:
            known = scopes_of(target)
            scopes = (*scopes, *(known if target.provider else known[1:]))
        try:
            self._check_paused(scopes, str(target or ""))
        except LedgerUnavailableError as error:
            if not self._flow.settings.allow_unavailable:
                raise
            _log.error("sent without a look at what is paused, as on_unavailable allows: %s", error)

    def _check_paused(self, scopes: tuple[str, ...], target: str = "") -> None:
        try:
            self._ledger.check_paused(scopes)
        except ScopePausedError as paused:
            told = CallPaused("", self._clock.now(), target, paused.scope, paused.reason, enforced=True)
            self._stages.record.emit(told)
            raise

    def _batch_scopes(
        self, provider: str, batch: list[CallRequest], context: CallContext
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The scopes that all requests of a batch have, and those that any of them has."""
        rule = self._flow.settings.attribution
        found: list[tuple[str, ...]] = []
        for request in batch:
            own = *scopes_of(ModelRef(provider, request.model)), *rule.end_user_of(context.scopes, request.settings)
            if own not in found[-1:]:  # of many thousand requests most are alike
                found.append(own)
        found = list(dict.fromkeys(found)) or [(*context.scopes, f"provider:{provider}")]
        common = set(found[0]).intersection(*found)
        return tuple(one for one in found[0] if one in common), tuple(dict.fromkeys(chain(*found)))

    def settle_batch(
        self, provider: str, reservation_id: str, reading: UsageReport, model: str | None = None
    ) -> NanoUSD | None:
        """Book the cost of a batch, and return it; the second time, nothing is booked.

        ``model``: the one that all its requests asked for. Results of a platform name no deployment.

        What cannot be booked is logged, and ``None``: its reservation expires and is charged.
        """
        priced = self._stages.price.price(reading, provider, model)
        if priced.cost_nanousd is None:
            _log.warning(
                "a batch was not settled, its hold will be charged when it expires: %s", "; ".join(priced.notes)
            )
            return None
        models = {item.model for item in priced.items}
        target = ModelRef(provider, models.pop()) if len(models) == 1 else None  # a row names one model
        memo = encode_memo(call_id=reservation_id, attempt=1, target=target, priced=priced, reading=reading)
        posting = Posting(priced.cost_nanousd, "exact" if priced.status == "exact" else "estimated", None, priced)
        try:
            resolve = self._ledger.reconcile if reservation_id.startswith(OBSERVED) else self._ledger.settle
            receipt = resolve(reservation_id, posting.amount_nanousd, memo=memo, status=posting.status)
        except Exception as error:  # noqa: BLE001 - of any storage: the results are the caller's
            _log.error("a batch was not settled: %s", error if isinstance(error, LedgerError) else type(error).__name__)
            return None
        if not receipt.repeated:  # read again, or settled by another process
            self._record_by_model(provider, reservation_id, posting, priced, receipt.at)
        return posting.amount_nanousd

    def fail_batch(self, provider: str, reservation_id: str, error: BaseException) -> None:
        """Give the money back where a batch was surely not created; else its reservation expires and is charged."""
        unsent = attached_usage(error) in (NOT_SENT, FAILED_LOCALLY)
        if unsent or self._stages.health.classify(error, ModelRef(provider, "")).billed == "no":
            memo = encode_memo(call_id=reservation_id, attempt=1, target=None)
            try:
                self._ledger.void(reservation_id, memo=memo)
            except Exception as failed:  # noqa: BLE001 - of any storage: ``error`` is what the caller has to see
                _log.error(
                    "the money of a batch that was not created stays until it expires: %s", type(failed).__name__
                )

    def settle_retrieved(self, provider: str, reading: UsageReport) -> None:
        """Book an answer in the background that was retrieved, by whoever asked for it: once, however often it is read.

        One that ended without a usage is booked at what was set aside. What cannot be booked is logged.
        """
        deferred, response_id = self._stages.deferred, reading.response_id
        if reading.pending or response_id is None:
            return
        try:
            bill = deferred.find(provider, response_id)
        except Exception as error:  # noqa: BLE001 - of any storage: what was retrieved is the caller's
            _log.error("whose bill an answer brings was not looked up: %s", type(error).__qualname__)
            return
        if bill is None:
            return
        reading = bill.at_own_price(reading)
        priced = self._stages.price.price(reading, provider, bill.target.model, at=bill.at, laid=bill.prices)
        if priced.cost_nanousd is None:
            posting = Posting(bill.amount_nanousd, "unconfirmed", reading, priced)
        else:
            posting = Posting(
                priced.cost_nanousd, "exact" if priced.status == "exact" else "estimated", reading, priced
            )
        call_id = bill.booking_id.rpartition(".")[0]
        memo = encode_memo(call_id=call_id, attempt=1, target=bill.target, priced=priced, reading=reading)
        resolve = self._ledger.settle if bill.held else self._ledger.reconcile
        try:
            receipt = resolve(bill.booking_id, posting.amount_nanousd, memo=memo, status=posting.status)
            deferred.close(provider, response_id)
        except Exception as error:  # noqa: BLE001 - as above
            said = error if isinstance(error, LedgerError) else type(error).__qualname__
            _log.error("an answer in the background was not settled: %s", said)
            return
        if bill.held and not receipt.repeated:
            self._stages.record.keep(
                posting, bill.target, call_id=call_id, at=receipt.at, usage=reading.usage if reading.items else None,
                requested_model=bill.requested_model, scopes=bill.scopes,
            )  # fmt: skip

    def _record_by_model(
        self, provider: str, reservation_id: str, posting: Posting, priced: PricedCall, at: float
    ) -> None:
        """Keep a record for each model that answered in a batch; they sum to the ledger's row."""
        for model in dict.fromkeys(item.model for item in priced.items):
            items = [item for item in priced.items if item.model == model]
            self._stages.record.keep(
                replace(posting, amount_nanousd=NanoUSD(sum(item.cost_nanousd for item in items))),
                ModelRef(provider, model), call_id=reservation_id, at=at, requested_model=model,
                usage=sum((item.usage for item in items), NO_USAGE),
            )  # fmt: skip


def _scopes(target: ModelRef, context: CallContext) -> tuple[str, ...]:
    own = scopes_of(target) if target.provider else ()
    return (*context.scopes, *own)
