"""The most that an attempt can cost, and the amount its answer is booked at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llm_cost_middleware.budget.ledger import SettlementStatus
from llm_cost_middleware.capabilities.fitting import fit_eligible
from llm_cost_middleware.capabilities.thinking import LEAST_ANSWER, changes_for_cap, least_cap
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import BudgetExceededError, NoEligibleModelError, PriceNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.caps import OutputCaps
from llm_cost_middleware.lifecycle.stages.held_rates import HeldRates
from llm_cost_middleware.lifecycle.state import Posting, Quote, ReservedAttempt, RoutedCall, Settings
from llm_cost_middleware.limits import find_limits
from llm_cost_middleware.metering import PricedCall, max_cost_of_interrupted, price_answer, price_usage
from llm_cost_middleware.money import ZERO, NanoUSD, ceil_picousd, floor_nanousd
from llm_cost_middleware.platform import PLATFORMS, is_inside, served_model, why_outside
from llm_cost_middleware.pricing.bound import bound, measure
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.token_calibration import CountChecks, Coverage, TokenCalibration
from llm_cost_middleware.pricing.tokenizer import ExactCount, TokenCounter, is_countable, is_loaded
from llm_cost_middleware.prompt_cache.plan import CachePlan
from llm_cost_middleware.providers import get_provider, provider_of
from llm_cost_middleware.request import MARKED_BY_HOST, OF_SEVERAL_MODELS, CallRequest, ModelRef
from llm_cost_middleware.routing.eligibility import DEFAULT_OUTPUT
from llm_cost_middleware.routing.router import Candidate
from llm_cost_middleware.usage import TokenUsage, UsageReport

_log = logging.getLogger(__name__)
_BYTES_PER_TOKEN = 3  # usual ones, where nothing was counted: prose has more, JSON and code fewer
_AT_ONCE = 16_384  # a millisecond or two: what takes longer to count is counted off the event loop
_NO_MARKS: frozenset[str] = frozenset()
_STATUS: dict[str, SettlementStatus] = {"exact": "exact", "estimated": "estimated", "unknown": "estimated"}
PROVIDER_COUNT = "the input was counted by the provider, with a margin of 2 %"
CLOSE_COUNT = "what is added to the counted texts is taken from past bills, without a margin"


class PriceStage:
    """Quotes attempts and prices answers. Safe to share between threads."""

    _lock = ForkSafeLock()

    def __init__(
        self, settings: Settings, catalogue: Catalogue, candidates: Callable[..., Sequence[Candidate]], clock: Clock
    ) -> None:
        self._settings, self._catalogue, self._candidates, self._clock = settings, catalogue, candidates, clock
        self._calibration = TokenCalibration()
        self._counter, self._checks = TokenCounter(), CountChecks()
        self._held = HeldRates(settings, catalogue, candidates, clock)
        self._not_dearer: tuple[object, str, ModelRef | None] = None, "", None
        self.caps = OutputCaps(settings.default_max_tokens, 0.0 if settings.observe else settings.learned_caps)

    def take_over(self, before: PriceStage) -> None:
        """Go on with what another one has learned of tokens and tiers."""
        self._calibration, self._counter, self._checks = before._calibration, before._counter, before._checks
        self.caps.take_over(before.caps)
        self._held.take_over(before._held)

    # --- before an attempt -----------------------------------------------------------------------------------------

    def quote(
        self,
        call: RoutedCall,
        target: ModelRef,
        token_counts: Mapping[str, int | None],
        *,
        plan: CachePlan | None = None,
        cap: int | None = None,
    ) -> Quote:
        """The most that one attempt at ``target`` can cost.

        Args:
            call: The call.
            target: The model, or the arm.
            token_counts: Input tokens once counted, as ``CallReport`` keeps them.
            plan: The cache plan that will be sent: only its marks and the caller's own write to a cache.
            cap: An output cap below the caller's own.

        Raises:
            PriceNotFoundError: The model has no price, and none may be estimated.
        """
        request, settings = call.request, self._settings
        if settings.regions and not settings.observe:
            _check_regions((target, *request.alternatives), settings.regions)  # the host may send it to any of them
        changes, arm, target = fit_eligible(request, target).changes, target, target.plain
        lane = call.lane_at(target) if call.flex_at else ""
        terms = self._held.terms(target, request, lane)
        limits, own, written = terms.limits, request.max_tokens, request.settings or changes
        encoding, most_output = limits.encoding, limits.max_output
        asked = own if cap is None else cap
        injected = own is None or cap is not None
        # A cap of the caller stays as it is: where it is too high, the provider says so in its own words.
        max_tokens, learned = self.caps.default(call, arm, limits, changes) if asked is None else (asked, False)
        # a gateway is sent no cap of ours; Claude's API takes no request without one
        unsent = asked is None and (
            (bool(written) and request.has_odd_cap)
            or ((request.bare or bool(request.gateways)) and request.is_bare(target) and request.endpoint != "messages")
        )
        if unsent:
            max_tokens, learned = most_output or max_tokens, False
        if injected and most_output is not None and most_output < max_tokens:
            max_tokens = most_output
        if injected and written:
            lowered = changes_for_cap(request, target, max_tokens, changes)
            changes = changes if lowered is None else lowered
        input_tokens, counted, note = None, False, ""
        if token_counts or settings.calibrated:
            input_tokens, counted, note = self._input(call, target, encoding, token_counts, doubtful=bool(terms.doubt))
        most = bound(
            request, terms.provider, terms.rates,
            max_tokens=max_tokens, limits=limits, server_tool_allowance=settings.server_tool_allowance,
            input_tokens=input_tokens, doubt=note, planned=_planned(request, plan), rates_doubt=terms.doubt,
        )  # fmt: skip
        ceiling, held = request.context.max_cost_nanousd, most.amount_nanousd
        refusal = None
        if ceiling is not None and held > ceiling - call.spent_nanousd:
            amounts = call.spent_nanousd.usd, NanoUSD(ceiling).usd
            refusal = BudgetExceededError(*amounts, scope="call", requested=held.usd)
            refusal.shown_in(self._catalogue.currency)
        return Quote(
            arm, held, max_tokens, injected, most, terms.rates, encoding, refusal, request.prices,
            changes, plan, counted, terms.sent_tier,
            least_cap(request, target, changes) if written else LEAST_ANSWER, unsent, lane, learned,
        )  # fmt: skip

    def _input(
        self, call: RoutedCall, target: ModelRef, encoding: str | None, token_counts: Mapping[str, int | None],
        *, doubtful: bool,
    ) -> tuple[int | None, bool, str]:  # fmt: skip
        """The input tokens to hold, whether they were counted, and why they guarantee nothing (or "").

        With ``doubtful`` the hold guarantees nothing anyway, so its count need not allow for everything.
        """
        close = token_counts.get(str(target))
        exact = token_counts.get(encoding) if encoding is not None else None
        if close is None and exact is not None and doubtful:
            close = self.close_count(call, target, token_counts)
        most = None if exact is None else self._checks.scaled(target, exact)
        if close is not None:
            note = PROVIDER_COUNT if encoding is None else CLOSE_COUNT
            scaled = self._checks.scaled(target, close, close=True)
            return scaled if most is None else min(scaled, most), True, note
        if most is not None:
            return most, True, ""
        # A count is better than an estimate, so it is looked at first.
        if self._settings.calibrated:
            with self._lock:
                estimate = self._calibration.tokens(target, call.request, call.decision.site)
            return estimate, False, "the input is an estimate from past calls" if estimate is not None else ""
        return None, False, ""

    def exact_count(
        self, call: RoutedCall, target: ModelRef, token_counts: Mapping[str, int | None]
    ) -> ExactCount | None:
        """How the input can be counted exactly, where that is possible offline and was not done yet."""
        encoding, request = find_limits(target.provider, target.model).encoding, call.request
        if encoding is None or encoding in token_counts or OF_SEVERAL_MODELS in request.params:
            return None
        # Most calls have money enough: without a vocabulary at hand, texts are looked up only when it is short.
        begun = self._counter.begin(request, encoding) if is_loaded(encoding) else None
        if begun is not None:
            return ExactCount(encoding, begun.effort <= _AT_ONCE, self._counter, request, begun)
        return ExactCount(encoding, not is_countable(request), self._counter, request)

    def close_count(self, call: RoutedCall, target: ModelRef, token_counts: Mapping[str, int | None]) -> int | None:
        """The input tokens as bills show them, below the count that allows for everything; ``None`` where it is not."""
        encoding = find_limits(target.provider, target.model).encoding
        exact = token_counts.get(encoding) if encoding is not None else None
        if encoding is None or exact is None or str(target.plain) in token_counts:
            return None
        close = self._counter.close(call.request, encoding, exact)
        return None if close is None else min(close, exact)

    def cap_to(
        self,
        call: RoutedCall,
        quote: Quote,
        available: NanoUSD | None,
        token_counts: Mapping[str, int | None],
    ) -> Quote | None:
        """The same attempt with the largest output cap that fits; ``None`` where too little output would be left."""
        if not call.takes_cap or call.request.has_odd_cap:
            return None
        ceiling = call.request.context.max_cost_nanousd
        own = None if ceiling is None else ceiling - call.spent_nanousd
        room = min(value for value in (available, own, quote.amount_nanousd) if value is not None)
        cap = quote.bound.max_tokens_within(NanoUSD(max(room, 0)))
        if cap >= quote.max_tokens or cap < min(quote.least_output, quote.max_tokens):
            return None
        if changes_for_cap(call.request, quote.target.plain, cap, quote.changes) is None:
            return None  # it could not think and answer
        return self.quote(call, quote.target, token_counts, plan=quote.plan, cap=cap)

    def unmarked(self, call: RoutedCall, quote: Quote, token_counts: Mapping[str, int | None]) -> Quote:
        """The same attempt without the cache marks that are added to it; ``quote`` itself where that holds no less."""
        if quote.plan is None or not quote.plan.marks:
            return quote
        bare = self.quote(call, quote.target, token_counts, plan=quote.plan.without_marks())
        return bare if bare.amount_nanousd < quote.amount_nanousd else quote

    def least_amount(self, quote: Quote, *, input_tokens: int | None = None) -> NanoUSD:
        """The least that an attempt can be made to hold: its output cut as far as is allowed and sensible.

        Args:
            quote: The attempt.
            input_tokens: Its input tokens, in place of those it was quoted at.
        """
        most, cap = quote.bound, quote.max_tokens
        if "cap_output" in self._settings.on_insufficient:
            cap = min(cap, quote.least_output)
        fixed = most.fixed_picousd
        if input_tokens is not None and most.input_tokens:
            fixed = fixed * min(input_tokens, most.input_tokens) // most.input_tokens
        return ceil_picousd(fixed + most.output_picousd * cap)

    def advise(self, refusal: BudgetExceededError, quote: Quote, held_s: float | None) -> BudgetExceededError:
        """The refusal with what would have fitted, and when money may return."""
        left = refusal.available
        cap = min(quote.bound.max_tokens_within(floor_nanousd(max(left, ZERO.usd))), quote.max_tokens) or None
        refusal.advised(requested=quote.amount_nanousd.usd, max_tokens=cap, pending_for_s=held_s)
        return refusal.shown_in(self._catalogue.currency)

    def expected(self, call: RoutedCall, quote: Quote, output_tokens: float | None) -> NanoUSD:
        """What a quoted call is expected to cost, uncached, never above its bound.

        Args:
            call: The call.
            quote: Its bound.
            output_tokens: The usual length of its site's answers; ``None``: not known, so a common one is assumed.
        """
        request, target = call.request, quote.target
        try:
            rates = (request.prices or self._catalogue).rates(
                *target, at=self._clock.now(), batch=bool(request.params.get("batch"))
            )
        except PriceNotFoundError:
            return quote.amount_nanousd
        size = measure(request)
        likely = quote.bound.input_tokens if quote.counted else (size.text_bytes + size.tool_bytes) // _BYTES_PER_TOKEN
        output = DEFAULT_OUTPUT if output_tokens is None else round(output_tokens)
        usage = TokenUsage(
            uncached_input=min(likely, quote.bound.input_tokens),
            output=min(output, quote.max_tokens) * request.choice_count,
        )
        return min(rates.cost(usage), quote.amount_nanousd)

    def named_model(self, request: CallRequest) -> ModelRef | None:
        """The model that the caller named, where it is a model and not a name for "choose one"."""
        target = ModelRef(request.provider, request.model)
        known = served_model(*target).model if request.provider in PLATFORMS else request.model
        if request.model_pinned or provider_of(known) is not None:
            return target
        try:
            (request.prices or self._catalogue).rates(target.provider, target.model, at=self._clock.now())
        except PriceNotFoundError:
            return None
        return target

    # --- after an attempt ------------------------------------------------------------------------------------------

    def posting(self, reserved: ReservedAttempt, reading: UsageReport) -> Posting:
        """The cost of an answered attempt, or the reservation where the answer does not report its usage."""
        catalogue = reading.prices or reserved.quote.prices or self._catalogue
        target = reserved.attempt.target if reading.served_by is None else ModelRef(*reading.served_by)
        now = self._clock.now()
        priced = price_answer(reading, target, catalogue, at=now)
        tier = reading.service_tier
        if tier is not None and not reading.batch and not reserved.quote.lane:
            rates, known, of = self._not_dearer  # by identity, as ``is_dearer``; most answers are as the one before
            if rates is not reserved.quote.rates or known != tier or of != target:
                self._note_tier(target, reserved.quote, tier, now)
        # Unknown is never zero: the reservation is the most that it can have cost.
        if priced.cost_nanousd is None:
            return Posting(reserved.quote.amount_nanousd, "estimated", reading, priced)
        return Posting(priced.cost_nanousd, _STATUS[priced.status], reading, priced)

    def _note_tier(self, target: ModelRef, quote: Quote, tier: str, now: float) -> None:
        """Hold later requests at the tier of an answer, where it costs more than this one was held at."""
        dearer = self._held.is_dearer(target, tier, quote.rates, now)
        if dearer is None or not (dearer or self._held.learns_tiers):
            self._not_dearer = quote.rates, tier, target
            return
        if self._held.answered(target.provider, tier, dearer=dearer):
            _log.warning(
                "%s answered at the service tier %r, which costs more than was held: later requests are held at it. "
                "Declare it: [providers.%s] service_tier = %r", target, tier, target.provider, tier,
            )  # fmt: skip

    def price(
        self, reading: UsageReport, provider: str, requested_model: str | None = None, *,
        at: float | None = None, laid: Mapping[str, Any] | None = None,
    ) -> PricedCall:  # fmt: skip
        """The cost of an answer outside the flow of a call.

        Args:
            reading: Its usage.
            provider: Who answered.
            requested_model: The model that was asked for.
            at: The moment of its price; ``None``: now.
            laid: Prices of a host's own, as ``Catalogue.with_prices`` takes them.
        """
        moment = self._clock.now() if at is None else at
        catalogue = self._catalogue.with_prices(laid) if laid else self._catalogue
        return price_usage(reading, get_provider(provider), catalogue, at=moment, requested_model=requested_model)

    def interrupted_posting(self, reserved: ReservedAttempt, reading: UsageReport) -> Posting:
        """The most that a stream which was left early can have cost, the usage that it reported taken as known."""
        quote, rates = reserved.quote, reserved.quote.rates
        catalogue = reading.prices or quote.prices or self._catalogue
        if reading.served_by is not None or reading.prices is not None:
            rates = catalogue.upper_bound_rates(*(reading.served_by or quote.target), at=self._clock.now())
        elif reading.service_tier is not None:
            rates = catalogue.rates(
                *quote.target, at=self._clock.now(), service_tier=reading.service_tier, speed=reading.speed,
                geo=reading.geo,
            )  # fmt: skip
        most_output = quote.max_tokens * reserved.attempt.choice_count
        amount = max_cost_of_interrupted(reading, rates, most_output, quote.amount_nanousd)
        return Posting(amount, "estimated", reading)

    def observe(self, call: RoutedCall, reserved: ReservedAttempt, usage: TokenUsage) -> None:
        """Learn from an answer how long the input was, and whether it was longer than what was held."""
        quote = reserved.quote
        if not (quote.counted or self._settings.calibrated):
            return
        actual, model = usage.input_tokens, quote.target.plain
        if quote.counted and actual > quote.bound.input_tokens and quote.bound.guaranteed:
            _log.warning(
                "%s billed %d input tokens where %d were counted; later counts are scaled to that", quote.target,
                actual, quote.bound.input_tokens,
            )  # fmt: skip
        with self._lock:
            if quote.counted:
                close = not {PROVIDER_COUNT, CLOSE_COUNT}.isdisjoint(quote.bound.notes)
                self._checks.check(model, quote.bound.input_tokens, actual, close=close)
            if self._settings.calibrated:
                self._calibration.learn(model, call.request, actual, call.decision.site)

    @property
    def coverage(self) -> Coverage:
        """How often the estimates of past calls covered what was billed."""
        with self._lock:
            return self._calibration.coverage


def _check_regions(targets: Iterable[ModelRef], regions: tuple[str, ...]) -> None:
    """Raise ``NoEligibleModelError`` where one of the targets of a call is served outside the regions."""
    outside = [target for target in targets if not is_inside(*target.plain, regions)]
    if outside:
        raise NoEligibleModelError({str(target): why_outside(*target.plain, regions) for target in outside})


def _planned(request: CallRequest, plan: CachePlan | None) -> frozenset[str] | None:
    """The lifetimes of the marks that are added to a request; ``None``: the host adds some of its own, of any."""
    if MARKED_BY_HOST in request.params:
        return None
    return frozenset([mark.ttl for mark in plan.marks]) if plan is not None and plan.marks else _NO_MARKS
