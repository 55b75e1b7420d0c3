"""What each rule of ``[[alerts]]`` finds in a ledger, once, and what it leaves alone."""

from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import get_args

import pytest

from llm_cost_middleware import ConfigurationError, CostConfig, Ledger
from llm_cost_middleware.alerts import AlertConfig
from llm_cost_middleware.alerts.record import digest_of, dump, load
from llm_cost_middleware.alerts.rules import projected
from llm_cost_middleware.alerts.service import AlertService
from llm_cost_middleware.alerts.settings import KINDS, When
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import UnknownKeyError
from llm_cost_middleware.events import BudgetRefused, ModelUnpriced, PolicyDrifted
from llm_cost_middleware.metering import encode_memo
from llm_cost_middleware.metering.refused import REFUSAL, refusal_line
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.overlay import packaged
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
DAY, HOUR = 86_400, 3_600


@pytest.fixture
def clock():
    clock = FakeClock()
    clock.advance(NOON - clock.now())
    return clock


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request, tmp_path, clock):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/ledger.db"
    with Ledger.open(url, clock=clock) as opened:
        yield opened


class Watched:
    """A service without its thread: tests look when they want to."""

    def __init__(self, ledger, clock, *rules):
        self.raised = []
        rules = [AlertConfig(**rule) for rule in rules]
        self.service = AlertService(rules, ledger, Catalogue(), clock, self.raised.append)

    def look(self):
        self.service.look(everything=True)
        found, self.raised[:] = list(self.raised), []
        return found


def test_a_threshold_is_told_once_a_window_with_every_figure(ledger, clock):
    ledger.set_budget(Budget("team:*", 10, "day", warn_at=[0.5, 0.8]))
    watched = Watched(ledger, clock, {"when": "threshold"})
    ledger.book(4, ["team:a"])
    assert watched.look() == []
    ledger.book(2, ["team:a"])
    (alert,) = watched.look()
    assert (alert.kind, alert.scope, alert.window, alert.subject) == ("threshold", "team:a", "day", "0.5")
    assert (alert.limit_nanousd.usd, alert.spent_nanousd.usd, alert.percent) == (10, 6, 60)
    assert alert.resets_at == NOON + 12 * HOUR
    assert "60 % ($6.00 of $10.00)" in alert.text
    assert watched.look() == []
    ledger.book(3, ["team:a"])
    assert [one.subject for one in watched.look()] == ["0.8"]
    clock.advance(DAY)
    assert watched.look() == []
    ledger.book(6, ["team:a"])
    (again,) = watched.look()
    assert again.id != alert.id


def test_a_raised_limit_and_another_share_are_other_alerts(ledger, clock):
    ledger.set_budget(Budget("global", 10, "month"))
    watched = Watched(ledger, clock, {"when": "threshold", "at": "90%"}, {"when": "threshold", "at": [0.5]})
    ledger.book(9)
    assert sorted(one.subject for one in watched.look()) == ["0.5", "0.9"]
    ledger.raise_budget("global", 12, "month")
    assert [one.subject for one in watched.look()] == ["0.5"]


@pytest.mark.parametrize("window", ["none", "3600s"])
def test_windows_without_a_calendar_are_told_once(ledger, clock, window):
    ledger.set_budget(Budget("global", 1, window))
    ledger.book("0.9")
    watched = Watched(ledger, clock, {"when": "threshold"}, {"when": "forecast"})
    (alert,) = watched.look()
    assert (alert.window, alert.resets_at is None) == (window, window == "none")
    clock.advance(60)
    assert watched.look() == []


def test_scopes_narrow_what_is_watched(ledger, clock):
    for scope in ("global", "team:a", "team:b"):
        ledger.set_budget(Budget(scope, 1))
    ledger.book(1, ["team:a", "team:b"])
    every = (("team:a", ["team:a"]), ("team:*", ["team:a", "team:b"]), ("user:x", []), ("global", ["global"]))
    for number, (scope, found) in enumerate(every, 1):
        rule = {"when": "threshold", "scope": scope, "at": number / 10}
        assert [one.scope for one in Watched(ledger, clock, rule).look()] == found


def test_a_forecast_needs_a_tenth_of_the_window_and_is_the_pace_times_the_rest():
    budget = Budget("global", 10, "day")
    at = NOON - 12 * HOUR
    ten, one = NanoUSD(10**10), NanoUSD(10**9)
    assert projected(budget, ten, one, at + 2 * HOUR) is None
    assert projected(budget, ten, one, at + 3 * HOUR) == 8 * 10**9
    assert projected(budget, ten, one, at + 12 * HOUR) == 2 * 10**9
    assert projected(Budget("global", 10), ten, one, at) is None
    assert projected(Budget("global", 10, "86400s"), ten, one, at) is None
    berlin = Budget("global", 10, "day", timezone="Europe/Berlin")
    assert projected(berlin, ten, one, at + 11 * HOUR) == 2 * 10**9  # its day began an hour before


