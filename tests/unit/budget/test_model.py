from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cost_middleware.budget.balance import Balance
from llm_cost_middleware.budget.model import (
    MAX_NANOUSD,
    Budget,
    bounded_nanousd,
    make_scope,
    parse_scope,
    parse_scopes,
    parse_window,
)
from llm_cost_middleware.errors import ConfigurationError, InvalidAmountError, InvalidScopeError
from llm_cost_middleware.money import NanoUSD


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50))
def test_any_name_makes_a_scope_that_reads_as_itself(name):
    scope = make_scope("user", name)
    assert parse_scope(scope) == scope
    assert scope.isascii()
    assert " " not in scope


@given(*[st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)] * 2)
def test_different_names_make_different_scopes(one, other):
    assert (make_scope("user", one) == make_scope("user", other)) == (one == other)


def test_odd_characters_are_percent_encoded_and_plain_ones_are_not():
    assert parse_scope("user:a b") == parse_scope("user:a%20b") == "user:a%20b"
    assert parse_scope("model:anthropic/claude-haiku-4.5") == "model:anthropic/claude-haiku-4.5"
    assert make_scope("user", "100%") == "user:100%25"
    assert parse_scope("user:é") == "user:%C3%A9"


@pytest.mark.parametrize(
    "scope",
    [
        "",
        "user",
        "User:x",
        "9a:x",
        "user:",
        ":x",
        "global:x",
        "user:*",
        "user:" + "x" * 201,
        "user:\ud800",
        "user:%FF",
        7,
    ],
)
def test_what_is_no_scope_is_refused(scope):
    with pytest.raises(InvalidScopeError):
        parse_scope(scope)


def test_the_scopes_of_a_call_start_with_global_and_repeat_nothing():
    assert parse_scopes(["user:a", "global", "user:a"]) == ("global", "user:a")
    assert parse_scopes("user:a") == ("global", "user:a")
    assert parse_scopes(()) == ("global",)


@pytest.mark.parametrize("scopes", [None, [7], [["user:a"]]])
def test_what_is_no_list_of_scopes_is_refused(scopes):
    with pytest.raises(InvalidScopeError):
        parse_scopes(scopes)


@pytest.mark.parametrize("window", ["", "year", "0s", "-5s", "1.5s", "5m", "s", "fortnight", 0, True, ["day"]])
def test_what_is_no_window_is_refused(window):
    with pytest.raises(ConfigurationError):
        parse_window(window)


def test_a_window_has_one_spelling():
    assert parse_window("03600s") == "3600s"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"limit": "-1"}, InvalidAmountError),
        ({"limit": "NaN"}, InvalidAmountError),
        ({"limit": "9007199.3"}, InvalidAmountError),
        ({"scope": "user"}, InvalidScopeError),
        ({"window": "fortnight"}, ConfigurationError),
        ({"scope": "user:1*"}, InvalidScopeError),
        ({"scope": "user:*-eu"}, InvalidScopeError),
        ({"reserve": {"tag:check*": 0.2}}, InvalidScopeError),
        ({"timezone": "Mars/Olympus"}, ConfigurationError),
        ({"timezone": "../etc/passwd"}, ConfigurationError),
        ({"warn_at": 0}, ConfigurationError),
        ({"warn_at": 1.2}, ConfigurationError),
    ],
)
def test_a_budget_that_cannot_be_used_is_refused(fields, error):
    with pytest.raises(error):
        Budget(**{"scope": "global", "limit": "1", **fields})


def test_a_star_in_a_name_is_written_as_an_escape():
    assert Budget("user:a%2Ab", 1).scope == "user:a%2Ab" == make_scope("user", "a*b")


def test_a_budget_rounds_its_limit_down_and_its_warning_up():
    budget = Budget("user:*", "0.0000000019", warn_at=0.8)
    assert (budget.limit_nanousd, budget.warn_nanousd, budget.limit) == (1, 1, Decimal("1e-9"))


def test_amounts_are_bounded():
    assert bounded_nanousd(NanoUSD(MAX_NANOUSD)) == MAX_NANOUSD
    for amount in (NanoUSD(MAX_NANOUSD + 1), 10**20, "-0.1", float("inf")):
        with pytest.raises(InvalidAmountError):
            bounded_nanousd(amount)


def test_a_balance_is_given_in_dollars():
    balance = Balance(NanoUSD(10**9), NanoUSD(7 * 10**8), NanoUSD(5 * 10**8))
    assert (balance.limit, balance.settled, balance.pending) == (Decimal(1), Decimal("0.7"), Decimal("0.5"))
    assert balance.available == Decimal("-0.2")
    assert Balance(None, NanoUSD(1), NanoUSD(0)).available is None
