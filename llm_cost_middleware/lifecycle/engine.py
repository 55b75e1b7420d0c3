"""What the life of a call consults: the rooms, their shared state, and the lock around it.

Everything here returns at once. Decisions are made by pure functions of the rooms; this class hands them the state they
need under one lock, and writes down what came of it. The pipeline builds it and owns it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from random import Random
from typing import Any

from llm_cost_middleware.budget.model import Receipt
from llm_cost_middleware.budget.rules import Headroom
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import NoEligibleModelError, PriceNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.bookkeeping import Bookkeeper
from llm_cost_middleware.lifecycle.chronicle import Chronicle
from llm_cost_middleware.lifecycle.quotes import Quotes
from llm_cost_middleware.lifecycle.state import Answer, Call, Hold, Outcome, Quote, Settings
from llm_cost_middleware.metering import encode_memo, max_cost_of_interrupted, price_usage
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.prompt_cache.layout import read_layout
from llm_cost_middleware.prompt_cache.planner import CachePlan, CachePolicy, CachePrices, plan
from llm_cost_middleware.provider import Failure, UsageReading
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import Attempt, CallRequest, CallResult, Target
from llm_cost_middleware.retry.classify import classify_error
from llm_cost_middleware.retry.gate import GO
from llm_cost_middleware.retry.policy import Admission, RetryDecision, RetryPolicy, RetryState
from llm_cost_middleware.retry.policy import decide as decide_retry
from llm_cost_middleware.routing.cascade import judge
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.features import read_features
from llm_cost_middleware.routing.history import SiteHistory
from llm_cost_middleware.routing.outcomes import TRUNCATED, failures
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.router import Candidate, RoutingContext, decide, downgrade, fallbacks, provider_of
from llm_cost_middleware.usage import TokenUsage

_CONVERSATIONS = 4_096
_CACHE_WORTHY = 1_024  # characters below which no model caches a prefix: skip its layout
_PRICED_WRITES = frozenset({"5m", "1h", "30m", "12h"})
_LEAST_TIMEOUT_S = 0.001  # of an attempt that begins when the deadline ends


class Engine:
    """The rooms, wired. One a pipeline."""

    lock = ForkSafeLock()

    def __init__(
        self,
        *,
        settings: Settings,
        catalogue: Catalogue,
        candidates: Callable[[frozenset[str] | None], tuple[Candidate, ...]],
        routing: RoutingPolicy,
        retry: RetryPolicy,
        cache: CachePolicy,
        chronicle: Chronicle,
        clock: Clock,
        rng: Random,
        new_id: Callable[[], str],
        books: Bookkeeper,
    ) -> None:
        self.settings, self.catalogue, self.candidates = settings, catalogue, candidates
        self.routing, self.retry, self.cache = routing, retry, cache
        self.chronicle, self.clock, self.rng, self.new_id, self.books = (
            chronicle, clock, rng, new_id, books,
        )  # fmt: skip
        self.retry_state = RetryState(retry, rng)
        self.statistics = chronicle.recall()
        self.learned_prefixes = False
        self.history = SiteHistory()
        self.quotes = Quotes(settings, catalogue, candidates, clock)
        self.routes_by_budget = routing.explore > 0 or any(
            policy.kind == "rules" for policy in (routing, *routing.sites.values())
        )
        self._sticky: OrderedDict[Hashable, Target] = OrderedDict()

    # --- route -----------------------------------------------------------------------------------------------------

    def begin(self, request: CallRequest, providers: frozenset[str] | None) -> Call:
        """A call enters."""
        now, heard = self.clock.monotonic(), self.books.heard()
        return Call(self.new_id(), request, providers, request.context.scopes, now, heard=heard)

    def route(self, call: Call, headroom: Headroom | None) -> None:
        """Choose the model, and log why."""
        request = call.request
        call.features = features = read_features(request)
        candidates = self.candidates(call.providers)
        own = self._own_target(request) if self.settings.observe else None
        conversation = _conversation(request)
        now = self.clock.now()
        if features.total_chars >= _CACHE_WORTHY and self.cache.mode != "off":
            call.layout = read_layout(request)
        with self.lock:
            affinity: Mapping[Target, int] = {}
            if call.layout is not None and not request.pinned and len(candidates) > 1:
                prices = {c.target: self._cache_prices(c.target, now) for c in candidates if c.unavailable is None}
                affinity = self.statistics.affinity(call.layout, prices, now=now)
            sticky = self._sticky.get(conversation)
            try:
                decision = self._decide(call, request, candidates, affinity, sticky, headroom, now)
            except NoEligibleModelError:
                if own is None:
                    raise
                pinned = request._replace(pinned=True)
                decision = self._decide(call, pinned, candidates, affinity, sticky, headroom, now)
            call.decision, call.target = decision, own or decision.target
            self._sticky[conversation] = decision.target
            self._sticky.move_to_end(conversation)
            if len(self._sticky) > _CONVERSATIONS:
                self._sticky.popitem(last=False)
        self.books.routed(call)

    def _decide(
        self,
        call: Call,
        request: CallRequest,
        candidates: tuple[Candidate, ...],
        affinity: Mapping[Target, int],
        sticky: Target | None,
        headroom: Headroom | None,
        now: float,
    ) -> RoutingDecision:
        assert call.features is not None  # noqa: S101 - read before anything else
        context = RoutingContext(
            call.id, now, self.rng,
            available=headroom.available_nanousd if headroom else None,
            budget_left=headroom.share if headroom else None,
            affinity=affinity, history=self.history, sticky=sticky, learning=self.settings.learning,
        )  # fmt: skip
        return decide(self.routing, candidates, request, call.features, context)

    def preview(self, call: Call) -> None:
        """Choose the model without remembering the choice: for a quote."""
        request = call.request
        call.features = read_features(request)
        context = RoutingContext(call.id, self.clock.now(), self.rng, history=self.history)
        call.decision = decide(self.routing, self.candidates(call.providers), request, call.features, context)
        call.target = call.decision.target

    def _own_target(self, request: CallRequest) -> Target | None:
        """The model that the caller named, where that is a model and not a name for "choose one"."""
        target = Target(request.provider, request.model)
        if request.pinned or provider_of(request.model) is not None or self.quotes.is_priced(target):
            return target
        return None

    def judge(self, call: Call, hold: Hold, result: CallResult) -> CallResult | Target:
        """Whether an answer stands: the answer to return, or the model to ask next."""
        decision = call.decision
        if self.settings.learning and (said := result.said) is not None:
            call.seen += failures(call.request, said)
        if decision is None or call.request.pinned or self.settings.observe:
            return result
        call.results.append(result)
        policy = self.routing.at(decision.site)
        verdict = judge(decision, policy, call.results, call.request, call.accept)
        if verdict is None:
            return result
        with self.lock:
            if len(call.results) == 1:
                self.history.observe(
                    decision.site, hold.quote.target,
                    seconds=self.clock.monotonic() - hold.started, accepted=isinstance(verdict, CallResult),
                )  # fmt: skip
        if isinstance(verdict, Target):
            call.escalated = True
            call.tried += (hold.quote.target,)  # where money is short no step down leads back to it
            self.books.escalated(call, hold, verdict)
        return verdict

    def answer(self, call: Call, response: Any) -> Answer:
        """What the call came to."""
        assert call.decision is not None  # noqa: S101 - it was routed
        return Answer(response, call.id, call.decision, tuple(call.records))

    def fallbacks(self, call: Call, target: Target) -> tuple[Target, ...]:
        """Other models that may take the call after ``target`` failed."""
        if call.request.pinned or call.decision is None or self.settings.observe or not self.retry.fallback:
            return ()
        return tuple(other for other in fallbacks(call.decision) if other != target)

    def downgrades(self, call: Call, target: Target) -> Iterator[Target]:
        """Cheaper models that may take the call, dearest first."""
        if call.decision is not None and not call.request.pinned:
            cheaper = (call.decision.target, *downgrade(call.decision))
            yield from (other for other in cheaper if other != target and other not in call.tried)

    # --- send ------------------------------------------------------------------------------------------------------

    def admit(self, target: Target, previous: Admission | None = None) -> Admission:
        """Ask the gate of a target; after a wait, again with what it answered. Observers hold nobody up."""
        if self.settings.observe:
            return GO
        with self.lock:
            return self.retry_state.admit(target, now=self.clock.monotonic(), previous=previous)

    def next_reservation_id(self, call: Call) -> str:
        """An id never used before: an id once refused stays refused."""
        call.reservations += 1
        return f"{call.id}.{call.reservations}"

    def hold(self, call: Call, quote: Quote, *, reservation_id: str | None, scopes: tuple[str, ...] = ()) -> Hold:
        """The attempt, ready to be sent."""
        settings, request = self.settings, call.request
        now = self.clock.monotonic()
        left = max(self.retry.deadline_s - (now - call.started), _LEAST_TIMEOUT_S)
        timeout = min(left, settings.timeouts.get(quote.target.provider, left))
        cache_plan = self._plan_cache(call, quote.target, leaves=True)
        cap, timeout_s = (request.max_tokens, None) if settings.observe else (quote.max_tokens, timeout)
        attempt = Attempt(call.id, call.attempts, quote.target, cap, cache_plan, timeout_s, request)
        held = Hold(reservation_id, attempt, quote, scopes or call.scopes_of(quote.target), cache_plan, now)
        self.books.reserved(call, held)
        return held

    def memo(self, call: Call, quote: Quote, outcome: Outcome | None = None) -> bytes:
        """The memo of a ledger row."""
        return encode_memo(
            call_id=call.id, attempt=call.attempts, target=quote.target,
            priced=outcome.priced if outcome else None, reading=outcome.reading if outcome else None,
        )  # fmt: skip

    def should_wait(self, call: Call, target: Target) -> bool:
        """Whether another call is writing the prefix that this one could read in a moment."""
        made = self._plan_cache(call, target, leaves=False)
        return made is not None and made.wait_for is not None

    def _plan_cache(self, call: Call, target: Target, *, leaves: bool) -> CachePlan | None:
        if call.layout is None or self.settings.observe:
            return None
        ability = get_provider(target.provider).cache_ability(target.model)
        if ability.style == "none" or (call.fixed and ability.style == "marks"):
            return None  # marks of a call that somebody else sends are not ours to set
        now = self.clock.now()
        try:
            prices = self._cache_prices(target, now)
        except PriceNotFoundError:  # sent at an estimate: there is nothing to weigh a mark by
            return None
        with self.lock:
            made = plan(call.layout, ability, prices, self.statistics, self.cache, now=now, target=target)
            if leaves:
                self.statistics.begin(call.layout, made, now=now)
        return made

    def _cache_prices(self, target: Target, now: float) -> CachePrices:
        ability = get_provider(target.provider).cache_ability(target.model)
        level = self.catalogue.rates(target.provider, target.model, at=now).levels[0]
        paid = ability.ttls if ability.writes_are_paid else ()
        return CachePrices(
            read=level.cache_read,
            write={ttl: getattr(level, f"cache_write_{ttl}") for ttl in paid if ttl in _PRICED_WRITES},
            uncached=level.uncached_input,
        )

    # --- book ------------------------------------------------------------------------------------------------------

    def outcome(self, hold: Hold, reading: UsageReading) -> Outcome:
        """What an answered attempt is booked at: its cost, or the reservation where the answer does not say."""
        target = hold.quote.target
        priced = price_usage(
            reading, get_provider(target.provider), self.catalogue, at=self.clock.now(), requested_model=target.model
        )
        if priced.cost_nanousd is None:
            return Outcome(hold.quote.amount_nanousd, "estimated", reading, priced)
        return Outcome(priced.cost_nanousd, "exact" if priced.status == "exact" else "estimated", reading, priced)

    def stream_outcome(self, hold: Hold, reading: UsageReading, error: BaseException | None) -> Outcome:
        """The same for a stream, however it was left: what is known is used, the rest is the most it can have been."""
        if reading.complete or reading.free:
            return self.outcome(hold, reading)
        if error is not None and not isinstance(error, GeneratorExit):
            failure = self.classify(error, hold.quote.target)
            with self.lock:
                self.retry_state.failed(hold.quote.target, failure, now=self.clock.monotonic(), started=hold.started)
        quote, rates = hold.quote, hold.quote.rates
        if reading.service_tier is not None:
            rates = self.catalogue.rates(
                *quote.target,
                at=self.clock.now(),
                service_tier=reading.service_tier,
                speed=reading.speed,
                geo=reading.geo,
            )
        most = max_cost_of_interrupted(
            reading, rates, quote.max_tokens * hold.attempt.request.choices, quote.amount_nanousd
        )
        return Outcome(most, "estimated", reading)

    def unconfirmed(self, hold: Hold) -> Outcome:
        """A failed attempt that may have been billed is booked at its reservation."""
        return Outcome(hold.quote.amount_nanousd, "unconfirmed")

    def settled(self, call: Call, hold: Hold, outcome: Outcome, receipt: Receipt | None) -> None:
        """Learn from a booked attempt, and write it down."""
        target, reading = hold.quote.target, outcome.reading
        answered = reading is not None and reading.complete and bool(reading.items)
        usage = reading.usage if reading is not None and answered else None
        if reading is not None and reading.finish_reason is not None:
            call.seen = (TRUNCATED,) if reading.truncated else ()
        saving = 0
        with self.lock:
            if usage is not None:
                self.retry_state.succeeded(
                    target, now=self.clock.monotonic(), after_retry=call.attempts > 1, drew=call.drew,
                    started=hold.started,
                )  # fmt: skip
                if call.decision is not None:
                    self.history.observe(call.decision.site, target, usage.output_tokens)
            self._forget_plan(call, hold, usage)
        if usage is not None:
            self.quotes.learn(target, call.request, usage)
            if hold.plan is not None:
                self.chronicle.answered(call, hold, usage)
                saving = int(hold.plan.prices.saving(usage)) if hold.plan.prices is not None else 0
        self.books.settled(call, hold, outcome, receipt, saving)

    def voided(self, call: Call, hold: Hold, reason: str) -> None:
        """An attempt was certainly not billed."""
        with self.lock:
            self._forget_plan(call, hold, None)
        self.books.voided(call, hold, reason)

    def _forget_plan(self, call: Call, hold: Hold, usage: TokenUsage | None) -> None:
        if call.layout is not None and hold.plan is not None:
            self.learned_prefixes = True
            self.statistics.observe(call.layout, hold.quote.target, hold.plan, usage, now=self.clock.now())

    def remember(self) -> None:
        """Keep what was learned, where the storage can."""
        with self.lock:
            if self.learned_prefixes:
                self.learned_prefixes = False
                self.chronicle.remember(self.statistics)

    # --- fail ------------------------------------------------------------------------------------------------------

    def classify(self, error: BaseException, target: Target) -> Failure:
        """What an exception means."""
        return classify_error(error, provider=target.provider, now=self.clock.now())

    def after_failure(self, call: Call, hold: Hold, failure: Failure) -> RetryDecision:
        """Whether to try again, where, and when."""
        target, now = hold.quote.target, self.clock.monotonic()
        call.tried += (target,)
        others = tuple(other for other in self.fallbacks(call, target) if other not in call.tried)
        with self.lock:
            self.retry_state.failed(target, failure, now=now, started=hold.started)
            decision = decide_retry(
                self.retry, self.retry_state, failure,
                attempt=call.attempts, elapsed_s=now - call.started, target=target, fallbacks=others,
                delivered=False, rng=self.rng, now=now,
            )  # fmt: skip
        call.drew = decision.cost
        return decision


def _conversation(request: CallRequest) -> Hashable:
    """What stays the same over the turns of one conversation: its own id, else how it began."""
    if request.context.conversation is not None:
        return request.context.conversation
    opening = []
    for message in request.messages:
        opening.append(message.parts[0].text if message.parts else "")
        if message.role == "user":
            break
    return hash(tuple(opening))
