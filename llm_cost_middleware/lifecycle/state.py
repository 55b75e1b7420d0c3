"""The values of a call on its way, and the one small mutable report of what became of it.

What a call is asked to do is frozen (``RoutedCall``), and so is every attempt (``Quote``, ``ReservedAttempt``,
``Posting``). What changes from attempt to attempt lives in the locals of ``flow.CallFlow.start``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, update_wrapper
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.ledger import SettlementStatus
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.lifecycle.attribution import AttributionConfig
from llm_cost_middleware.metering import PricedCall
from llm_cost_middleware.model_names import names_of
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.pricing.bound import Bound
from llm_cost_middleware.pricing.rates import Rates
from llm_cost_middleware.prompt_cache.layout import PromptLayout
from llm_cost_middleware.prompt_cache.plan import CachePlan
from llm_cost_middleware.request import EMPTY, AnswerContent, Attempt, CallRequest, InputCounter, ModelRef
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.lanes import LaneChoice
from llm_cost_middleware.tracker import Booked, CostRecord
from llm_cost_middleware.usage import TokenUsage, UsageReport


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of the configuration that a call depends on."""

    observe: bool = False
    estimate_unknown_price: bool = False
    allow_unavailable: bool = False
    on_ungoverned: str = "warn"
    on_insufficient: tuple[str, ...] = ("downgrade", "cap_output", "raise")
    default_max_tokens: int | None = None
    """``None``: per model, reasoning counted."""
    learned_caps: float = 0.0
    """Share of the answers of a site that may end at a learned cap; 0: none is learned."""
    calibrated: bool = False
    server_tool_allowance: NanoUSD = ZERO
    hold_ttl_s: float = 900.0
    timeouts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Seconds that a request may take, by provider, where the configuration says so."""
    service_tiers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """By provider, the service tier that requests without one are served at."""
    sent_tiers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """By provider, the service tier to send where a request names none."""
    regions: tuple[str, ...] = ()
    """Where alone calls may be served; none: anywhere."""
    attribution: AttributionConfig = field(default_factory=AttributionConfig)
    """Who must be named before a call is sent."""
    max_wait_for_budget_s: float = 0.0
    """How long a call waits for money that calls in flight hold; 0: not at all."""


class RoutedCall(Struct, frozen=True):
    """A call and where it goes: written once by the route stage, read by every other, and handed to hosts."""

    id: str
    request: CallRequest
    decision: RoutingDecision
    target: ModelRef
    """Where the first attempt goes: the decision's choice, or in observe mode the caller's own model."""
    layout: PromptLayout | None
    """How the prompt divides into cacheable sections; ``None`` where no cache would take it."""
    started_at: float
    """Monotonic seconds."""
    sent_externally: bool = False
    """The caller sends the request itself: never reroute or retry it."""
    events_enabled: bool = True
    """True if any observer would receive INFO-level events (skips building them otherwise)."""
    takes_cap: bool = True
    """Whoever sends it writes the attempt's output cap into it."""
    full_cap: bool = False
    """An answer of it ended at a learned cap: none is set any more."""
    lane: LaneChoice | None = None
    """The lane in which it begins, where it can wait."""
    flex_at: frozenset[ModelRef] = frozenset()
    """The models at which it is still sent at the flex tier."""
    spent_nanousd: NanoUSD = ZERO
    """What its earlier attempts were booked at: no more of its ``max_cost`` is left for this one."""

    def lane_at(self, target: ModelRef) -> str:
        """The service tier to send for its lane: ``flex``, or empty where its lane asks for none."""
        return "flex" if target.plain in self.flex_at else ""

    def scopes_at(self, target: ModelRef) -> tuple[str, ...]:
        """The budget scopes of an attempt at ``target``: the call's own, with those of the provider and the model."""
        request = self.request
        scopes = request.context.scopes + scopes_of(target)
        if request.alternatives:  # the host may send it to any of them: each of their budgets must have room
            others = (scope for other in self.request.alternatives for scope in scopes_of(other))
            return tuple(dict.fromkeys((*scopes, *others)))
        return scopes

    def asked_of(self, target: ModelRef) -> str:
        """The model that the caller named, where it is another than ``target``; empty where it is the same, or none."""
        asked = self.request.model
        return "" if asked == target.model or ("/" in asked and asked == str(target)) else asked

    def as_served(self, reserved: ReservedAttempt, reading: UsageReport | None) -> ReservedAttempt:
        """The attempt as the model that answered it, where the host chose that."""
        if reading is None or reading.served_by is None:
            return reserved
        target = ModelRef(*reading.served_by)
        scopes = (*self.request.context.scopes, *scopes_of(target))
        return replace(reserved, attempt=replace(reserved.attempt, target=target), scopes=scopes)


@lru_cache(maxsize=256)
def scopes_of(target: ModelRef) -> tuple[str, ...]:
    """The scopes of a model: of its provider, and of every name that it goes by."""
    return f"provider:{target.provider}", *(f"model:{name}" for name in names_of(*target))


