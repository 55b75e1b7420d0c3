"""Moments and periods as people write them: ``yesterday``, ``7d``, ``2026-11``, ``last month``, a ``datetime``.

A moment is seconds since the Unix epoch. A ``tzinfo`` of ``None`` is the machine's own zone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import Any, NamedTuple

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.natural_values import read_number, read_seconds

FORMS = "a datetime, a date, '2026-01-31', '2026-01', or seconds since the Unix epoch"
RELATIVE = "'today', 'yesterday', '7d', 'last month', 'monday'"
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_UNITS = ("day", "week", "month", "quarter", "year")
_WORDS = ("now", "today", "yesterday", *_DAYS, *(f"{which} {name}" for which in ("this", "last") for name in _UNITS))
_LONG = 40
"""Characters from which on a text is no misspelt word."""
_EPOCH = re.compile(r"[0-9]{9,}(?:\.[0-9]+)?\Z")
_MONTH = re.compile(r"(\d{4})-(\d{2})\Z")
_WEEK = re.compile(r"(\d{4})-?w(\d{2})\Z")
_QUARTER = re.compile(r"(\d{4})-?q([1-4])\Z")
_LENGTH = re.compile(r"(?:the )?(?:last |past |-)?(\d+(?:\.\d+)?\s*[a-z]+)(?: ago)?\Z")
_MILLISECONDS = 10**11  # of the year 5138 in seconds, of 1973 in milliseconds


class Period(NamedTuple):
    """A stretch of time from ``start`` to before ``end``, in seconds since the Unix epoch."""

    start: float
    end: float


def read_moment(
    value: object, key: str, *, now: Callable[[], float] | None = None, zone: tzinfo | None, relative: bool = True
) -> float:
    """Return a moment in seconds since the Unix epoch.

    Args:
        value: A ``datetime`` (one without a zone is in ``zone``), a ``date`` (its midnight), a number of seconds since
            the epoch, text (a period means its start), or a ``timedelta`` (so long ago).
        key: The name of the value, for the error.
        now: The present moment, for what is relative to it; without one that is refused.
        zone: The time zone of what names none.
        relative: Take words such as ``yesterday``; false where a price list or a log needs a date.

    Raises:
        ConfigurationError: None of these.
    """
    value = _plain(value)
    ago = now if relative else None
    forms = f"{FORMS}, or {RELATIVE}" if ago else FORMS
    moment: float | None = None
    try:
        if isinstance(value, datetime):
            moment = (value if value.tzinfo else value.replace(tzinfo=zone)).timestamp()
        elif isinstance(value, date):
            moment = datetime(value.year, value.month, value.day, tzinfo=zone).timestamp()
        elif isinstance(value, timedelta):
            moment = ago() - value.total_seconds() if ago else None
        elif isinstance(value, str):
            period = _period(value, ago, zone, key)
            moment = period.start if period else None
        else:
            moment = read_number(value, key, form=forms)
    except (OverflowError, OSError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        moment = None
    if moment is None or not math.isfinite(moment):
        raise ConfigurationError(f"must be {forms}, not {value!r}{_meant(value) if ago else ''}", key=key)
    if abs(moment) >= _MILLISECONDS:
        raise ConfigurationError(f"must be {forms}, not {value!r}: is it in milliseconds?", key=key)
    return moment


def read_period(value: object, key: str, *, now: Callable[[], float], zone: tzinfo | None) -> Period:
    """Return a period: ``yesterday``, ``2026-11``, ``7d`` (until now), a ``date``, a ``timedelta``.

    Raises:
        ConfigurationError: It names none.
    """
    value = _plain(value)
    period: Period | None = None
    if isinstance(value, timedelta):
        period = Period(now() - value.total_seconds(), now())
    elif isinstance(value, date) and not isinstance(value, datetime):
        period = _possible(lambda: _days(value, 1, zone))
    elif isinstance(value, str):
        period = _possible(lambda: _period(value, now, zone, key))
    if period is None or period.start == period.end:
        raise ConfigurationError(
            f"must be a period such as {RELATIVE}, '2026-01' or '2026-01-31', not {value!r}{_meant(value)}", key=key
        )
    return period


def coming_day(text: str, *, now: float, zone: tzinfo | None) -> float | None:
    """Return where a time ends that is told by a day, seconds since the Unix epoch; ``None`` for other texts.

    ``tomorrow`` and ``monday`` are where the next such day begins, as with a date; ``today`` is where today ends.
    """
    word = text.strip().lower()
    today = datetime.fromtimestamp(now, zone).date()
    if word in _DAYS:
        ahead = (_DAYS.index(word) - today.weekday()) % 7 or 7
    elif word in {"today", "tomorrow"}:
        ahead = 1
    else:
        return None
    return _days(today, ahead, zone).end


def _meant(value: object) -> str:
    """The word that was probably meant, as the end of an error."""
    word = " ".join(value.lower().split()) if isinstance(value, str) and len(value) < _LONG else ""
    near = get_close_matches(word, _WORDS, n=1, cutoff=0.75)
    return f"; did you mean {near[0]!r}?" if near else ""


def _possible(read: Callable[[], Period | None]) -> Period | None:
    try:
        return read()
    except ConfigurationError:
        raise
    except (OverflowError, OSError, ValueError):  # beyond the calendar
        return None


def _plain(value: Any) -> Any:
    """A time of numpy's as the standard library's."""
    kind = type(value).__name__
    return value.astype(f"{kind}[us]").item() if kind in {"datetime64", "timedelta64"} else value


def _period(text: str, now: Callable[[], float] | None, zone: tzinfo | None, key: str) -> Period | None:
    word = " ".join(text.strip().lower().split())
    if _EPOCH.match(word):
        return Period(float(word), float(word))
    named = _calendar(word, zone)
    if named is not None or now is None:
        return named
    present = now()
    if word == "now":
        return Period(present, present)
    return _named_day(word, present, zone) or _length(word, text, present, key)


def _named_day(word: str, present: float, zone: tzinfo | None) -> Period | None:
    """A day or a unit of the calendar that is named by where it lies from today."""
    today = datetime.fromtimestamp(present, zone).date()
    if word in {"today", "this day"}:
        return _days(today, 1, zone)
    if word in {"yesterday", "last day"}:
        return _days(today - timedelta(days=1), 1, zone)
    if word in _DAYS or word.removeprefix("last ") in _DAYS:
        back = (today.weekday() - _DAYS.index(word.removeprefix("last "))) % 7
        return _days(today - timedelta(days=back or (7 if word.startswith("last ") else 0)), 1, zone)
    which, _, unit = word.partition(" ")
    if which in {"this", "last"}:
        period = _unit(today, unit, zone)
        if period is not None and which == "last":
            before = datetime.fromtimestamp(period.start, zone).date() - timedelta(days=1)
            return _unit(before, unit, zone)
        return period
    return None


def _length(word: str, text: str, present: float, key: str) -> Period | None:
    length = _LENGTH.match(word)
    if length is None:
        return None
    if re.fullmatch(r"[\d.]+\s*m", length[1]):
        raise ConfigurationError(f"{text!r}: minutes or months? Write '{length[1]}in' or 'last month'", key=key)
    return Period(present - read_seconds(length[1], key), present)


def _calendar(word: str, zone: tzinfo | None) -> Period | None:
    """A period or a moment that is named by its date."""
    if re.fullmatch(r"\d{4}", word):
        return _between(date(int(word), 1, 1), date(int(word) + 1, 1, 1), zone)
    if month := _MONTH.match(word):
        return _unit(date(int(month[1]), int(month[2]), 1), "month", zone)
    if week := _WEEK.match(word):
        return _days(date.fromisocalendar(int(week[1]), int(week[2]), 1), 7, zone)
    if quarter := _QUARTER.match(word):
        return _unit(date(int(quarter[1]), int(quarter[2]) * 3 - 2, 1), "quarter", zone)
    try:
        return _days(date.fromisoformat(word), 1, zone)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(word.upper())
    except ValueError:
        return None
    at = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
    return Period(at, at)


def _unit(day: date, unit: str, zone: tzinfo | None) -> Period | None:
    """The calendar unit around a day."""
    if unit == "week":
        return _days(day - timedelta(days=day.weekday()), 7, zone)
    months = {"month": 1, "quarter": 3, "year": 12}.get(unit)
    if months is None:
        return None
    first = date(day.year, (day.month - 1) // months * months + 1, 1)
    return _between(first, (first + timedelta(days=31 * months)).replace(day=1), zone)


def _days(first: date, days: int, zone: tzinfo | None) -> Period:
    return _between(first, first + timedelta(days=days), zone)


def _between(first: date, after: date, zone: tzinfo | None) -> Period:
    start, end = (datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() for day in (first, after))
    return Period(start, end)
