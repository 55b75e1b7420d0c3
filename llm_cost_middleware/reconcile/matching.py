"""What a provider's lines and the ledger's bookings do not agree on, by day, model, tier and project. Pure.

What a report was not grouped by is added up on both sides. A call is counted by the ledger when it was reserved, by the
provider when it was answered: what one day has too much and the next too little by the same counts is no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple
from urllib.parse import unquote

from llm_cost_middleware.reconcile.exports import ProviderLine
from llm_cost_middleware.reports.charges import Charge
from llm_cost_middleware.usage import NO_USAGE

DAY_S = 86_400
REQUESTS, COST = "requests", "cost"
_DATED = re.compile(r"-\d{4}-?\d{2}-?\d{2}")
_UNSURE = ("unconfirmed", "unpriced", "estimated")


class Place(NamedTuple):
    """What is compared. ``None``: all of it together, because the report was not grouped by it."""

    provider: str
    day: int
    model: str | None
    tier: str | None
    project: str | None

    @property
    def date(self) -> str:
        """The day, as ``2026-11-26``."""
        return f"{datetime.fromtimestamp(self.day, UTC):%Y-%m-%d}"


class Difference(NamedTuple):
    """What differs at one place: counts of a bucket of tokens, ``requests``, or nano-dollars of ``cost``."""

    place: Place
    what: str
    ledger: int
    provider: int
    explained: str = ""
    """Why it may be so; empty where nothing in the ledger says."""

    @property
    def more(self) -> int:
        """What the provider has more."""
        return self.provider - self.ledger


@dataclass(slots=True)
class Side:
    """What one side has at a place."""

    tokens: dict[str, int] = field(default_factory=dict)
    requests: int | None = None
    nano: Decimal = Decimal(0)
    slack: Decimal = Decimal(0)
    """Nano-dollars that rounding may account for."""
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was compared, and what differs."""

    lines: int
    places: int
    differences: tuple[Difference, ...]
    shifted: tuple[Place, ...]
    """Days whose calls around midnight the provider counts on the day after."""
    residuals: Mapping[Place, Mapping[str, int]]
    """What the provider has more of tokens and ``requests`` than the ledger knows, at every place of a usage report."""


def reconcile(lines: Iterable[ProviderLine], charges: Iterable[Charge]) -> Reconciliation:
    """Compare.

    Args:
        lines: Of any exports; usage and costs are compared apart.
        charges: What the ledger booked on the same days.
    """
    lines, charges = list(lines), list(charges)
    found: list[Difference] = []
    shifted: set[Place] = set()
    residuals: dict[Place, dict[str, int]] = {}
    places = 0
    for provider in sorted({line.provider for line in lines}):
        ours = [charge for charge in charges if charge.provider == provider]
        for usage in (True, False):
            theirs = [line for line in lines if line.provider == provider and (line.tokens is not None) is usage]
            if not theirs:
                continue
            one = _Comparison(theirs, ours, usage=usage)
            places += len(one.places)
            found += one.differences(shifted)
            residuals |= one.residuals
    found.sort(
        key=lambda one: (one.place.day, one.place.provider, one.place.model or "", one.place.tier or "", one.what)
    )
    return Reconciliation(len(lines), places, tuple(found), tuple(sorted(shifted, key=str)), residuals)


