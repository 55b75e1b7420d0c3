"""Windows of time: calendar ones in a named time zone, rolling ones counted in sixtieths."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from llm_cost_middleware.budget.model import LIFETIME, rolling_seconds

FOREVER = 2**53 - 1
"""A time after all others, in milliseconds, exact in a double."""

SLOTS = 60
"""Slots of a rolling window. A slot that is partly inside counts in full: the window is never too short."""


class WindowSpan(NamedTuple):
    """Cells of time that count in a window, valid from ``start`` to before ``until`` (ms).

    A calendar window counts one cell, numbered by its first second. A rolling window counts every slot from
    ``first_cell`` on, later ones than ``cell`` included: another machine's clock may run ahead.
    """

    cell: int
    first_cell: int
    start: int
    until: int


def window_at(window: str, timezone: str, now: int) -> WindowSpan:
    """Return the cells of a window at ``now`` (ms)."""
    if window == LIFETIME:
        return WindowSpan(0, 0, -FOREVER, FOREVER)
    seconds = rolling_seconds(window)
    if seconds is not None:
        slot = -(-seconds * 1000 // SLOTS)
        cell = now // slot
        first_cell = (now - seconds * 1000) // slot
        # the counted slots change when one begins and when one leaves
        until = min((cell + 1) * slot, (first_cell + 1) * slot + seconds * 1000)
        return WindowSpan(cell, first_cell, max(cell * slot, first_cell * slot + seconds * 1000), until)
    start, until = _calendar(window, timezone, now // 1000)
    return WindowSpan(start, start, start * 1000, until * 1000)


def _calendar(window: str, timezone: str, second: int) -> tuple[int, int]:
    """Return the first second of the calendar window around ``second`` and of the next; days have 23 to 25 hours."""
    zone = UTC if timezone == "UTC" else ZoneInfo(timezone)
    local = datetime.fromtimestamp(second, zone)
    if window == "hour":
        # By the offset, not by local fields: the hour that a change of the clock repeats is two windows.
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
