"""What an attempt may cost at most, and what its answers taught about that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import BudgetExceededError, PriceNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import Call, Quote, Settings
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.pricing.bound import bound
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.rates import Rates
from llm_cost_middleware.pricing.token_calibration import TokenCalibration
from llm_cost_middleware.pricing.tokenizer import count_openai_tokens, warm_up
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallRequest, Target
from llm_cost_middleware.routing.router import Candidate
from llm_cost_middleware.usage import TokenUsage

_LEAST_OUTPUT = 256  # an answer capped lower than this is rarely worth its input


class Quotes:
    """Makes quotes. One a pipeline; safe to share between threads."""

    _lock, _loading = ForkSafeLock(), ForkSafeLock()

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        candidates: Callable[[frozenset[str] | None], tuple[Candidate, ...]],
        clock: Clock,
    ) -> None:
        self._settings, self._catalogue, self._candidates, self._clock = settings, catalogue, candidates, clock
        self._calibration = TokenCalibration()

    def quote(self, call: Call, target: Target, *, cap: int | None = None) -> Quote:
        """The most that one attempt at ``target`` can cost. Raises ``PriceNotFoundError``."""
        request, settings = call.request, self._settings
        rates = self._dearest(target, request)
        limits = self._catalogue.limits(target.provider, target.model)
        injected = request.max_tokens is None or cap is not None
        default = (settings.default_max_tokens or limits.default_output) + _thinking_budget(request)
        asked = request.max_tokens if cap is None else cap
        max_tokens = default if asked is None else asked
        if injected and limits.max_output is not None:
            max_tokens = min(max_tokens, limits.max_output)
        input_tokens, exact = call.counts.get(limits.encoding), True
        if input_tokens is None and settings.calibrated:
            with self._lock:
                input_tokens, exact = self._calibration.tokens(target, request), False
        most = bound(
            request, get_provider(target.provider), rates,
            max_tokens=max_tokens, limits=limits, server_tool_allowance=settings.server_tool_allowance,
            input_tokens=input_tokens, exact=exact,
            cache_writes=call.layout is not None or target.provider != "anthropic",  # OpenAI writes unbidden
        )  # fmt: skip
        ceiling = request.context.max_cost_nanousd
        refusal = None
        if ceiling is not None and most.amount_nanousd > ceiling:
            limit = NanoUSD(ceiling).usd
            refusal = BudgetExceededError(ZERO.usd, limit, scope="call", requested=most.amount_nanousd.usd)
        return Quote(target, most.amount_nanousd, max_tokens, injected, most, rates, limits.encoding, refusal)

    def expected(self, call: Call, quote: Quote) -> NanoUSD:
        """What a quoted call is expected to cost, by the answers its call site has had; the bound, where unknown."""
        expected = call.decision.expected_nanousd if call.decision is not None else None
        return quote.amount_nanousd if expected is None else min(expected, quote.amount_nanousd)

    def exact_count(self, call: Call, quote: Quote) -> Callable[[], Any] | None:
        """A function that counts the input exactly, where that is possible offline and was not done yet."""
        if quote.encoding is None or quote.encoding in call.counts:
            return None
        return partial(self._count, call.request, quote.target.model)

    def _count(self, request: CallRequest, model: str) -> int | None:
        with self._loading:  # a vocabulary takes a second and a hundred megabytes: once, however many threads ask
            warm_up(model)
        return count_openai_tokens(request, model)

    def cap_to(self, call: Call, quote: Quote, available: NanoUSD | None) -> Quote | None:
        """The same attempt with the largest output cap that fits; ``None`` where too little would be left to say."""
        if call.fixed:
            return None
        ceiling = call.request.context.max_cost_nanousd
        room = min(value for value in (available, ceiling, quote.amount_nanousd) if value is not None)
        cap = quote.bound.max_tokens_within(NanoUSD(max(room, 0)))
        if cap >= quote.max_tokens or cap < min(_LEAST_OUTPUT, quote.max_tokens):
            return None
        return self.quote(call, quote.target, cap=cap)

    def learn(self, target: Target, request: CallRequest, usage: TokenUsage) -> None:
        """What an answer says of the input's length."""
        if self._settings.calibrated:
            with self._lock:
                self._calibration.learn(target, request, usage.input_tokens)

    def is_priced(self, target: Target) -> bool:
        """Whether the model has a price."""
        try:
            self._catalogue.rates(target.provider, target.model, at=self._clock.now())
        except PriceNotFoundError:
            return False
        return True

    def _dearest(self, target: Target, request: CallRequest) -> Rates:
        now = self._clock.now()
        try:
            return self._catalogue.upper_bound_rates(target.provider, target.model, at=now, params=request.params)
        except PriceNotFoundError:
            priced = [candidate for candidate in self._candidates(None) if candidate.output_picousd]
            own = [candidate for candidate in priced if candidate.target.provider == target.provider]
            if not priced or not (self._settings.observe or (own and self._settings.estimate_unknown_price)):
                raise
            dearest = max(own or priced, key=lambda candidate: candidate.output_picousd).target
            return self._catalogue.upper_bound_rates(*dearest, at=now, params=request.params)


def _thinking_budget(request: CallRequest) -> int:
    """The thinking that the caller asked for in tokens: it comes on top of what an answer usually takes."""
    if not request.params:
        return 0
    thinking = request.params.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    return budget if type(budget) is int and budget > 0 else 0