class _Comparison:
    """Usage, or costs, of one provider."""

    def __init__(self, theirs: Sequence[ProviderLine], ours: Sequence[Charge], *, usage: bool) -> None:
        self._usage = usage
        self._by_model = all(line.model is not None for line in theirs)
        self._by_tier = all(line.tier is not None for line in theirs)
        own = [_project(charge) for charge in ours]
        self._by_project = bool(ours) and all(line.project for line in theirs) and all(own)
        self._names = {_plain(line.model) for line in theirs if line.model}
        self._days = {line.day for line in theirs}
        self._theirs: dict[Place, Side] = {}
        self._ours: dict[Place, Side] = {}
        self._unsure: dict[tuple[int, str | None], int] = {}
        """How many attempts of unknown usage the ledger has, by day and model."""
        for line in theirs:
            self._add_line(line)
        for charge, project in zip(ours, own, strict=True):
            if min(self._days) <= charge.day <= max(self._days):
                self._add_charge(charge, project)
        self.places = sorted({*self._theirs, *self._ours}, key=str)
        self.residuals: dict[Place, dict[str, int]] = {}

    def _place(self, provider: str, day: int, model: str | None, tier: str | None, project: str | None) -> Place:
        return Place(
            provider, day, self._named(model) if self._by_model else None, tier if self._by_tier else None,
            project if self._by_project else None,
        )  # fmt: skip

    def _named(self, model: str | None) -> str:
        """The name that the report has for a model: dated or not, as written or as shown."""
        plain = _plain(model or "")
        if plain in self._names:
            return plain
        return next((name for name in sorted(self._names) if same_model(name, plain)), plain)

    def _add_line(self, line: ProviderLine) -> None:
        side = self._theirs.setdefault(
            self._place(line.provider, line.day, line.model, line.tier, line.project), Side()
        )
        side.lines += 1
        for name, count in (line.tokens or {}).items():
            side.tokens[name] = side.tokens.get(name, 0) + count
        if line.requests is not None:
            side.requests = (side.requests or 0) + line.requests
        if line.usd is not None:
            nano = line.usd * 10**9
            side.nano += nano
            exponent = line.usd.as_tuple().exponent
            side.slack += Decimal(10) ** (exponent + 9) / 2 if isinstance(exponent, int) else Decimal(0)

    def _add_charge(self, charge: Charge, project: str | None) -> None:
        usages = charge.usage()
        unsure = charge.status in _UNSURE and not usages
        apart = (
            list(usages.items())
            if self._by_model and self._usage
            else [(charge.model, usage) for usage in usages.values()]
        )
        if not apart:
            apart = [(charge.model, NO_USAGE)]
        if not self._usage:
            apart = [(next(iter(usages), charge.model), NO_USAGE)]  # an amount is of the whole call
        for index, (model, usage) in enumerate(apart):
            place = self._place(charge.provider, charge.day, model, charge.tier, project)
            side = self._ours.setdefault(place, Side(requests=0))
            for name, count in asdict(usage).items():
                if count and name != "reasoning":
                    side.tokens[name] = side.tokens.get(name, 0) + count
            if index:
                continue
            if unsure:  # of which no answer said at what tier it was served
                key = place.day, place.model
                self._unsure[key] = self._unsure.get(key, 0) + charge.calls
            else:
                side.requests = (side.requests or 0) + charge.calls
            side.nano += charge.amount_nanousd
            side.slack += charge.calls  # each is rounded up to the nano-dollar

    def differences(self, shifted: set[Place]) -> list[Difference]:
        """What differs, without what midnight explains."""
        apart = {place: self._apart(place) for place in self.places}
        for place in self.places:
            following = place._replace(day=place.day + DAY_S)
            if apart[place] and _opposite(apart[place], apart.get(following, {})):
                apart[place], apart[following] = {}, {}
                shifted.add(place)
        return [one for place in self.places for one in self._told(place, apart[place])]

    def _apart(self, place: Place) -> dict[str, int]:
        """What the provider has more, by bucket; nano-dollars for costs."""
        theirs, ours = self._theirs.get(place, Side()), self._ours.get(place, Side())
        if not self._usage:
            cost = theirs.nano - ours.nano
            return {COST: round(cost)} if abs(cost) > theirs.slack + ours.slack else {}
        names = theirs.tokens if theirs.lines else ours.tokens
        apart = {name: theirs.tokens.get(name, 0) - ours.tokens.get(name, 0) for name in names}
        return {name: more for name, more in apart.items() if more}

    def _told(self, place: Place, apart: Mapping[str, int]) -> Iterable[Difference]:
        theirs, ours = self._theirs.get(place, Side()), self._ours.get(place, Side())
        unsure = self._unsure.get((place.day, place.model), 0)
        calls = f"{unsure:,} call{'s' if unsure > 1 else ''} of unknown usage" if unsure else ""
        if not self._usage:
            if COST in apart:
                why = f"{calls} booked at what was held" if calls else ""
                yield Difference(place, COST, int(ours.nano), int(ours.nano) + apart[COST], why)
            return
        self.residuals[place] = dict(apart)
        if theirs.requests is not None:
            self.residuals[place][REQUESTS] = theirs.requests - (ours.requests or 0)
        why = f"{calls} in the ledger" if calls and all(more >= 0 for more in apart.values()) else ""
        for name, more in apart.items():
            known = ours.tokens.get(name, 0)
            yield Difference(place, name, known, known + more, why)
        if apart and theirs.requests is not None and theirs.requests != ours.requests:
            yield Difference(place, REQUESTS, ours.requests or 0, theirs.requests, why)


def _opposite(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return one.keys() == other.keys() and all(one[name] == -other[name] for name in one) and max(one.values()) <= 0


def _project(charge: Charge) -> str | None:
    return next((unquote(scope[8:]) for scope in charge.scopes if scope.startswith("project:")), None)


def _plain(name: str) -> str:
    """A model's name as an id: consoles show «Claude Opus 5»."""
    name = name.strip().lower()
    return name.replace(" ", "-").replace(".", "-") if " " in name else name


def same_model(one: str, other: str) -> bool:
    """Whether two names are one model, one of them with its date."""
    short, long = sorted((one, other), key=len)
    return bool(_DATED.fullmatch(long.removeprefix(short))) and long.startswith(short)