def test_a_budget_that_will_not_last_is_told_before_it_is_spent(ledger, clock):
    ledger.set_budget(Budget("global", 10, "day"))
    watched = Watched(ledger, clock, {"when": "forecast"})
    ledger.book("4.9")
    assert watched.look() == []
    ledger.book("0.2")
    (alert,) = watched.look()
    assert (alert.kind, alert.spent_nanousd.usd, alert.percent) == ("forecast", Decimal("10.2"), 102)
    assert "$5.10 is spent" in alert.text
    assert watched.look() == []


def _spend(ledger, clock, hours, amount, scopes=()):
    for _ in range(hours):
        ledger.book(amount, scopes)
        clock.advance(HOUR)


def test_a_rate_is_compared_with_the_history_of_its_own_scope(ledger, clock):
    watched = Watched(ledger, clock, {"when": "rate", "per": "hour", "scope": "team:*", "times": 3})
    _spend(ledger, clock, 30, "0.10", ["team:a"])
    ledger.book(50, ["team:b"])  # without a history nothing is unusual
    ledger.book("0.29", ["team:a"])
    assert watched.look() == []
    ledger.book("0.05", ["team:a"])
    (alert,) = watched.look()
    assert (alert.scope, alert.window, alert.spent_nanousd.usd) == ("team:a", "hour", Decimal("0.34"))
    assert alert.limit_nanousd.usd == Decimal("0.1")
    assert watched.look() == []
    assert Watched(ledger, clock, {"when": "rate", "per": "hour", "scope": "team:*", "above": "1"}).look() == []


def test_hours_without_a_call_count_in_what_is_usual(ledger, clock):
    watched = Watched(ledger, clock, {"when": "rate", "per": "hour"})
    ledger.book(1)
    clock.advance(24 * HOUR)
    ledger.book("0.13")  # the mean is 1/24
    (alert,) = watched.look()
    assert (alert.scope, alert.limit_nanousd.usd) == ("global", Decimal("0.041666667"))


def test_refusals_are_counted_by_the_scope_whose_budget_refused(ledger, clock):
    watched = Watched(ledger, clock, {"when": "refusal", "count": 2, "per": "hour"})
    target = ModelRef("openai", "gpt-5-mini")
    for number in range(2):
        assert watched.look() == []
        if ledger.blocks:  # of any process, from the journal
            line = refusal_line(
                call_id=f"c{number}", target=target, scopes=("global", "team:a"), scope="team:a", wanted=NanoUSD(5),
                tier="",
            )  # fmt: skip
            ledger.journal.append(REFUSAL, f"c{number}", clock.now(), line)
        watched.service.on_event(BudgetRefused(f"c{number}", clock.now(), str(target), "team:a", NanoUSD(5), True))
    (alert,) = watched.look()
    assert (alert.kind, alert.scope) == ("refusal", "team:a")
    assert "refused 2 calls" in alert.text
    clock.advance(HOUR)
    assert watched.look() == []


def test_what_is_long_over_is_forgotten(ledger, clock):
    ledger.set_budget(Budget("team:a", 1, "day"))
    watched = Watched(ledger, clock, {"when": "threshold"})
    for _ in range(2):
        ledger.book("0.9", ["team:a"])
        assert watched.look()
        clock.advance(41 * DAY)
    assert watched.look() == []
    assert watched.service.record.history() == []


def test_unconfirmed_money_is_told_from_an_amount_on(ledger, clock):
    watched = Watched(ledger, clock, {"when": "unconfirmed", "above": 1}, {"when": "unconfirmed", "scope": "team:*"})
    ledger.book("0.9", ["team:a"], status="unconfirmed")
    ledger.book(5, ["team:a"])
    (alert,) = watched.look()
    assert (alert.scope, alert.spent_nanousd.usd) == ("team:a", Decimal("0.9"))
    ledger.book("0.2", ["team:b"], status="unconfirmed")
    assert {one.scope for one in watched.look()} == {"global", "team:b"}


def _memo(model):
    reading = UsageReport(items=(BilledItem(TokenUsage(uncached_input=5)),), complete=True)
    return encode_memo(call_id="c", attempt=1, target=ModelRef("openai", model), reading=reading)


