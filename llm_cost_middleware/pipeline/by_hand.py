"""Money that hosts hold and book by hand, beside the calls that a pipeline sends: its part of ``CostPipeline``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from llm_cost_middleware.errors import BudgetExceededError, NoEligibleModelError, UnsupportedRequestError
from llm_cost_middleware.pipeline import named

_log = logging.getLogger(__name__)


class BookingByHand:
    """Holds, quotes and bookings outside the flow of a call. The pipeline sets what it works on."""

    _flow: named.CallFlow
    _runtimes: named.RuntimePool
    _clerk: named.Clerk
    catalogue: named.Catalogue
    _keep_up: Callable[[], None]
    _akeep_up: Callable[[], Coroutine[Any, Any, None]]

    def authorize(self, request: named.CallRequest, *, counter: named.InputCounter | None = None) -> named.ExternalCall:
        """Set money aside for a call that the caller sends; end it through what is returned. Raises as ``run``."""
        from llm_cost_middleware.pipeline import parts

        self._keep_up()
        self._runtimes.orphans.settle()
        return parts.authorize(self._flow, self._runtimes.sync, request, counter)

    async def aauthorize(
        self, request: named.CallRequest, *, counter: named.InputCounter | None = None
    ) -> named.ExternalCall:
        """``authorize`` on an event loop: it may wait there, for a count or for money."""
        from llm_cost_middleware.pipeline import parts

        await self._akeep_up()
        await self._runtimes.orphans.asettle()
        return await parts.aauthorize(self._flow, self._runtimes, request, counter)

    def ungoverned(
        self,
        what: str,
        advice: str,
        *,
        context: named.CallContext | None = None,
        target: named.ModelRef | None = None,
        leaves: bool = True,
    ) -> None:
        """Report or refuse a call that goes past the middleware, by ``on_ungoverned``. Asks the ledger: may block.

        Args:
            what: What the call is.
            advice: What to do instead.
            context: Whose call it is; nobody's, if ``None``.
            target: The model, where it is known.
            leaves: A request is about to be sent; false: something is met that would send such ones.

        Raises:
            UnsupportedRequestError: ``on_ungoverned`` is ``deny``.
            NoEligibleModelError: It leaves the regions of ``[routing] regions``, as far as is known.
            ScopePausedError: One of its scopes, ``global`` among them, is paused: that stops what is not governed, too.
        """
        from llm_cost_middleware.pipeline import parts

        # Refused before anything is sent: an event alone would come too late.
        choice = self._flow.settings.on_ungoverned
        if choice == "deny":
            raise UnsupportedRequestError(what, advice)
        if leaves:
            self.keep_inside(what, target)
            self._clerk.check_passing(context or parts.NO_CONTEXT, target)
        if choice == "warn":
            _log.warning("%s is not governed: %s", what, advice)
        self._flow.stages.record.ungoverned(what, advice)

    def keep_inside(self, what: str, target: named.ModelRef | None) -> None:
        """Refuse a request that leaves the regions of ``[routing] regions``, whether it costs anything or not.

        Args:
            what: What it is.
            target: Where it goes; ``None``: that is not known, as of an empty provider.

        Raises:
            NoEligibleModelError: It is not known to stay there.
        """
        from llm_cost_middleware.platform import is_inside

        regions = self._flow.settings.regions
        if not regions or self._flow.settings.observe:
            return
        if target is None or not target.provider or not is_inside(*target.plain, regions):
            raise NoEligibleModelError({what: f"is not known to be served in {' or '.join(regions)}"})

    def quote(
        self, requests: Iterable[named.CallRequest], *, providers: frozenset[str] | None = None
    ) -> named.BatchQuote:
        """What requests would cost, each at the model it would be routed to. Nothing is sent or reserved.

        Raises:
            PriceNotFoundError, NoEligibleModelError: As a call would.
        """
        from llm_cost_middleware.pipeline import parts

        return parts.quote_batch(self._flow, requests, providers)

    def book(
        self,
        usage: named.UsageReport | named.NanoUSD | named.USD | None,
        target: named.ModelRef,
        context: named.CallContext,
        *,
        id: str,  # noqa: A002 - the word of the domain
        estimated: bool = False,
        noted: bool = False,
    ) -> None:
        """Book an answer that was sent past the pipeline, and keep its record. The same id again changes nothing.

        Args:
            usage: The usage that the answer reports; or the US dollars that a host names, where the model has no price;
                ``None``: it is about to leave, and gets a row that is marked ``unpriced``.
            target: The model that was asked.
            context: The scopes of the call.
            id: Names the attempt.
            estimated: The usage is not the provider's own.
            noted: It has such a row, which this corrects.

        Raises:
            LedgerError: It could not be booked.
        """
        self._clerk.book(usage, target, context, booking_id=id, estimated=estimated, noted=noted)

    def reserve_batch(self, provider: str, requests: Iterable[named.CallRequest], context: named.CallContext) -> str:
        """Set aside what a batch at ``provider`` can cost at most.

        Returns:
            The id of the reservation, which any process can end with ``settle_batch`` or ``fail_batch``.

        Raises:
            BudgetExceededError: It does not fit. PriceNotFoundError: A model has no price.
        """
        self._keep_up()
        try:
            return self._clerk.reserve_batch(provider, requests, context)
        except BudgetExceededError as refusal:
            refusal.shown_in(self.catalogue.currency)
            raise

    def sent_fields(self, provider: str, context: named.CallContext, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields that a request of a batch is sent with beside its own: whose it is, for the provider's dashboard.

        Args:
            provider: Who is asked.
            context: Whose batch it is.
            settings: What the request has already.
        """
        from llm_cost_middleware.pipeline import parts

        rules = self._flow.settings
        if rules.observe or not rules.attribution.send:
            return parts.EMPTY
        found = rules.attribution.attributed(rules.attribution.end_user_of(context.scopes, settings))
        return parts.filled(rules.attribution.send, rules.attribution.filled(found), settings, provider)

    def settle_batch(
        self, provider: str, reservation_id: str, usage: named.UsageReport, model: str | None = None
    ) -> None:  # fmt: skip
        """Book the cost of a batch, and keep a record for each of its models. The second time, nothing.

        Args:
            provider: The provider or the platform.
            reservation_id: As ``reserve_batch`` returned it.
            usage: What its results report.
            model: The one that all its requests asked for; of a platform it says where they were served.
        """
        self._clerk.settle_batch(provider, reservation_id, usage, model)

    def fail_batch(self, provider: str, reservation_id: str, error: BaseException) -> None:
        """Give the money of a batch back where ``error`` shows that it was not created."""
        self._clerk.fail_batch(provider, reservation_id, error)

    def settle_retrieved(self, provider: str, usage: named.UsageReport) -> None:
        """Book an answer in the background that was retrieved, if it is awaited. The second time, nothing."""
        self._clerk.settle_retrieved(provider, usage)

    @property
    def coverage(self) -> named.Coverage:
        """With ``output.estimate = "calibrated"``: how often the estimates of this process covered what was billed."""
        return self._flow.stages.price.coverage
