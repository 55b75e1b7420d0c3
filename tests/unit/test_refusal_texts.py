"""A refusal for want of money says what would fit, of which budget, until when, and how to go on."""

import copy
import pickle
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from llm_cost_middleware import Budget, BudgetExceededError, Ledger
from llm_cost_middleware.errors import readable
from llm_cost_middleware.testing import FakeClock


def refused(budget, *, spent="0", held="0", wanted="1", scopes=("team:a",)):
    clock = FakeClock(datetime(2026, 11, 26, 15, tzinfo=UTC).timestamp())
    with Ledger.open("memory://", clock=clock) as ledger:
        ledger.set_budget(budget)
        ledger.book(spent, scopes)
        if Decimal(held):
            ledger.reserve(held, scopes)
        with pytest.raises(BudgetExceededError) as caught:
            ledger.reserve(wanted, scopes)
    return caught.value


def test_a_refusal_says_what_fits_of_which_budget_until_when_and_how_to_raise_it():
    error = refused(Budget("team:a", "1.23456", "day"), spent="0.4321", wanted="1.5")
    assert str(error) == (
        "budget of team:a a day exceeded: $0.4321 of $1.234 spent, $1.50 requested, $0.8024 would fit, "
        "resets at 2026-11-27T00:00:00+00:00; to go on, raise it: llm-cost budgets raise team:a DOLLARS --window day"
    )
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own
        assert str(twin) == str(error)
        assert twin.window == "day"


def test_where_money_in_flight_would_be_enough_it_says_to_wait():
    assert "max_wait_for_budget_s" in str(refused(Budget("global", "1"), held="0.9", wanted="0.5"))
    assert "max_wait_for_budget_s" not in str(refused(Budget("global", "1"), held="0.9", wanted="5"))
    assert "--window" not in str(refused(Budget("global", "1"), wanted="5"))


@pytest.mark.parametrize(
    "budget",
    [
        Budget("team:a", "1", "7d", warn_at=0.5, reserve={"tag:checkout": "0.25"}),
        Budget("team:*", "1", "7d", warn_at=0.5),
        Budget("team:a", "1", carry_over=False),
    ],
    ids=["its own", "a template", "endless"],
)
def test_the_command_in_a_refusal_raises_that_budget_and_keeps_what_else_it_has(budget, tmp_path):
    from typer.testing import CliRunner

    from llm_cost_middleware.cli.app import app

    url = f"sqlite:///{tmp_path / 'x.db'}"
    with Ledger.open(url) as ledger:
        ledger.set_budget(budget)
        said = []
        for _ in range(2):  # told again, from what the storage has kept, it is the same
            with pytest.raises(BudgetExceededError) as caught:
                ledger.reserve("2", ["team:a"], id="one")
            said.append(str(caught.value))
        assert len(set(said)) == 1
        command = said[0].partition("llm-cost ")[2].replace("DOLLARS", "3").split()
        done = CliRunner().invoke(app, [*command, "--ledger", url])
        assert done.exit_code == 0, done.output
        assert ledger.reserve("2", ["team:a"]).amount == 2
        (stands,) = [life.budget for life in ledger.budget_lives() if life.budget.scope == "team:a"]
        assert stands.limit == 3
        if budget.scope == "team:a":
            assert (stands.warn_at, stands.shares) == (budget.warn_at, budget.shares)


def test_limits_that_are_no_budget_are_named_as_what_they_are():
    one = BudgetExceededError(Decimal(0), Decimal("0.02"), scope="call", requested=Decimal("0.0312345"))
    assert str(one) == "max_cost of the call exceeded: $0.00 of $0.02 spent, $0.03124 requested, $0.02 would fit"
    assert "what is left for the batch" in str(BudgetExceededError(Decimal(0), Decimal(1), scope="batch"))
    assert str(BudgetExceededError(Decimal(2), Decimal(1))) == "budget exceeded: $2.00 of $1.00 spent"


@pytest.mark.parametrize(
    ("amount", "down", "up"),
    [
        ("0.0016836", "$0.001683", "$0.001684"),
        ("9.99999", "$9.999", "$10.00"),
        ("12.345", "$12.34", "$12.35"),
        ("0", "$0.00", "$0.00"),
    ],
)
def test_amounts_have_four_digits_that_count_rounded_against_the_call(amount, down, up):
    assert readable(Decimal(amount)) == down
    assert readable(Decimal(amount), up=True) == up
