"""What a page shows: a period, filters and how money is stacked, as they stand in its URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, tzinfo
from glob import escape
from typing import Any

from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.reports import OVER, Query
from llm_cost_middleware.reports.query import Filter

DAYS = 30
"""Days that a page shows where its URL names no period, today included."""
_ONE = ("by", "over", "since", "until", "during", "timezone")
_SEVERAL = ("where", "only")
_MOST_STRETCHES = 750
_LAST = 32_503_680_000.0  # the year 3000: every calendar and time zone is sure of what lies before
_HOUR, _DAY = 3_600.0, 86_400.0
_LENGTHS = {"hour": _HOUR, "day": _DAY, "week": 7 * _DAY, "month": 28 * _DAY}
# Up to so many days a bar stands for an hour, a day, a week; beyond that for a month.
_UP_TO = ((2.1, "hour"), (95.0, "day"), (800.0, "week"))
_STEP = {"hour": 900.0, "day": 6 * _HOUR, "week": _DAY, "month": _DAY}


@dataclass(frozen=True, slots=True)
class View:
    """A period, filters, and by what money is stacked. Times are seconds since the Unix epoch."""

    by: str
    asked: Query
    """The question of the page without a dimension; its ``over`` is the length of a bar."""
    start: float
    """Where the first bar begins: ``asked.since``, or the first booking."""
    end: float
    now: float
    empty: bool
    """Nothing was ever booked."""

    @classmethod
    def read(
        cls,
        given: Mapping[str, Sequence[str]],
        *,
        now: float,
        first: Callable[[], float | None] = lambda: None,
        timezone: str = "local",
    ) -> View:
        """Read the parameters of a URL.

        Args:
            given: ``by``, ``over``, ``since`` (``all``: from the first booking on), ``until``, ``during``, ``timezone``
                as for ``Query.read``; ``where`` (``team=ads,search``) and ``only`` (``team=ads``: exactly this name)
                may be repeated.
            now: The present moment, seconds since the Unix epoch.
            first: The moment of the first booking.
            timezone: Where the URL names none.

        Raises:
            ConfigurationError: A parameter is unknown or its value has no meaning; the message shows the right form.
        """
        for name, values in given.items():
            if name not in {*_ONE, *_SEVERAL}:
                raise UnknownKeyError(name, (*_ONE, *_SEVERAL))
            if name in _ONE and len(values) > 1:
                raise ConfigurationError("stands twice", key=name)
        words = {name: given[name][0].strip() for name in _ONE if given.get(name)}
        one: dict[str, Any] = {name: word for name, word in words.items() if word}
        by = one.pop("by", "model")
        whole = one.get("since") == "all"
        if whole:
            del one["since"]
        one.setdefault("timezone", timezone)
        where = [text for text in given.get("where", ()) if text.strip()]
        query = Query.read(by, **one, where=where, now=lambda: now)
        if len(query.by) != 1:
            raise ConfigurationError("takes one dimension, such as 'team'", key="by")
        for name, moment in (("since", query.since), ("until", query.until)):
            if moment is not None and not 0 <= moment < _LAST:
                raise ConfigurationError("lies before 1970 or after 2999", key=name)
        since, begun = query.since, first()
        if since is None and not whole:
            since = _midnight(now if query.until is None else min(query.until - 1, now), query.zone, DAYS - 1)
            if (
                query.until is None and begun is not None and begun > since
            ):  # a young ledger fills the page all the same
                since = _midnight(begun, query.zone)
        end = now if query.until is None else query.until
        start = since if since is not None else begun
        start = min(start if start is not None else end - _DAY, end)
        over = query.over or _over(end - start)
        filters = (*query.where, *map(_exact, given.get("only", ())))
        return cls(by, replace(query, by=(), over=over, since=since, where=filters), start, end, now, begun is None)

    def query(self) -> Query:
        """The question by the dimension, with a line for each bar."""
        return replace(self.asked, by=(self.by,))

    def query_of_list(self, *, savings: bool) -> Query:
        """The question by the dimension over the whole period."""
        return replace(self.asked, by=(self.by,), over=None, savings=savings)

    def stretches(self) -> list[str]:
        """The names of all bars, those without a booking too.

        Raises:
            ConfigurationError: There are too many to be seen.
        """
        over = str(self.asked.over)
        if (self.end - self.start) / _LENGTHS[over] > _MOST_STRETCHES:
            longer = "a longer one" if over != "month" else "a shorter period"
            raise ConfigurationError(f"more than {_MOST_STRETCHES} bars cannot be seen: choose {longer}", key="over")
        moment, found = self.start, dict[str, None]()
        while moment < self.end:
            found[self.asked.label(moment)] = None
            moment += _STEP[over]
        if self.end > self.start:
            found[self.asked.label(self.end - 0.001)] = None
        return list(found)

    def told(self) -> dict[str, object]:
        """The period and the filters, for people and for the page's form."""
        zone = self.asked.zone
        first, last = (datetime.fromtimestamp(at, zone) for at in (self.start, max(self.end - 0.001, self.start)))
        return {
            "by": self.by,
            "empty": self.empty,
            "over": self.asked.over,
            "overs": OVER,
            "first": f"{first:%Y-%m-%d}",
            "last": f"{last:%Y-%m-%d}",
            "begins": f"{first:%Y-%m-%d %H:%M}",
            "zone": str(zone) if zone is not None else f"local time (UTC{first.astimezone():%z})",
            "made": f"{datetime.fromtimestamp(self.now, zone):%Y-%m-%d %H:%M}",
            "filters": [
                {"dimension": dimension, "names": list(patterns), "keep": keep}
                for dimension, patterns, keep in self.asked.where
            ],
        }


def _midnight(at: float, zone: tzinfo | None, days_before: int = 0) -> float:
    day: date = datetime.fromtimestamp(at, zone).date() - timedelta(days=days_before)
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def _over(seconds: float) -> str:
    return next((over for days, over in _UP_TO if seconds <= days * _DAY), "month")


def _exact(text: str) -> Filter:
    """A filter for one name, whatever characters it has; nothing after the sign: for calls that name none."""
    dimension, sign, name = text.partition("=")
    if not sign:
        raise ConfigurationError(f"must be a dimension and a name such as 'team=ads', not {text!r}", key="only")
    (found,) = Query.read(where={dimension: escape(name)}, now=lambda: 0.0).where
    return found
