"""What a call carries through its life: values, and the one small mutable record of where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.metering import PricedCall
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.pricing.bound import Bound
from llm_cost_middleware.pricing.rates import Rates
from llm_cost_middleware.prompt_cache.layout import Layout
from llm_cost_middleware.prompt_cache.planner import CachePlan
from llm_cost_middleware.provider import UsageReading
from llm_cost_middleware.request import Attempt, CallRequest, CallResult, Target
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.features import Features
from llm_cost_middleware.tracker import CostRecord, Status
from llm_cost_middleware.usage import TokenUsage

_NOWHERE = Target("", "")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says of the life of a call."""

    observe: bool = False
    estimate_unknown_price: bool = False
    allow_unavailable: bool = False
    on_insufficient: tuple[str, ...] = ("downgrade", "cap_output", "raise")
    default_max_tokens: int | None = None
    """``None``: per model, reasoning counted."""
    calibrated: bool = False
    learning: bool = False
    """Decisions carry hashed n-grams of the text, to learn from later."""
    server_tool_allowance: NanoUSD = ZERO
    lease_s: float = 900.0
    timeouts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


class Quote(NamedTuple):
    """What one attempt at one target may cost at most, and the output cap that makes it so."""

    target: Target
    amount_nanousd: NanoUSD
    max_tokens: int
    injected: bool
    """The cap is not the caller's own."""
    bound: Bound
    rates: Rates
    encoding: str | None = None
    """The vocabulary in which the input could be counted exactly."""
    over_call_limit: BudgetExceededError | None = None
    """Set where the call's own ``max_cost`` refuses it."""


class Hold(NamedTuple):
    """An attempt with its money set aside."""

    reservation_id: str | None
    """``None``: it did not fit, or the ledger did not answer, and it is sent all the same; it is booked afterwards."""
    attempt: Attempt
    quote: Quote
    scopes: tuple[str, ...]
    plan: CachePlan | None
    started: float
    """Monotonic seconds."""


class Outcome(NamedTuple):
    """What an attempt is booked at."""

    amount_nanousd: NanoUSD
    status: Status
    reading: UsageReading | None = None
    priced: PricedCall | None = None


class Answer(NamedTuple):
    """What a call came to: the host's response, how it was routed, and a record of every billed attempt."""

    response: Any
    call_id: str
    decision: RoutingDecision
    records: tuple[CostRecord, ...]


@lru_cache(maxsize=256)
def _own_scopes(target: Target) -> tuple[str, str]:
    return f"provider:{target.provider}", f"model:{target.model}"


@dataclass(slots=True)
class Call:
    """Where a call is in its life."""

    id: str
    request: CallRequest
    providers: frozenset[str] | None
    scopes: tuple[str, ...]
    started: float
    """Monotonic seconds."""
    attempts: int = 0
    reservations: int = 0
    target: Target = _NOWHERE
    """Where the first attempt goes: the decision's choice, or in observe mode the caller's own."""
    counts: dict[str | None, int | None] = field(default_factory=dict)
    """Exact input tokens by vocabulary, once counted; ``None`` where they cannot be."""
    features: Features | None = None
    decision: RoutingDecision | None = None
    layout: Layout | None = None
    fixed: bool = False
    """Somebody else sends it, as it is: no other model, no other cap, no second attempt."""
    tried: tuple[Target, ...] = ()
    accept: Callable[[CallResult], bool] | None = None
    """The caller's check of an answer: what it rejects goes up a tier."""
    traces: tuple[tuple[Hold, TokenUsage, float], ...] = ()
    """Answered attempts whose cache is worth remembering, for the journal."""
    results: list[CallResult] = field(default_factory=list)
    """The answers so far, where a check decides which stands."""
    escalated: bool = False
    seen: tuple[str, ...] = ()
    """What the last attempt that was answered shows of itself: names of ``routing.outcomes``."""
    drew: int = 0
    """What the retry that led to this attempt drew from the quota."""
    records: list[CostRecord] = field(default_factory=list)
    """One for each attempt that was booked."""
    heard: bool = True
    """Whether anybody takes note of ordinary events: most calls are made with logging off."""
    spent_nanousd: int = 0
    """The sum of the records."""

    def scopes_of(self, target: Target) -> tuple[str, ...]:
        """The call's scopes, with those of the model and its provider."""
        return (*self.scopes, *_own_scopes(target))
