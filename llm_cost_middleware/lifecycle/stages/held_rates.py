"""What an attempt is held at: the highest rates that it can be served at, and the limits of its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import Settings
from llm_cost_middleware.limits import ModelLimits
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.compose import PricedModel
from llm_cost_middleware.pricing.rates import Rates
from llm_cost_middleware.pricing.served_tiers import ServedTiers, undeclared
from llm_cost_middleware.provider import Provider
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallRequest, ModelRef
from llm_cost_middleware.routing.router import Candidate

_PRICED_BY = frozenset({"service_tier", "speed", "inference_geo", "batch"})
"""What a request can state that decides its rates."""
_KEPT = 1_024  # models; callers may name any


class HeldTerms(Struct, frozen=True, gc=False):
    """The rates and limits that one attempt is quoted by."""

    rates: Rates
    doubt: str
    """Why the rates guarantee nothing, or empty."""
    sent_tier: str | None
    """The service tier to send."""
    limits: ModelLimits
    provider: Provider
    """The rules of its provider."""


class _Known(Struct, frozen=True, gc=False):
    """Terms, and what they hold for."""

    prices: Mapping[tuple[str, str], PricedModel]
    """The catalogue's table: another one stands for other prices."""
    since: float
    until: float
    tiers: ServedTiers
    version: int
    terms: HeldTerms


class HeldRates:
    """Looks up what attempts are held at. Safe to share between threads.

    Args:
        settings: What calls may do.
        catalogue: The prices.
        candidates: The configured models as a host sees them.
        clock: Time.
    """

    _lock = ForkSafeLock()

    def __init__(
        self, settings: Settings, catalogue: Catalogue, candidates: Callable[..., Sequence[Candidate]], clock: Clock
    ) -> None:
        self._settings, self._catalogue, self._candidates, self._clock = settings, catalogue, candidates, clock
        self._tiers = ServedTiers(settings.service_tiers, learns=settings.calibrated)
        self._known: dict[tuple[ModelRef, str], _Known] = {}
        self._dearer: dict[tuple[ModelRef, str], tuple[Rates, bool | None]] = {}

    def take_over(self, before: HeldRates) -> None:
        """Go on with what another one has learned of tiers, if it was told the same."""
        same = before._settings.service_tiers == self._settings.service_tiers
        if same and before._settings.calibrated == self._settings.calibrated:
            self._tiers = before._tiers

    @property
    def learns_tiers(self) -> bool:
        """Whether past answers may lower a hold."""
        return self._tiers.learns

    def is_dearer(self, target: ModelRef, tier: str, held: Rates, now: float) -> bool | None:
        """Whether an answer of a service tier costs more than was held; ``None``: that has no price.

        Found once for what is held: other prices, and another period of them, are other rates.
        """
        known = self._dearer.get((target, tier))
        if known is not None and known[0] is held:
            return known[1]
        try:
            paid = self._catalogue.rates(target.provider, target.model, now, tier)
            dearer = paid.levels[0].output > held.levels[0].output
        except PriceNotFoundError:
            dearer = None
        if len(self._dearer) >= _KEPT:
            self._dearer.clear()
        self._dearer[target, tier] = held, dearer
        return dearer

    def answered(self, provider: str, tier: str, *, dearer: bool) -> bool:
        """Note the tier of an answer to a request that named none: as ``ServedTiers.answered``."""
        with self._lock:
            return self._tiers.answered(provider, tier, dearer=dearer)

    def terms(self, target: ModelRef, request: CallRequest, lane: str) -> HeldTerms:
        """The terms of an attempt, worked out once for all requests that state none of their own.

        They hold while the model's prices, the period that these are dated for, and the tiers seen in answers are the
        same.

        Args:
            target: The model, without the parameters of an arm.
            request: The call.
            lane: The service tier to send because the call can wait, or empty.

        Raises:
            PriceNotFoundError: The model has no price, and none may be estimated.
        """
        now, tiers, key = self._clock.now(), self._tiers, (target, lane)
        prices = (request.prices or self._catalogue).table
        if request.params and not _PRICED_BY.isdisjoint(request.params):
            return self._look_up(target, request, lane, now)
        known = self._known.get(key)
        if (
            known is not None
            and known.prices is prices
            and known.since <= now < known.until
            and known.tiers is tiers
            and known.version == tiers.version
        ):
            return known.terms
        try:
            priced = (request.prices or self._catalogue).priced(*target)
        except PriceNotFoundError:
            return self._look_up(target, request, lane, now)
        version = tiers.version
        terms = self._look_up(target, request, lane, now)
        since, until = priced.period(now)
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[key] = _Known(prices, since, until, tiers, version, terms)
        return terms

    def _look_up(self, target: ModelRef, request: CallRequest, lane: str, now: float) -> HeldTerms:
        limits = (request.prices or self._catalogue).limits(target.provider, target.model)
        params = request.params
        asked = params.get("service_tier")
        sent = lane or (self._settings.sent_tiers.get(target.provider) if asked is None else None)
        doubt = ""
        if sent is not None:
            params = {**params, "service_tier": sent}
        elif not params.get("batch"):
            with self._lock:
                held = self._tiers.held(target.provider, asked)
            if held.tier is not None and held.tier != asked:
                dearest = self._highest_rates(target, request, params, now) if held.assumed else None
                params = {**params, "service_tier": held.tier}
                rates = self._highest_rates(target, request, params, now)
                if dearest is not None and dearest.levels != rates.levels:
                    doubt = undeclared(target.provider, dearest.most_times(rates))
                return HeldTerms(rates, doubt, None, limits, get_provider(target.provider))
        rates = self._highest_rates(target, request, params, now)
        return HeldTerms(rates, doubt, sent, limits, get_provider(target.provider))

    def _highest_rates(self, target: ModelRef, request: CallRequest, params: Mapping[str, Any], now: float) -> Rates:
        try:
            catalogue = request.prices or self._catalogue
            return catalogue.upper_bound_rates(target.provider, target.model, at=now, params=params)
        except PriceNotFoundError:
            estimated = self._estimated_rates(target, request, now)
            if estimated is None:
                raise
            return estimated

    def _estimated_rates(self, target: ModelRef, request: CallRequest, now: float) -> Rates | None:
        """The most expensive configured rates, its own provider's first; ``None`` where no estimate may be made."""
        priced = [candidate for candidate in self._candidates(None) if candidate.output_picousd]
        own = [candidate for candidate in priced if candidate.target.provider == target.provider]
        if not priced or not (self._settings.observe or (own and self._settings.estimate_unknown_price)):
            return None
        upper = max(own or priced, key=lambda candidate: candidate.output_picousd).target
        return self._catalogue.upper_bound_rates(*upper, at=now, params=request.params)
