"""What is asked of the ledger: dimensions, a stretch of time, filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from llm_cost_middleware.budget.rules import DAY
from llm_cost_middleware.budget.rules.bookings import BookingSums
from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.natural_values import CALENDAR, read_timezone, read_whole
from llm_cost_middleware.periods import read_moment, read_period
from llm_cost_middleware.typed_fields import read_choice

Over = Literal["hour", "day", "week", "month"]
OVER = CALENDAR
OF_MEMO = ("model", "arm", "provider", "platform", "tier", "service_tier")
"""Dimensions that the pipeline wrote into a row's memo."""
OF_SCOPES = ("team", "user", "tag", "site", "key", "end_user")
"""The usual dimensions that are kinds of scopes; any other kind is one too."""
DIMENSIONS = (*OF_MEMO, *OF_SCOPES, "status", *OVER)
_KIND = re.compile(r"[a-z][a-z0-9_]*\Z")
_FILTER = re.compile(r"\s*([a-z][a-z0-9_]*)\s*(!=|==?)\s*(.*?)\s*\Z", re.DOTALL)
_HOUR = 3_600_000
Moment = date | timedelta | float | str


class Filter(NamedTuple):
    """Calls whose dimension is one of some names or globs; or, with ``keep`` false, all others. ``""``: has none."""

    dimension: str
    patterns: tuple[str, ...]
    keep: bool

    def matches(self, values: Iterable[str]) -> bool:
        """Whether a call with these values of the dimension is kept."""
        found = any(fnmatchcase(value, pattern) for value in (tuple(values) or ("",)) for pattern in self.patterns)
        return found is self.keep


