"""The most that an attempt can cost, and the amount its answer is booked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from llm_cost_middleware.capabilities.fitting import fit
from llm_cost_middleware.capabilities.thinking import LEAST_ANSWER, changes_for_cap, default_cap
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import BudgetExceededError, PriceNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import Posting, Quote, ReservedAttempt, RoutedCall, Settings
from llm_cost_middleware.metering import PricedCall, max_cost_of_interrupted, price_usage
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.pricing.bound import bound
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.rates import Rates
from llm_cost_middleware.pricing.token_calibration import TokenCalibration
from llm_cost_middleware.pricing.tokenizer import count_tokens, warm_up
from llm_cost_middleware.providers import get_provider, provider_of
from llm_cost_middleware.request import CallRequest, ModelRef
from llm_cost_middleware.routing.router import Candidate
from llm_cost_middleware.usage import TokenUsage, UsageReport


class PriceStage:
    """Quotes attempts and prices answers. Safe to share between threads."""

    _lock, _loading = ForkSafeLock(), ForkSafeLock()

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        candidates: Callable[..., tuple[Candidate, ...]],
        clock: Clock,
    ) -> None:
        self._settings, self._catalogue, self._candidates, self._clock = settings, catalogue, candidates, clock
        self._calibration = TokenCalibration()

    # --- before an attempt -----------------------------------------------------------------------------------------

    def quote(
        self,
        call: RoutedCall,
        target: ModelRef,
        token_counts: Mapping[str | None, int | None],
        *,
        cap: int | None = None,
    ) -> Quote:
        """The most that one attempt at ``target`` can cost.

        Args:
            call: The call.
            target: The model.
            token_counts: Exact input tokens by vocabulary, once counted; ``None`` where they cannot be.
            cap: An output cap below the caller's own.

        Raises:
            PriceNotFoundError: The model has no price, and none may be estimated.
        """
        request, settings = call.request, self._settings
        now, catalogue = self._clock.now(), call.request.prices or self._catalogue
        try:
            rates = catalogue.upper_bound_rates(target.provider, target.model, at=now, params=request.params)
        except PriceNotFoundError:
            estimated = self._estimated_rates(target, request, now)
            if estimated is None:
                raise
            rates = estimated
        limits = catalogue.limits(target.provider, target.model)
        asked = request.max_tokens if cap is None else cap
        injected = request.max_tokens is None or cap is not None
        # A cap of the caller stays as it is: where it is too high, the provider says so in its own words.
        max_tokens = default_cap(request, limits, settings.default_max_tokens) if asked is None else asked
        if injected and limits.max_output is not None:
            max_tokens = min(max_tokens, limits.max_output)
        changes = fit(request, target).changes
        if injected and request.settings:
            lowered = changes_for_cap(request, target, max_tokens, changes)
            changes = changes if lowered is None else lowered
        input_tokens, exact = token_counts.get(limits.encoding), True
        # An exact count is better than a calibrated one, so it is asked for first.
        if input_tokens is None and settings.calibrated:
            with self._lock:
                input_tokens, exact = self._calibration.tokens(target, request), False
        most = bound(
            request, get_provider(target.provider), rates,
            max_tokens=max_tokens, limits=limits, server_tool_allowance=settings.server_tool_allowance,
            input_tokens=input_tokens, exact=exact,
            cache_writes=call.layout is not None,
        )  # fmt: skip
        ceiling = request.context.max_cost_nanousd
        refusal = None
        if ceiling is not None and most.amount_nanousd > ceiling:
            limit = NanoUSD(ceiling).usd
            refusal = BudgetExceededError(ZERO.usd, limit, scope="call", requested=most.amount_nanousd.usd)
        return Quote(
            target, most.amount_nanousd, max_tokens, injected, most, rates, limits.encoding, refusal, request.prices,
            changes,
        )  # fmt: skip

    def _estimated_rates(self, target: ModelRef, request: CallRequest, now: float) -> Rates | None:
        """The most expensive configured rates, its own provider's first; ``None`` where no estimate may be made."""
        priced = [candidate for candidate in self._candidates(None) if candidate.output_picousd]
        own = [candidate for candidate in priced if candidate.target.provider == target.provider]
        if not priced or not (self._settings.observe or (own and self._settings.estimate_unknown_price)):
            return None
        upper = max(own or priced, key=lambda candidate: candidate.output_picousd).target
        return self._catalogue.upper_bound_rates(*upper, at=now, params=request.params)

    def exact_count(
        self, call: RoutedCall, quote: Quote, token_counts: Mapping[str | None, int | None]
    ) -> Callable[[], int | None] | None:
        """A function that counts the input exactly, where that is possible offline and was not done yet."""
        if quote.encoding is None or quote.encoding in token_counts:
            return None
        return partial(self._count, call.request, quote.encoding)

    def _count(self, request: CallRequest, encoding: str) -> int | None:
        with self._loading:  # a vocabulary takes a second and a hundred megabytes: once, however many threads ask
            warm_up(encoding)
        return count_tokens(request, encoding)

    def cap_to(
        self,
        call: RoutedCall,
        quote: Quote,
        available: NanoUSD | None,
        token_counts: Mapping[str | None, int | None],
    ) -> Quote | None:
        """The same attempt with the largest output cap that fits; ``None`` where too little output would be left."""
        if call.sent_externally:
            return None
        ceiling = call.request.context.max_cost_nanousd
        room = min(value for value in (available, ceiling, quote.amount_nanousd) if value is not None)
        cap = quote.bound.max_tokens_within(NanoUSD(max(room, 0)))
        if cap >= quote.max_tokens or cap < min(LEAST_ANSWER, quote.max_tokens):
            return None
        if changes_for_cap(call.request, quote.target, cap, quote.changes) is None:
            return None  # it could not think and answer
        return self.quote(call, quote.target, token_counts, cap=cap)

    def named_model(self, request: CallRequest) -> ModelRef | None:
        """The model that the caller named, where it is a model and not a name for "choose one"."""
        target = ModelRef(request.provider, request.model)
        if request.model_pinned or provider_of(request.model) is not None:
            return target
        try:
            (request.prices or self._catalogue).rates(target.provider, target.model, at=self._clock.now())
        except PriceNotFoundError:
            return None
        return target

    # --- after an attempt ------------------------------------------------------------------------------------------

    def posting(self, reserved: ReservedAttempt, reading: UsageReport) -> Posting:
        """The cost of an answered attempt, or the reservation where the answer does not report its usage."""
        target, catalogue = reserved.attempt.target, reserved.quote.prices or self._catalogue
        priced = price_usage(
            reading, get_provider(target.provider), catalogue, at=self._clock.now(), requested_model=target.model
        )
        # Unknown is never zero: the reservation is the most that it can have cost.
        if priced.cost_nanousd is None:
            return Posting(reserved.quote.amount_nanousd, "estimated", reading, priced)
        return Posting(priced.cost_nanousd, "exact" if priced.status == "exact" else "estimated", reading, priced)

    def price(self, reading: UsageReport, provider: str, requested_model: str | None = None) -> PricedCall:
        """The cost of an answer for which nothing was reserved."""
        return price_usage(
            reading, get_provider(provider), self._catalogue, at=self._clock.now(), requested_model=requested_model
        )

    def interrupted_posting(self, reserved: ReservedAttempt, reading: UsageReport) -> Posting:
        """The most that a stream which was left early can have cost, the usage that it reported taken as known."""
        quote, rates = reserved.quote, reserved.quote.rates
        if reading.service_tier is not None:
            rates = (quote.prices or self._catalogue).rates(
                *quote.target, at=self._clock.now(), service_tier=reading.service_tier, speed=reading.speed,
                geo=reading.geo,
            )  # fmt: skip
        most_output = quote.max_tokens * reserved.attempt.choice_count
        amount = max_cost_of_interrupted(reading, rates, most_output, quote.amount_nanousd)
        return Posting(amount, "estimated", reading)

    def observe(self, call: RoutedCall, target: ModelRef, usage: TokenUsage) -> None:
        """Learn from an answer how long the input was."""
        if self._settings.calibrated:
            with self._lock:
                self._calibration.learn(target, call.request, usage.input_tokens)


def expected_cost(call: RoutedCall, quote: Quote) -> NanoUSD:
    """The expected cost of a quoted call by the answers its call site has had; the bound, where it is unknown."""
    expected = call.decision.expected_nanousd
    return quote.amount_nanousd if expected is None else min(expected, quote.amount_nanousd)
