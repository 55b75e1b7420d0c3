"""Bookings added up by dimensions. One engine for every storage: only where the bookings come from differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from itertools import product
from typing import Any, NamedTuple
from urllib.parse import unquote

from llm_cost_middleware.budget.backend import SupportsBookings
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules import DAY, QUARTER
from llm_cost_middleware.budget.rules.bookings import Booking, BookingSums, bookings
from llm_cost_middleware.metering.refused import REFUSAL, RefusedCall, read_refusal
from llm_cost_middleware.metering.savings import savings_of
from llm_cost_middleware.platform import answered_name
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.reports.query import DIMENSIONS, Query
from llm_cost_middleware.reports.report import OTHER, Report, ReportRow, Sums
from llm_cost_middleware.usage import TokenUsage

BUCKETS = {item.name: index for index, item in enumerate(fields(TokenUsage))}
_STEP = 20_000
_MOST_PLACES = 200_000  # remembered at once: ten million calls of a million people must not fill the memory
_TERMS = ("service_tier", "speed", "geo", "batch")
Keys = tuple[str | None, ...]


class Told(NamedTuple):
    """What a memo says of a call."""

    provider: str
    model: str
    tier: str
    asked: str
    terms: tuple[tuple[str, Any], ...]
    items: tuple[Any, ...]
    calls: int
    arm: str = ""


SAYS_NOTHING = Told("", "", "", "", (), (), 1)


def make_report(
    ledger: Ledger,
    query: Query,
    *,
    catalogue: Catalogue | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Answer a question from a ledger.

    Args:
        ledger: The ledger; what it reads of it depends on the storage, the answer does not.
        query: The question.
        catalogue: The prices, for list prices and savings; without one they are unknown.
        progress: Told now and then how many bookings were read.
    """
    fold = _Fold(query)
    number = told = 0
    for booking in bookings_of(ledger, query.since, query.until, query.sums):
        fold.add(booking)
        number += booking.ids
        if progress is not None and number - told >= _STEP:
            told = number
            progress(number)
    if ledger.journal is None:
        fold.refusals_unknown()
    else:
        for line in ledger.journal.read(REFUSAL, query.since):
            if query.until is None or line.at < query.until:
                fold.refuse(line.data, line.at)
    fold.price(catalogue if query.savings else None)
    return fold.report(catalogue is not None and query.savings)


class Selection:
    """Whether single calls are in the answer to a question, by its filters."""

    def __init__(self, query: Query) -> None:
        self._fold = _Fold(query)

    def takes(self, row: Row) -> bool:
        """Whether a row of the ledger is."""
        return bool(self._fold.places_of_row(row))

    def takes_refusal(self, line: RefusedCall, at: float) -> bool:
        """Whether a refused call is; ``at`` is seconds since the Unix epoch."""
        return bool(self._fold.places_of_refusal(line, at))


def bookings_of(ledger: Ledger, since: float | None, until: float | None, sums: BookingSums) -> Iterable[Booking]:
    """Return what was booked from ``since`` to before ``until`` (seconds), as finely as is asked for or finer."""
    first, end = (None if moment is None else round(moment * 1000) for moment in (since, until))
    backend = ledger.backend
    if isinstance(backend, SupportsBookings):
        return backend.bookings(first, end, sums)
    return bookings(lambda: backend.rows(first, None), first, end)