@dataclass(frozen=True, slots=True)
class Query:
    """A question, canonical. Times are seconds since the Unix epoch."""

    by: tuple[str, ...]
    over: str | None
    since: float | None
    until: float | None
    where: tuple[Filter, ...]
    top: int | None
    zone: tzinfo | None
    """The time zone of days and hours; ``None``: the machine's."""
    savings: bool

    @classmethod
    def read(
        cls,
        by: str | Iterable[str] = (),
        *,
        over: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        during: Moment | None = None,
        where: Mapping[str, Any] | str | Iterable[str] = (),
        top: int | None = None,
        timezone: str | tzinfo | None = None,
        savings: bool = True,
        now: Callable[[], float],
    ) -> Query:
        """Read a question as people write it.

        Args:
            by: Dimensions, as a list or as text with commas: those of ``DIMENSIONS``, or any kind of scope.
            over: ``hour``, ``day``, ``week`` or ``month``: a line for each of them.
            since: The first moment: ``yesterday``, ``7d``, ``2026-11``, a ``datetime`` …
            until: The moment after the last; a period means its start, so ``until="today"`` ends last midnight.
            during: A period, instead of both: ``yesterday``, ``2026-11``, ``last month``.
            where: Filters: ``{"tag": "etl", "model": ["claude-*", "gpt-5"]}``, or text such as ``team!=ops``.
            top: So many lines, the dearest; the rest is one line, ``other``.
            timezone: Of days and of what names no zone: an IANA name; ``local``: the machine's; ``None``: UTC.
            savings: Work out list prices and savings too, which takes a price list.
            now: The present moment.

        Raises:
            ConfigurationError: A value that has no meaning; the message shows the right form.
        """
        zone = _zone(timezone)
        dimensions = tuple(dict.fromkeys(_dimension(name, "by") for name in _names(by)))
        times = [name for name in dimensions if name in OVER]
        if over is not None or times:
            over = read_choice(Over, over if over is not None else times[0], "over")
            if times not in ([], [over]):
                raise ConfigurationError(f"one length of time at once: {over!r} or {times[-1]!r}", key="over")
        start = end = None
        if during is not None:
            if since is not None or until is not None:
                raise ConfigurationError("stands for since and until; give one or the other", key="during")
            start, end = read_period(during, "during", now=now, zone=zone)
        else:
            start = None if since is None else read_moment(since, "since", now=now, zone=zone)
            end = None if until is None else read_moment(until, "until", now=now, zone=zone)
        if start is not None and end is not None and start >= end:
            raise ConfigurationError("ends before it begins: a period means its start, until excludes it", key="until")
        if top is not None and (top := read_whole(top, "top")) < 1:
            raise ConfigurationError("must be a positive whole number", key="top")
        kept = tuple(name for name in dimensions if name not in OVER)
        return cls(kept, over, start, end, _filters(where), top, zone, savings)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of scopes that are asked for."""
        named = {*self.by, *(found.dimension for found in self.where)}
        return frozenset(named - ({*OF_MEMO, "status", *OVER} - {"platform"}))

    @property
    def sums(self) -> BookingSums:
        """How finely the bookings are needed."""
        stretch = 0 if self.over is None else _HOUR if self.over == "hour" else DAY
        # By UTC days too where prices are looked up, which change on them.
        return BookingSums(self.kinds, stretch, self._offset, self.savings)

    def _offset(self, at: int) -> int:
        moment = datetime.fromtimestamp(at / 1000, self.zone)
        offset = (moment.astimezone() if self.zone is None else moment).utcoffset() or timedelta()
        return offset // timedelta(milliseconds=1)

    def label(self, at: float) -> str:
        """The name of the stretch of ``over`` that a moment lies in, such as ``2026-11-26`` or ``2026-11-26 15:00``."""
        local = datetime.fromtimestamp(at, self.zone)
        if self.over == "hour":
            return f"{local:%Y-%m-%d %H:00}"
        if self.over == "month":
            return f"{local:%Y-%m}"
        if self.over == "week":
            year, week, _ = local.isocalendar()
            return f"{year}-W{week:02}"
        return f"{local:%Y-%m-%d}"


def _zone(timezone: str | tzinfo | None) -> tzinfo | None:
    if isinstance(timezone, str) and timezone.strip().lower() == "local":
        return None
    name = read_timezone(timezone)
    return UTC if name == "UTC" else ZoneInfo(name)


def _names(by: str | Iterable[str]) -> list[str]:
    if isinstance(by, str):
        by = by.split(",")
    if isinstance(by, Mapping) or not isinstance(by, Iterable):
        raise ConfigurationError(f"must be dimensions such as 'team,model', not {by!r}", key="by")
    return [part for name in by if (part := name.strip() if isinstance(name, str) else name) != ""]


def _dimension(name: object, key: str) -> str:
    if isinstance(name, str) and _KIND.match(name) and name != "global":
        plural = name.removesuffix("s")
        # Any kind of scope is one; a plural of a known one is a slip.
        if name in DIMENSIONS or plural not in DIMENSIONS:
            return name
        raise UnknownKeyError(f"{key}.{name}", DIMENSIONS)
    known = ", ".join(DIMENSIONS)
    raise ConfigurationError(f"{name!r} is no dimension: {known}, or a kind of scope", key=key)


def _filters(where: Mapping[str, Any] | str | Iterable[str]) -> tuple[Filter, ...]:
    if isinstance(where, Mapping):
        return tuple(
            Filter(_dimension(name, "where"), tuple(map(str, _several(value))), keep=True)
            for name, value in where.items()
        )
    if isinstance(where, str):
        where = [where]
    if not isinstance(where, Iterable):
        raise ConfigurationError(f"must be filters such as {{'tag': 'etl'}} or 'tag=etl', not {where!r}", key="where")
    found = []
    for text in where:
        match = _FILTER.match(text) if isinstance(text, str) else None
        if match is None:
            raise ConfigurationError(f"must be filters such as 'tag=etl' or 'team!=ops', not {text!r}", key="where")
        patterns = tuple(part.strip() for part in match[3].split(","))
        found.append(Filter(_dimension(match[1], "where"), patterns, keep=match[2] != "!="))
    return tuple(found)


def _several(value: object) -> Iterable[object]:
    if value is None:
        return ("",)
    return value if isinstance(value, list | tuple | set | frozenset) else (value,)
