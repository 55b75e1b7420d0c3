"""Price of a response, and the most a cut stream can have cost.

``providers`` read the usage, the catalogue has the rates. Rounded up to a whole nano-dollar once per response.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from math import inf
from typing import Any, Literal, NamedTuple, NoReturn

from msgspec import Struct

from llm_cost_middleware.errors import ConfigurationError, PriceNotFoundError, UnreadableUsageError
from llm_cost_middleware.money import ZERO, NanoUSD, ceil_picousd
from llm_cost_middleware.periods import read_moment
from llm_cost_middleware.platform import PLATFORMS, answered_name
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.rates import REQUEST_FEE, Rates
from llm_cost_middleware.provider import Provider
from llm_cost_middleware.providers import NAMES, get_provider
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import NO_USAGE, BilledItem, TokenUsage, UsageReport
from llm_cost_middleware.wire import field_reader

PriceStatus = Literal["exact", "estimated", "unknown"]
_PICO = Decimal("1e-12")
_LOOP = "the provider's own tools ran in a loop whose turns are summed: priced at the short context"
_HALF_DAY = "the price of twelve-hour cache writes rests on one source"
_CUT = "the answer was cut: this is what was reported until then"
_LANGCHAIN = (
    "a message of LangChain's is no response of the provider: its usage_metadata leave out tiers and fees. Guard the "
    "model, or pass the provider's own response"
)
_FEES = "tool_fees"
_FAR = 10**13
_KEPT = 1_024


class PricedItem(NamedTuple):
    """Item of a bill."""

    model: str
    usage: TokenUsage
    cost_nanousd: NanoUSD
    """Share of the whole; the shares sum to the whole."""
    components_picousd: Mapping[str, int]
    """Pico-dollars by bucket of ``TokenUsage``, or by type of tool call; the sum is exact."""
    kind: str = "message"
    """``message``, ``compaction``, ``advisor_message`` …; ``tool_fees`` for fees per tool call."""

    @property
    def components(self) -> dict[str, Decimal]:
        """US dollars by bucket, exactly."""
        return {name: pico * _PICO for name, pico in self.components_picousd.items()}


class PricedCall(Struct, frozen=True, gc=False):
    """Price of a response."""

    cost_nanousd: NanoUSD | None
    """``None`` if unknown: never zero."""
    items: tuple[PricedItem, ...]
    model: str | None
    """Model that answered."""
    status: PriceStatus
    notes: tuple[str, ...] = ()
    price_version: str = ""
    """Snapshot of prices that was used."""

    @property
    def cost_usd(self) -> Decimal | None:
        """US dollars; ``None`` if unknown."""
        return None if self.cost_nanousd is None else self.cost_nanousd.usd


def price_response(
    provider: str, response: Any, *, at: date | float | str | None = None, catalogue: Catalogue | None = None
) -> PricedCall:
    """Return the price of a response, to the nano-dollar.

    Args:
        provider: ``anthropic`` or ``openai``.
        response: JSON object, JSON or SSE text, or an SDK's object, of any endpoint.
        at: Time of the request: a ``datetime``, a ``date``, text such as ``2026-01-31`` (UTC), or seconds since the
            epoch. ``None``: the creation time in the response, and the
            newest price if there is none (Anthropic's have none).
        catalogue: The prices; ``None`` for the packaged ones.

    Returns:
        ``exact``, ``estimated`` with a reason in ``notes``, or ``unknown`` with a reason and no cost. An error costs
        0, with a note.

    Raises:
        ConfigurationError: Unknown provider, or ``at`` is no time.
    """
    name: object = provider
    if not isinstance(name, str):
        told = f"the provider comes first, by its name ({', '.join(NAMES)}), then the response"
        raise ConfigurationError(f"{told}; not {type(name).__name__}", key="provider")
    rules = get_provider(provider)
    prices = catalogue or _packaged()
    moment = None if at is None else read_moment(at, "at", zone=UTC, relative=False)
    if hasattr(response, "usage_metadata") and hasattr(response, "response_metadata"):
        return PricedCall(None, (), None, "unknown", (_LANGCHAIN,), prices.version)
    try:
        reading = rules.read_usage(response)
    except UnreadableUsageError as error:
        return PricedCall(None, (), None, "unknown", (str(error),), prices.version)
    return price_usage(reading, rules, prices, at=_created_at(response) if moment is None else moment)


def price_usage(
    reading: UsageReport,
    provider: Provider,
    catalogue: Catalogue,
    *,
    at: float | None,
    requested_model: str | None = None,
) -> PricedCall:
    """Return the price of the usage that a response reports.

    Args:
        reading: Usage report of the response.
        provider: The provider that answered.
        catalogue: The prices.
        at: Time of the request, in seconds since the epoch; ``None`` for the newest price.
        requested_model: The requested model, for responses that do not name theirs.
    """
    version = catalogue.version
    model = answered_name(provider.name, reading.model, requested_model)
    if not reading.items:
        if reading.unbilled:  # known to cost nothing, as an error does; everything else without items is unknown
            why = f"an error is not billed: {reading.error}" if reading.error else "not billed"
            return PricedCall(ZERO, (), model, "exact", (*reading.warnings, why), version)
        reasons = (*reading.warnings, reading.error) if reading.error else reading.warnings
        return PricedCall(None, (), model, "unknown", reasons or ("no usage was reported",), version)
    # An unpriced item makes the whole unknown: a partial sum would look like the cost.
    bill = _BillBuilder(list(reading.warnings))
    for doubt in reading.doubts:
        bill.mark_estimated(doubt)
    # The provider's own tools run several turns inside one answer and report their sum: the sum may exceed the
    # long-context threshold although no single turn did.
    looped = bool(reading.tool_calls) and len(reading.items) == 1 and not reading.batch
    terms = reading.service_tier, reading.speed, reading.geo, reading.batch
    try:
        for item in reading.items:
            name = answered_name(provider.name, item.model, model) or _nameless(provider)
            rates = catalogue.rates(provider.name, name, at, *terms)
            bill.add(item, rates, name, looped=looped)
    except (PriceNotFoundError, UnreadableUsageError) as error:
        return PricedCall(None, (), model, "unknown", (*bill.notes, str(error)), version)
    if reading.tool_calls and provider.charges_tool_calls:
        bill.add_fees(reading.tool_calls, rates, model or "")
    if REQUEST_FEE in rates.fees:
        bill.add_request_fee(len(reading.items), rates, model or "")
    # The provider bills the tokens it made, not those that arrived: a cut answer may cost more than it reported.
    if not reading.complete:
        bill.mark_estimated(_CUT)
    if reading.error:
        bill.notes.append(f"ended in an error: {reading.error}")
    status: PriceStatus = "estimated" if bill.is_estimate else "exact"
    notes = tuple(dict.fromkeys(bill.notes)) if bill.notes else ()
    # Every row says whose price it is: the list's, or that of a contract.
    version += f", contract {rates.contract}" if rates.contract else ""
    return PricedCall(NanoUSD(bill.total), tuple(bill.items), model, status, notes, version)


def price_answer(reading: UsageReport, target: ModelRef, catalogue: Catalogue, *, at: float) -> PricedCall:
    """Return ``price_usage`` of an answer; without its items where it leaves nothing to weigh, as almost every one.

    Args:
        reading: Usage report of the response.
        target: Who was asked; its model counts for a response that names none.
        catalogue: The prices.
        at: Time of the request, in seconds since the epoch.
    """
    plain = _plain_price(reading, target, catalogue, at)
    if plain is not None:
        return plain
    return price_usage(reading, get_provider(target.provider), catalogue, at=at, requested_model=target.model)


def _is_odd(reading: UsageReport) -> bool:
    """Whether a report has more to weigh than its items."""
    return bool(
        reading.error
        or reading.pending
        or reading.unbilled
        or reading.tool_calls
        or reading.warnings
        or reading.doubts
        or reading.served_by
        or reading.prices
        or reading.in_vain
    )


class PlainRates(Struct, frozen=True, gc=False):
    """The rates of plain answers of one kind, while they hold."""

    since: float
    until: float
    rates: Rates
    answered: str | None
    """The model that answered."""
    version: str


def _plain_price(reading: UsageReport, target: ModelRef, catalogue: Catalogue, at: float) -> PricedCall | None:
    """The price of one item, reported in full, without a tool, an error or a doubt, at a list price without a note."""
    items = reading.items
    if len(items) != 1 or not reading.complete or _is_odd(reading):
        return None
    item, known_rates = items[0], catalogue.plain
    usage = item.usage
    if usage.cache_write_12h:
        return None
    key = target, item.model, reading.model, reading.service_tier, reading.speed, reading.geo, reading.batch
    found: PlainRates | None = known_rates.get(key)
    try:
        if found is None or not found.since <= at < found.until:
            found = _plain_rates(reading, target, catalogue, at)
            if found is None:
                return None
            if len(known_rates) >= _KEPT:  # an answer may name any model
                known_rates.clear()
            known_rates[key] = found
        cost = ceil_picousd(found.rates.picousd(usage))
    except PriceNotFoundError:
        return None
    return PricedCall(cost, (), found.answered, "exact", (), found.version)


def _plain_rates(reading: UsageReport, target: ModelRef, catalogue: Catalogue, at: float) -> PlainRates | None:
    named = reading.items[0].model
    if target.provider in PLATFORMS:
        answered = answered_name(target.provider, reading.model, target.model)
        named = answered_name(target.provider, named, answered)
    else:
        answered = reading.model or target.model
        named = named or answered
    if not named:
        return None
    terms = reading.service_tier, reading.speed, reading.geo, reading.batch
    rates = catalogue.rates(target.provider, named, at, *terms)
    if rates.notes or rates.contract or (rates.fees and REQUEST_FEE in rates.fees):
        return None
    return PlainRates(*catalogue.priced(target.provider, named).period(at), rates, answered, catalogue.version)


def _nameless(provider: Provider) -> NoReturn:
    raise UnreadableUsageError(provider.name, "the response names no model")


class _BillBuilder:
    """Bill under construction: sums pico-dollars, and gives each item its share of whole nano-dollars."""

    __slots__ = ("is_estimate", "items", "notes", "pico", "total")

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes
        self.items: list[PricedItem] = []
        self.pico = self.total = 0
        self.is_estimate = False

    def add(self, item: BilledItem, rates: Rates, model: str, *, looped: bool) -> None:
        usage = item.usage
        short = looped and usage.input_tokens > (rates.long_context_from or inf)
        if short:
            self.mark_estimated(_LOOP)
        if usage.cache_write_12h:
            self.mark_estimated(_HALF_DAY)
        for note in rates.notes:
            self.mark_estimated(note)
        self._put(model, usage, rates.components(usage, short=short), item.kind)

    def add_fees(self, calls: Mapping[str, int], rates: Rates, model: str) -> None:
        fees = {kind: uses * rates.fees[kind] for kind, uses in calls.items() if kind in rates.fees}
        for kind in calls:
            if kind in fees:
                self.mark_estimated(f"{kind}: its fee depends on the tool's version; the list price was used")
            elif kind not in _NO_FEE:
                self.mark_estimated(f"{kind}: what the tool itself costs is not included")
        if fees:
            self._put(model, NO_USAGE, fees, _FEES)

    def add_request_fee(self, answers: int, rates: Rates, model: str) -> None:
        self.mark_estimated("the model searches each time, which no usage counts: one search an answer, at list price")
        self._put(model, NO_USAGE, {REQUEST_FEE: answers * rates.fees[REQUEST_FEE]}, _FEES)

    def mark_estimated(self, why: str) -> None:
        self.notes.append(why)
        self.is_estimate = True

    def _put(self, model: str, usage: TokenUsage, parts: Mapping[str, int], kind: str) -> None:
        # Rounding the running sum, not each item, keeps one ceiling per response however many items there are.
        self.pico += sum(parts.values())
        total = ceil_picousd(self.pico)
        self.items.append(PricedItem(model, usage, NanoUSD(total - self.total), parts, kind))
        self.total = total


_NO_FEE = frozenset({"mcp_call", "shell_call", "computer_call"})


@cache
def _packaged() -> Catalogue:
    return Catalogue()


def _created_at(response: Any) -> float | None:
    """Return the creation time in the response, in seconds since the epoch."""
    get = field_reader(response)
    for name in ("created", "created_at"):
        value = get(name)
        if type(value) in (int, float) and -_FAR < value < _FAR:  # else no moment, and perhaps no float
            return float(value)
        if isinstance(value, datetime):
            return value.timestamp()
    return None


class SeenResponses:
    """Ids of billed responses: a background response returns its usage each time it is retrieved.

    Args:
        keep: Number of latest ids to remember.
    """

    __slots__ = ("_ids", "_keep")

    def __init__(self, keep: int = 10_000) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._keep = keep

    def first(self, reading: UsageReport) -> bool:
        """Return whether this bill is new. Reports without a bill or an id are always new, and not remembered."""
        name = reading.response_id
        if name is None or not reading.items:
            return True
        if name in self._ids:
            return False
        self._ids[name] = None
        if len(self._ids) > self._keep:
            self._ids.popitem(last=False)
        return True


def max_cost_of_interrupted(reading: UsageReport, rates: Rates, max_tokens: int, reserved: NanoUSD) -> NanoUSD:
    """Return the most a cut stream can have cost: its reported input with an answer of ``max_tokens``.

    Never more than the reserved amount, and all of it if not even the input is known, or the provider's tools ran: they
    add input and fees that come with the last event.
    """
    if not reading.usage.input_tokens or reading.tool_calls:
        return reserved
    return min(reserved, rates.cost_with_output(reading.usage, max_tokens))