class Quote(Struct, frozen=True):
    """The most that one attempt at one target can cost, and the output cap that makes it so."""

    target: ModelRef
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
    prices: Any = None
    """As of ``CallRequest``: the catalogue that the answer is priced by, too."""
    changes: Mapping[str, Any] = EMPTY
    """What is written otherwise for the target and the cap: ``Attempt.changes``."""
    plan: CachePlan | None = None
    """The cache plan that it was priced with, and that is sent."""
    counted: bool = False
    """The input was counted; otherwise its bytes bound it, or past calls estimate it."""
    tier: str | None = None
    """The service tier to send, where the request names none and the configuration says to send one."""
    least_output: int = 0
    """The least output cap that is sensible."""
    cap_unsent: bool = False
    """The cap is the most that the model gives, and is not sent."""
    lane: str = ""
    """``flex``: the service tier is sent because the call can wait, and not because anybody asked for it."""
    learned: bool = False
    """The cap was learned from past answers of the site."""


class ReservedAttempt(Struct, frozen=True):
    """An attempt with its money set aside."""

    reservation_id: str | None
    """``None``: it did not fit, or the ledger did not answer, and it is sent all the same; it is booked afterwards."""
    attempt: Attempt
    quote: Quote
    scopes: tuple[str, ...]
    started_at: float
    """Monotonic seconds."""
    plan: CachePlan | None
    """The plan behind the attempt's cache directives."""

    @property
    def arm(self) -> ModelRef:
        """What routing chose; where the host chose another model, that one."""
        asked = self.quote.target
        return asked if asked.plain == self.attempt.target else self.attempt.target


class Posting(Struct, frozen=True, gc=False):
    """The amount to book for an attempt, and the usage and the price that it rests on."""

    amount_nanousd: NanoUSD
    status: SettlementStatus
    reading: UsageReport | None = None
    priced: PricedCall | None = None


class _Ended(NamedTuple):
    response: Any
    call_id: str
    decision: RoutingDecision
    records: Any


class CallOutcome(_Ended):
    """The end of a call: the host's response, how it was routed, and a record of every billed attempt.

    A named tuple whose ``records``, a tuple of ``CostRecord``, are made when they are read: most callers never do.
    """

    __slots__ = ()

    @property
    def records(self) -> tuple[CostRecord, ...]:
        """A record of every billed attempt."""
        booked: Any = super().__getitem__(3)
        return tuple([one.record() if isinstance(one, Booked) else one for one in booked])

    def __iter__(self) -> Iterator[Any]:
        return iter((*super().__getitem__(slice(3)), self.records))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}{_Ended(*self)!r}".replace("_Ended", "", 1)


def _of_its_records(name: str) -> Callable[..., Any]:
    of_tuple = getattr(tuple, name)

    def method(self: CallOutcome, *args: Any) -> Any:
        return of_tuple(tuple(self), *(tuple(other) if isinstance(other, CallOutcome) else other for other in args))

    return update_wrapper(method, of_tuple)


for _name in (
    "__getitem__", "__contains__", "count", "index", "__add__", "__mul__", "__rmul__",
    "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__",
):  # fmt: skip
    # What else a tuple answers out of its own storage, where the records are not made yet.
    setattr(CallOutcome, _name, _of_its_records(_name))


class CacheTrace(Struct, frozen=True, gc=False):
    """An answered attempt whose cache use is worth a line in the journal."""

    target: ModelRef
    plan: CachePlan
    usage: TokenUsage
    at: float


class CallReport(Struct, eq=False):
    """The mutable part of a call: what was tried and booked so far."""

    counter: InputCounter | None = None
    """Asks the provider for a count, where the host can."""
    flex_tries: int = 0
    """Tries at the flex tier that brought no answer."""
    flex_over: bool = False
    """What follows goes to the standard tier."""
    reservations: int = 0
    """Reservations tried; numbers their ids."""
    answered: ModelRef | None = None
    """The model or arm of the last attempt that was booked."""
    spent_nanousd: NanoUSD = ZERO
    """The sum of what was booked."""
    quality_signals: tuple[str, ...] = ()
    """Failure signals found in the last answered attempt (names from ``routing.signals``)."""
    escalated: bool = False
    shadow: tuple[ModelRef, float] | None = None
    """The model that answered beside the call's own, and whether it said the same (1) or not (0)."""
    cache_traces: tuple[CacheTrace, ...] = ()
    """Traces that were not written down yet."""
    refusal: bytes | None = None
    """The line of a refusal for want of money, for the journal (``metering.refusal_line``)."""
    content: AnswerContent | None = None
    """What the answer that is about to be booked says, where its tools are looked at; not kept."""

    tried_targets: tuple[ModelRef, ...] = ()
    """The models that failed, or whose answer was rejected."""
    booked: tuple[Booked, ...] = ()
    """One for each attempt that was booked."""
    asked_counts: Mapping[ModelRef, bool] = MappingProxyType({})
    """The models whose provider was asked for a count: once a call."""
    is_decided: bool = False
    """Its decision is a line of the log."""
    logged_nanousd: int = -1
    """The sum of its settlement in the log; -1: none."""
    logged_outcomes: tuple[str, ...] = ()
    is_compared: bool = False
    """It was compared with earlier calls."""

    token_counts: dict[str, int | None] = {}
    """Input tokens, once counted: exact ones by vocabulary, those of a provider by ``provider/model``. ``None`` where
    they could not be."""
    lines: list[JournalEntry] = []
    """Lines of the log that were made, and not written down yet."""
