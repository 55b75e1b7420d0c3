"""Where a budget is going: by the pace of its window so far, to the end of that window."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules.forecast import forecast
from llm_cost_middleware.money import NanoUSD

USD = 10**9


def ms(*moment, zone="UTC"):
    return int(datetime(*moment, tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def test_a_third_of_a_month_tells_the_whole():
    told = forecast(Budget("global", 100, "month"), 100 * USD, 20 * USD, ms(2026, 11, 11))
    assert told.amount_nanousd == NanoUSD(60 * USD)
    assert told.until == ms(2026, 12, 1)
    assert told.exhausted is None


def test_it_says_when_the_limit_is_reached():
    told = forecast(Budget("global", 100, "month"), 100 * USD, 60 * USD, ms(2026, 11, 11))
    assert told.amount_nanousd == 180 * USD
    assert datetime.fromtimestamp(told.exhausted / 1000, UTC) == datetime(2026, 11, 17, 16, tzinfo=UTC)


def test_what_is_spent_is_exhausted_now():
    now = ms(2026, 11, 11)
    assert forecast(Budget("global", 1, "month"), USD, USD, now).exhausted == now
    assert forecast(Budget("global", 0, "month"), 0, 0, now).exhausted == now


def test_a_day_of_23_hours_ends_after_23_hours():
    zone = "Europe/Vienna"
    told = forecast(Budget("global", 1, "day", timezone=zone), 100 * USD, 11 * USD, ms(2026, 3, 29, 12, zone=zone))
    assert told.amount_nanousd == 23 * USD  # eleven hours were over


@pytest.mark.parametrize(
    ("window", "moment"),
    [("none", (2026, 11, 11)), ("3600s", (2026, 11, 11)), ("month", (2026, 11, 1, 10))],
    ids=["endless", "rolling", "begun"],
)
def test_what_cannot_be_told_is_not_told(window, moment):
    assert forecast(Budget("global", 1, window), USD, USD // 2, ms(*moment)) is None
