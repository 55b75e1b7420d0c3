"""What the page says of budgets: how far they are, where they go, in the words of their windows."""

import time

import pytest

from llm_cost_middleware import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.dashboard.gauges import gauges
from llm_cost_middleware.testing import FakeClock

NOW = 1_794_830_400.0  # 2026-11-16 12:00 UTC


@pytest.fixture
def strained(ledgers):
    with Ledger.open(ledgers("strained")) as ledger:
        yield {one["scope"]: one for one in gauges(ledger, time.time(), None)["budgets"]}


def test_the_most_used_come_first_and_say_what_is_over(strained):
    assert next(iter(strained)) in {"team:over", "global"}
    assert strained["team:over"]["over"] is True
    assert strained["team:over"]["left_usd"] == "-0.200000000"
    assert strained["team:held-whole"]["over"] is False
    assert (strained["team:held-whole"]["spent"], strained["team:held-whole"]["used"]) == (0.5, 1.0)


def test_a_template_gives_each_name_a_gauge(strained):
    assert strained["user:ann"]["used"] == 0.2
    assert strained["user:ann"]["going"] is None  # a rolling window has no end


def test_a_budget_of_nothing_is_no_division(strained):
    assert (strained["team:none"]["used"], strained["team:none"]["over"]) == (0.0, True)


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ("none", "for all time"), ("hour", "an hour"), ("month", "a month"), ("7d", "in any 7 days"),
        ("24h", "in any day"), ("90s", "in any 90 seconds"), ("5400s", "in any 90 minutes"), ("3600s", "in any hour"),
    ],
)  # fmt: skip
def test_windows_are_said_in_words(window, words):
    with Ledger.open("memory://", clock=FakeClock(NOW)) as ledger:
        ledger.set_budget(Budget("global", 1, window))
        (gauge,) = gauges(ledger, NOW, None)["budgets"]
    assert gauge["window"] == words


def test_half_a_month_tells_the_whole():
    with Ledger.open("memory://", clock=FakeClock(NOW)) as ledger:
        ledger.set_budget(Budget("global", 10, "month"))
        ledger.book("6", [])
        (gauge,) = gauges(ledger, NOW, None)["budgets"]
    assert gauge["forecast_usd"].startswith("11.6")  # in 15.5 of 30 days
    assert gauge["exhausted"].startswith("2026-11-26")
