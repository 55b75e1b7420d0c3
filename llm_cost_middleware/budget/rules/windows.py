"""Which stretch of time a moment falls in: calendar windows in a named time zone, rolling windows in sixtieths."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from llm_cost_middleware.budget.model import LIFETIME, rolling_seconds

FOREVER = 2**53 - 1
"""A time after all others, in milliseconds, exact in a double."""

SLOTS = 60
"""A rolling window is counted in sixtieths; one that is partly inside counts in full."""


class Span(NamedTuple):
    """A window at one moment: money of ``cell`` and of later cells down to ``lo`` counts in it.

    Valid from ``start`` to before ``until`` (ms). A calendar window counts one cell, named by its first second; a
    rolling one counts every slot from ``lo`` on, those of a clock that ran ahead included.
    """

    cell: int
    lo: int
    start: int
    until: int


def locate(window: str, timezone: str, now: int) -> Span:
    """The span of a window that ``now`` (ms) falls in."""
    if window == LIFETIME:
        return Span(0, 0, -FOREVER, FOREVER)
    seconds = rolling_seconds(window)
    if seconds is not None:
        slot = -(-seconds * 1000 // SLOTS)
        cell = now // slot
        lo = (now - seconds * 1000) // slot
        # what counts changes when a slot begins and when one drops out
        until = min((cell + 1) * slot, (lo + 1) * slot + seconds * 1000)
        return Span(cell, lo, max(cell * slot, lo * slot + seconds * 1000), until)
    start, until = _calendar(window, timezone, now // 1000)
    return Span(start, start, start * 1000, until * 1000)


def _calendar(window: str, timezone: str, second: int) -> tuple[int, int]:
    """First second of the calendar window around ``second``, and of the next. Days may have 23 or 25 hours."""
    zone = UTC if timezone == "UTC" else ZoneInfo(timezone)
    local = datetime.fromtimestamp(second, zone)
    if window == "hour":
        offset = int((local.utcoffset() or timedelta()).total_seconds())
        start = second - (second + offset) % 3600
        return start, start + 3600
    day = datetime(local.year, local.month, local.day)  # noqa: DTZ001 - wall time; the zone is put on below
    if window == "week":
        first = day - timedelta(days=day.weekday())
        last = first + timedelta(days=7)
    elif window == "month":
        first = day.replace(day=1)
        last = (first + timedelta(days=32)).replace(day=1)
    else:
        first, last = day, day + timedelta(days=1)
    return int(first.replace(tzinfo=zone).timestamp()), int(last.replace(tzinfo=zone).timestamp())
