"""Carry-over of unused money: what may be written, the rule, and what it costs a budget without it."""

from __future__ import annotations

import json

import pytest

from llm_cost_middleware import Budget, BudgetExceededError, ConfigurationError
from llm_cost_middleware.budget.backends.sqlite import ledger_file
from llm_cost_middleware.budget.carry_over import Carry, carry_cap, least_limit, stood_on
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.lifecycle.attribution import AttributionConfig
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock

DAY = 86_400


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (True, True), (False, False), (None, False), ("50%", "50%"), (" 12.50 % ", "12.5%"), ("100%", "100%"),
        ("$20", "$20.00"), ("20 USD", "$20.00"), ("$1,234.5", "$1,234.50"), (NanoUSD(5), "$0.000000005"),
    ],
)  # fmt: skip
def test_a_carry_over_is_all_a_share_or_dollars(written, read):
    budget = Budget("team:a", 100, "month", carry_over=written)
    assert budget.carry_over == read
    assert Budget("team:a", 100, "month", carry_over=read) == budget


@pytest.mark.parametrize("written", ["20", 20, 0.5, "half", "0%", "101%", "$0", "-5%", "$-3", "nan%", "$5%", [], "all"])
def test_anything_else_is_refused_with_the_form(written):
    with pytest.raises(ConfigurationError, match="carry_over"):
        Budget("team:a", 100, "month", carry_over=written)


@pytest.mark.parametrize("window", ["none", "3600s", "7d"])
def test_a_window_that_has_none_before_it_carries_nothing(window):
    with pytest.raises(ConfigurationError, match="hour, day, week or month"):
        Budget("team:a", 100, window, carry_over=True)


def test_the_cap_is_rounded_down_and_the_rest_is_never_negative():
    assert [carry_cap(cap, 7) for cap in (False, True, "50%", "$0.000000005")] == [0, 7, 3, 5]
    assert [Carry(0, 100, 30).unused(*sums) for sums in ((0, 0), (80, 10), (60, 50))] == [30, 10, 0]


def test_the_least_limit_of_a_window_is_what_stood_from_its_beginning():
    stood = stood_on(stood_on(stood_on([], 100, 7), 200, 5), 300, 9)
    assert stood == [[100, 7], [200, 5], [300, 9]]
    found = [least_limit(stood, *span) for span in ((99, 150), (100, 200), (150, 250), (250, 350), (300, 400))]
    assert found == [0, 7, 5, 5, 9]
    assert stood_on(stood, 250, 4)[-1] == [300, 4], "a clock that was set back"
    many = []
    for step in range(100):
        many = stood_on(many, step, step)
    assert least_limit(many, 50, 60) == 0, "what is not remembered carries nothing"


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/l.db"])
def test_a_configuration_s_line_carries_over_and_the_balance_says_so(url, tmp_path):
    clock = FakeClock()
    config = CostConfig.from_mapping(
        {"budgets": [{"scope": "team:a", "limit": 100, "window": "day", "carry_over": "50%"}]}
    )
    with Ledger.open(url.format(tmp_path), clock=clock) as ledger:
        ledger.configure_budgets(config.budgets)
        clock.advance(DAY)
        ledger.book(30, scopes=["team:a"])
        clock.advance(DAY)
        balance = ledger.balance("team:a")
        assert (balance.limit, balance.carried, balance.available) == (150, 50, 150)
        ledger.raise_budget("team:a", 200, "day")
        assert ledger.balance("team:a").limit == 250
        clock.advance(DAY)
        assert ledger.balance("team:a").limit == 250, "the lower limit stood when that day began"


def test_a_scope_that_is_written_by_the_rule_keeps_it():
    rule = AttributionConfig(normalise="case")
    assert rule.budget(Budget("team:Search", 5, "day", carry_over="50%")).carry_over == "50%"


def statements(monkeypatch, tmp_path, name, budget):
    """Count the statements of a call under a budget whose limit is far, and of one that the limit refuses."""
    clock = FakeClock()
    with Ledger.open(f"sqlite:///{tmp_path}/{name}.db", clock=clock) as ledger:
        ledger.set_budget(budget)
        clock.advance(2 * DAY)
        ledger.settle(ledger.reserve(1, ["team:a"]).id, 1)
        seen = []

        def traced(step, write=ledger_file.LedgerFile.write):
            def run(db):
                db.set_trace_callback(seen.append)
                try:
                    return step(db)
                finally:
                    db.set_trace_callback(None)

            return write(ledger.backend._file, run)

        monkeypatch.setattr(ledger.backend._file, "write", traced)
        ledger.settle(ledger.reserve(1, ["team:a"]).id, 1)
        return len(seen)


def test_a_call_runs_the_same_statements_with_and_without_it(monkeypatch, tmp_path):
    plain = statements(monkeypatch, tmp_path, "plain", Budget("team:a", 100, "day"))
    carrying = statements(monkeypatch, tmp_path, "carrying", Budget("team:a", 100, "day", carry_over=True))
    assert plain == carrying
    assert plain > 5, "the trace must see them"


def test_a_document_of_budgets_without_it_has_nothing_of_it(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path}/l.db") as ledger:
        ledger.set_budget("team:a", 100, "day")
        life = json.loads(ledger.backend.register())["budgets"]["team:a day"]
    assert not {"stood", "carry_over"} & life.keys()


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/l.db"])
def test_a_template_carries_nothing_of_a_window_in_which_another_limit_stood(url, tmp_path):
    clock = FakeClock(1_790_000_000)
    with Ledger.open(url.format(tmp_path), clock=clock) as ledger:
        ledger.set_budget(Budget("team:*", 100, "day", carry_over=True))
        ledger.set_budget(Budget("team:a", 10, "day"))
        clock.advance(3 * 86_400)
        ledger.settle(ledger.reserve("10", ["team:a"]).id, "10")
        clock.advance(86_400)
        ledger.remove_budget("team:a", "day")
        for scope, allowed in (("team:a", 100), ("team:b", 200)):
            with pytest.raises(BudgetExceededError):
                ledger.reserve(allowed + 1, [scope])
            ledger.void(ledger.reserve(allowed, [scope]).id)
        clock.advance(2 * 86_400)
        assert ledger.reserve(190, ["team:a"]), "by then the template stood for the whole of a window"
