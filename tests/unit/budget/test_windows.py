"""Windows against an oracle that walks through local time."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules import window_at
from llm_cost_middleware.testing.oracle import same_window

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "America/Havana", "Asia/Kathmandu",
    "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "America/St_Johns",
]  # fmt: skip
# 1980 to 2040: before and after every kind of change of the clocks
MOMENTS = st.integers(315_532_800_000, 2_208_988_800_000)
WINDOWS = st.sampled_from(["hour", "day", "week", "month"])


def at(text, zone="UTC"):
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def utc(ms):
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


@given(MOMENTS, st.sampled_from(ZONES), WINDOWS)
def test_a_window_holds_its_moment_and_ends_where_the_next_begins(now, zone, window):
    span = window_at(window, zone, now)
    assert span.start <= now < span.until
    if window != "hour":  # an hour may be cut short by a change of the clocks
        assert window_at(window, zone, span.until).start == span.until
        assert window_at(window, zone, span.start) == span == window_at(window, zone, span.until - 1)


@given(MOMENTS, st.integers(0, 40 * 86_400_000), st.sampled_from(ZONES), WINDOWS)
def test_two_moments_share_a_window_by_their_local_time(now, later, zone, window):
    other = now + later
    shared = window_at(window, zone, now).cell == window_at(window, zone, other).cell
    assert shared == same_window(Budget("global", 1, window, zone), now, other)


@pytest.mark.parametrize(
    ("window", "zone", "moment", "start", "until"),
    [
        ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),  # 23 hours
        ("day", "Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", "2026-10-25T23:00"),  # 25 hours
        ("day", "America/Sao_Paulo", "2018-11-04T12:00", "2018-11-04T03:00", "2018-11-05T02:00"),  # without a midnight
        ("month", "UTC", "2024-02-29T23:59", "2024-02-01T00:00", "2024-03-01T00:00"),
        ("month", "America/New_York", "2025-12-31T23:59", "2025-12-01T05:00", "2026-01-01T05:00"),
        ("week", "UTC", "2027-01-03T10:00", "2026-12-28T00:00", "2027-01-04T00:00"),  # the Sunday of week 53
        ("hour", "Asia/Kathmandu", "2026-01-01T10:20", "2026-01-01T04:15", "2026-01-01T05:15"),
    ],
)  # fmt: skip
def test_known_windows(window, zone, moment, start, until):
    span = window_at(window, zone, at(moment, zone))
    assert (utc(span.start), utc(span.until)) == (f"{start}:00+00:00", f"{until}:00+00:00")


@given(st.integers(1, 10**6), MOMENTS, st.floats(0, 3))
def test_a_rolling_window_counts_all_of_its_length_and_at_most_a_sixtieth_more(seconds, now, lengths):
    length = seconds * 1000
    then = now - int(lengths * length)
    counted = window_at(f"{seconds}s", "UTC", then).cell >= window_at(f"{seconds}s", "UTC", now).first_cell
    slot = -(-length // 60)
    if now - then <= length:
        assert counted
    if now - then >= length + slot:
        assert not counted


@given(st.integers(1, 10**6), MOMENTS)
def test_a_rolling_span_is_valid_until_what_counts_changes(seconds, now):
    span = window_at(f"{seconds}s", "UTC", now)
    assert span.start <= now < span.until
    for moment in (span.start, span.until - 1):
        other = window_at(f"{seconds}s", "UTC", moment)
        assert (other.cell, other.first_cell) == (span.cell, span.first_cell)
