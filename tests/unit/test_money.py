"""Money: exact in, exact out, one rounding."""

import pickle
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cost_middleware.errors import BudgetExceededError, InvalidAmountError
from llm_cost_middleware.money import NanoUSD, ceil_nanousd, ceil_picousd, floor_nanousd, format_usd, parse_usd


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1.00", Decimal("1.00")), (1, Decimal(1)), (0.1, Decimal("0.1")), (Decimal("0.25"), Decimal("0.25")),
        (NanoUSD(1), Decimal("0.000000001")), ("1e-9", Decimal("1e-9")),
    ],
)  # fmt: skip
def test_dollars_are_read_exactly(value, expected):
    assert parse_usd(value) == expected


@pytest.mark.parametrize("value", ["NaN", float("nan"), float("inf"), "-inf", "-1", -0.01, "ten", "", None, True, [1]])
def test_what_is_no_amount_is_refused_with_its_name(value):
    with pytest.raises(InvalidAmountError, match=r"limit"):
        parse_usd(value, what="limit")


def test_a_bare_int_means_dollars_and_nano_dollars_are_a_class_of_their_own():
    assert ceil_nanousd(1) == NanoUSD(1_000_000_000)
    assert ceil_nanousd(NanoUSD(1)) == NanoUSD(1)


def test_costs_round_up_and_limits_round_down():
    assert ceil_nanousd("0.0000000001") == 1
    assert floor_nanousd("0.0000000019") == 1
    assert ceil_picousd(1) == 1
    assert ceil_picousd(1_000) == 1
    assert ceil_picousd(1_001) == 2
    assert ceil_picousd(0) == 0


@given(st.integers(min_value=0, max_value=10**18))
def test_nano_dollars_survive_conversion_to_dollars_and_back(nano):
    assert ceil_nanousd(NanoUSD(nano).usd) == floor_nanousd(NanoUSD(nano).usd) == nano


@given(st.integers(min_value=0, max_value=10**24))
def test_the_ceiling_is_under_one_nano_dollar_off(pico):
    assert 0 <= ceil_picousd(pico) * 1000 - pico < 1000


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "$0.00"), (1, "$0.000000001"), (1_500_000_000, "$1.50"), (1_234_567_000_000_000, "$1,234,567.00")],
)
def test_amounts_are_shown_in_dollars(nano, text):
    assert format_usd(NanoUSD(nano)) == text


def test_a_refusal_survives_a_process_border():
    error = BudgetExceededError(Decimal(1), Decimal(2), scope="user:42", requested=Decimal("0.5"))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (again.total_cost, again.budget_limit, again.scope, again.requested) == (1, 2, "user:42", Decimal("0.5"))
    assert str(again) == str(error)