def test_models_without_a_price_are_told_whether_booked_or_refused(ledger, clock):
    watched = Watched(ledger, clock, {"when": "unpriced"})
    ledger.book(1, memo=_memo("gpt-5-mini"))
    assert watched.look() == []
    ledger.book(1, memo=_memo("gpt-99"), status="estimated")
    ledger.book(0, memo=_memo("gpt-5-nano"), status="unpriced")
    watched.service.on_event(ModelUnpriced("c", clock.now(), "anthropic/claude-99"))
    found = watched.look()
    assert sorted(one.subject for one in found) == ["anthropic/claude-99", "openai/gpt-5-nano", "openai/gpt-99"]
    watched.service.on_event(ModelUnpriced("c", clock.now(), "openai/gpt-99"))
    assert watched.look() == []


def test_drift_is_told_once_a_policy(ledger, clock):
    watched = Watched(ledger, clock, {"when": "drift"})
    for _ in range(2):
        watched.service.on_event(PolicyDrifted("", clock.now(), "learned:1", "scores"))
    (alert,) = watched.look()
    assert "learned:1" in alert.text
    clock.advance(41 * DAY)
    assert watched.look() == []


def test_an_old_price_list_is_told_once_a_week(ledger, clock):
    watched = Watched(ledger, clock, {"when": "old_prices", "older_than_s": "30d"})
    assert watched.look() == []
    clock.advance(40 * DAY)
    (alert,) = watched.look()
    assert f"{datetime.fromtimestamp(packaged().checked, UTC):%Y-%m-%d}" in alert.text
    clock.advance(DAY)
    assert watched.look() == []
    clock.advance(7 * DAY)
    assert len(watched.look()) == 1


def test_nothing_is_told_of_an_empty_ledger(ledger, clock):
    ledger.set_budget(Budget("global", 0, "day"))
    kinds = ("threshold", "forecast", "rate", "refusal", "drift", "unconfirmed", "unpriced")
    assert Watched(ledger, clock, *({"when": kind} for kind in kinds)).look() == []


def test_an_alert_is_written_and_read_back_whole(ledger, clock):
    ledger.set_budget(Budget("global", 10, "day"))
    ledger.book("9.000000001")
    (alert,) = Watched(ledger, clock, {"when": "threshold"}).look()
    assert load(dump(alert)) == alert


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "needs when"), ({"when": "limit"}, "'threshold'"), ({"when": "threshold", "too": "log"}, "did you mean"),
        ({"when": "threshold", "to": []}, "somebody to tell"), ({"when": "threshold", "to": "slack"}, '"log"'),
        ({"when": "threshold", "to": "https://"}, "must be"), ({"when": "threshold", "at": 80}, "write 0.8"),
        ({"when": "threshold", "scope": "team"}, "kind:name"), ({"when": "rate", "times": 1}, "above 1"),
        ({"when": "refusal", "count": 0}, "1 or more"), ({"when": "rate", "above": "much"}, "not a number"),
        ({"when": "old_prices", "older_than_s": "soon"}, "such as"), ("threshold", "list of tables"), ([7], "table"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_meant_is_refused_with_the_right_form(table, said):
    with pytest.raises((ConfigurationError, UnknownKeyError), match=said):
        CostConfig(alerts=[table] if isinstance(table, dict) else table)


def test_no_secret_of_a_target_is_shown():
    rule = AlertConfig("threshold", ["https://hooks.example.com/services/T0/SECRET", "mailto://me:SECRET@example.com"])
    assert "SECRET" not in repr(rule) + repr(CostConfig(alerts=[rule])) + digest_of(rule.to[0])
    with pytest.raises(ConfigurationError) as caught:
        AlertConfig("threshold", "SECRET without a scheme")
    assert "SECRET" not in str(caught.value)


def _other(value):
    """A value that is not the default one."""
    return {str: "team:x", tuple: [0.5], float: 7.0, int: 7}[type(value)]


@pytest.mark.parametrize("name", [item.name for item in fields(AlertConfig) if item.name not in {"when", "to"}])
def test_a_key_that_changes_nothing_of_its_kind_is_refused(name):
    default = next(item.default for item in fields(AlertConfig) if item.name == name)
    given = {"above": "3", "per": "hour"}.get(name) or _other(default)
    took = set()
    for when in get_args(When):
        try:
            CostConfig(alerts=[{"when": when, name: given}])
            took.add(when)
        except ConfigurationError as error:
            assert f"alerts[0].{name}: belongs to {', '.join(KINDS[name])}" in str(error)  # noqa: PT017 - of some kinds
    assert took == set(KINDS[name])