class _Fold:
    """Sums under construction, by the values of the dimensions."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._sums: dict[Keys, Sums] = {}
        self.total, self.shared = Sums(), Sums()
        self._places: dict[tuple[Any, ...], tuple[Keys, ...]] = {}
        self._tokens: dict[tuple[Any, ...], list[int]] = {}
        self._kinds: dict[bytes, Told] = {}
        self._wanted = query.kinds
        self._met: set[str] = set()

    def add(self, booking: Booking) -> None:
        """Add what an id, or some, cost."""
        told = self._told(booking)
        places = self._places_of(booking.scopes, told, booking.status, booking.at)
        if not places:
            return
        calls, amount = booking.ids * told.calls, booking.amount
        for sums in (self.total, *map(self._at, places), *(self.shared for _ in places[1:])):
            sums.calls += calls
            sums.cost_nanousd += amount
            if booking.status == "exact":
                continue
            if booking.status == "estimated":
                sums.estimated_nanousd += amount
            elif booking.status == "unconfirmed":
                sums.unconfirmed_nanousd += amount
            elif booking.status == "unpriced":
                sums.unpriced += calls
        counts = iter(booking.counts)
        for model, _, usage in told.items:
            # Tokens are added up by all that decides their price, and from there to the lines: once a day, not a call.
            served = answered_name(told.provider, model, told.model) or ""
            key = (places, booking.at // DAY, told.provider, served, told.asked, told.terms)
            tokens = self._tokens.get(key)
            if tokens is None:
                tokens = self._tokens[key] = [0] * len(BUCKETS)
            for name, count in usage.items():
                tokens[BUCKETS[name]] += next(counts) if booking.counts else count

    def _told(self, booking: Booking) -> Told:
        if not booking.counts:
            return told_of(booking.memo) if booking.memo else SAYS_NOTHING
        told = self._kinds.get(booking.memo)
        if told is None:
            told = self._kinds[booking.memo] = told_of(booking.memo) if booking.memo else SAYS_NOTHING
        return told

    def refuse(self, data: bytes, at: float) -> None:
        """Count a call that was refused."""
        line = read_refusal(data)
        if line is not None and (places := self.places_of_refusal(line, at)):
            self._put(places, Sums(refused=1))

    def places_of_refusal(self, line: RefusedCall, at: float) -> tuple[Keys, ...]:
        """The lines that a refused call belongs to; none where a filter leaves it out."""
        told = SAYS_NOTHING._replace(provider=line.target.provider, model=line.target.model, tier=line.tier)
        return self._places_of(" ".join(line.scopes), told, "refused", round(at * 1000))

    def places_of_row(self, row: Row) -> tuple[Keys, ...]:
        """The lines that a row belongs to; none where a filter leaves it out."""
        told = told_of(row.memo) if row.memo else SAYS_NOTHING
        return self._places_of(" ".join(row.scopes), told, row.status, round(row.reserved_at * 1000))

    def refusals_unknown(self) -> None:
        """The storage keeps no journal."""
        for sums in (self.total, self.shared, *self._sums.values()):
            sums.refused = None

    def price(self, catalogue: Catalogue | None) -> None:
        """Add the tokens, and with a catalogue what they would have cost otherwise."""
        for (places, day, provider, model, asked, terms), tokens in self._tokens.items():
            one = Sums(tokens=tokens)
            if catalogue is not None:
                usage, at = TokenUsage(*tokens), day * DAY / 1000 + 1
                found = savings_of(catalogue, provider, model, usage, at=at, terms=dict(terms), asked=asked)
                one.list_picousd, one.caching_picousd, one.routing_picousd = found
            self._put(places, one)

    def report(self, priced: bool) -> Report:
        """The answer."""
        query = self._query
        columns = (*((query.over,) if query.over else ()), *query.by)
        rows = [ReportRow(keys, sums) for keys, sums in self._sums.items()]
        if query.top is not None:
            rows = _top(rows, query.top, skip=1 if query.over else 0)
        rows.sort(key=lambda row: (row.keys[:1] if query.over else (), *_rank(row), _order(row.keys)))
        notes = [*self._strangers()]
        if self.shared.calls:
            notes.append("a call with several values stands in the line of each; the total counts it once")
        if priced and self.total.list_picousd is None and self.total.calls:
            notes.append("no list prices: the rows hold no usage")
        return Report(
            columns, tuple(rows), ReportRow((), self.total), ReportRow((), self.shared), query.since, query.until,
            tuple(notes),
        )  # fmt: skip

    def _strangers(self) -> Iterator[str]:
        """Kinds of scopes that were asked for, that no call has, and that look like a dimension."""
        for name in sorted(self._wanted - self._met - {*DIMENSIONS}):
            if near := get_close_matches(name, DIMENSIONS, n=1):
                yield f"no call has a {name}; did you mean {near[0]}?"

    def _places_of(self, scopes: str, told: Told, status: str, at: int) -> tuple[Keys, ...]:
        """The lines that a call belongs to; none where a filter leaves it out."""
        quarter = at // QUARTER if self._query.over else 0  # days and hours of every time zone begin at one
        key = (scopes, told.provider, told.model, told.tier, told.arm, told.terms, bool(told.items), status, quarter)
        places = self._places.get(key)
        if places is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            places = self._places[key] = self._find_places(self._values(scopes, told, status), quarter)
        return places

    def _find_places(self, values: Mapping[str, tuple[str, ...]], quarter: int) -> tuple[Keys, ...]:
        query = self._query
        if not all(found.matches(values.get(found.dimension, ())) for found in query.where):
            return ()
        parts: list[tuple[str | None, ...]] = [values.get(name) or (None,) for name in query.by]
        if query.over:
            parts.insert(0, (query.label(quarter * QUARTER / 1000),))
        return tuple(product(*parts))

    def _values(self, scopes: str, told: Told, status: str) -> dict[str, tuple[str, ...]]:
        """The values of the dimensions; several of a kind where a call has several scopes of it."""
        values: dict[str, tuple[str, ...]] = {}
        for scope in scopes.split(" "):
            kind, _, name = scope.partition(":")
            if kind in self._wanted:
                self._met.add(kind)
                values[kind] = (*values.get(kind, ()), _name(name))
        values["status"] = (status,)
        if told.model:
            values["model"] = (told.model,)
            values["arm"] = (f"{told.model}+{told.arm}" if told.arm else told.model,)
        if told.provider:  # nobody says whose model it is that went past the middleware
            values["provider"] = (told.provider,)
            values.setdefault("platform", (told.provider,))
        if told.tier:
            values["tier"] = (told.tier,)
        if told.items:  # answers alone say how they were served; OpenAI's word for the standard tier is ``default``
            terms = dict(told.terms)
            served = "batch" if terms.get("batch") else terms.get("service_tier")
            values["service_tier"] = ("standard",) if served in {None, "default"} else (str(served),)
        return values

    def _at(self, keys: Keys) -> Sums:
        sums = self._sums.get(keys)
        if sums is None:
            sums = self._sums[keys] = Sums()
        return sums

    def _put(self, places: tuple[Keys, ...], one: Sums) -> None:
        for keys in places:
            self._at(keys).add(one)
        self.total.add(one)
        if len(places) > 1:
            self.shared.add(one, len(places) - 1)


def _top(rows: list[ReportRow], top: int, skip: int) -> list[ReportRow]:
    """The rows of the dearest values, and one of all others for each stretch of time."""
    spent: dict[Keys, int] = {}
    for row in rows:
        spent[row.keys[skip:]] = spent.get(row.keys[skip:], 0) + row.sums.cost_nanousd
    kept = set(sorted(spent, key=lambda keys: (-spent[keys], _order(keys)))[:top])
    found = [row for row in rows if row.keys[skip:] in kept]
    others: dict[Keys, Sums] = {}
    for row in rows:
        if row.keys[skip:] not in kept:
            keys = (*row.keys[:skip], *(OTHER for _ in row.keys[skip:]))
            others.setdefault(keys, Sums()).add(row.sums)
    return [*found, *(ReportRow(keys, sums) for keys, sums in others.items())]


def _rank(row: ReportRow) -> tuple[bool, int]:
    """The dearest first, all others last."""
    return row.keys[-1:] == (OTHER,), -row.sums.cost_nanousd


def _order(keys: Keys) -> tuple[tuple[bool, str], ...]:
    return tuple((key is None, key or "") for key in keys)


def _name(encoded: str) -> str:
    """The name of a scope as it was given, where it can be printed."""
    name = unquote(encoded)
    return name if name.isprintable() else encoded


def told_of(memo: bytes) -> Told:
    """Read a memo; one of another program or of a newer version says nothing, and its cost counts all the same."""
    try:
        data = json.loads(memo)
        target, terms = data.get("at") or ("", ""), data.get("terms")
        if data["v"] > 1:
            return SAYS_NOTHING
        kept = tuple([(name, terms[name]) for name in _TERMS if terms.get(name)]) if terms else ()
        items = tuple([item for item in data.get("items", ()) if item[2].keys() <= BUCKETS.keys()])
        tier, asked, arm = (str(data.get(name, "")) for name in ("tier", "ask", "arm"))
        return Told(target[0], target[1], tier, asked, kept, items, data.get("calls", 1), arm)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return SAYS_NOTHING
