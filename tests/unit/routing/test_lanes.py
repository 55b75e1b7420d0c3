"""Lanes weighed: expected cost with what fails, time with a way back, and what was learned of both."""

from hypothesis import given
from hypothesis import strategies as st

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.lanes import (
    ASSUMED,
    FLEX_TIMEOUT_S,
    Delay,
    LaneHistory,
    LaneOffer,
    choose_lane,
)

MINI = ModelRef("openai", "gpt-5-mini")
STANDARD = LaneOffer("standard", NanoUSD(1_000_000), ASSUMED["standard"])


def flex(cost=500_000, **more):
    return LaneOffer("flex", NanoUSD(cost), **{"delay": ASSUMED["flex"], **more})


def test_flex_is_chosen_where_it_costs_less_and_leaves_time():
    choice = choose_lane((STANDARD, flex(refused=0.1, lost=0.02)), 600)
    assert (choice.lane, choice.try_s, choice.reserve_s) == ("flex", 540, 60)
    assert [each.rejected for each in choice.candidates] == ["flex is expected to cost less", ""]
    assert choice.candidates[1].expected_nanousd == 570_000  # 0.9 of half, and 0.12 of the whole


def test_a_day_of_patience_waits_no_longer_than_the_guide_says():
    assert choose_lane((STANDARD, flex()), 86_400).try_s == FLEX_TIMEOUT_S


def test_what_costs_as_much_or_is_lost_too_often_stays_standard():
    assert choose_lane((STANDARD, flex(1_000_000)), 600).lane == "standard"
    assert choose_lane((STANDARD, flex(lost=0.6)), 600).lane == "standard"
    assert choose_lane((STANDARD, flex(refused=1.0)), 600).lane == "standard"


def test_why_not_is_said():
    choice = choose_lane((STANDARD, flex(unfit="gpt-4o does not sell flex")), 600)
    assert choice.reason == "standard lane: gpt-4o does not sell flex"
    assert "leaves no time" in choose_lane((STANDARD, flex()), 60).reason


@given(
    patience=st.floats(0.01, 1e6), late=st.floats(0.01, 1e4), usual=st.floats(0.01, 1e4), elapsed=st.floats(0, 1e6),
    refused=st.floats(0, 1), lost=st.floats(0, 1), answers=st.sampled_from([0, 20]),
)  # fmt: skip
def test_a_try_never_eats_the_time_of_the_way_back(patience, late, usual, elapsed, refused, lost, answers):
    standard = STANDARD._replace(delay=Delay(late / 2, late, answers))
    offer = flex(delay=Delay(usual, usual * 3, answers), refused=refused, lost=lost)
    choice = choose_lane((standard, offer), patience)
    if choice.lane == "flex":
        assert 0 < choice.least_s <= choice.left_s(0) + 1e-9
        assert elapsed + choice.left_s(elapsed) + late <= patience + 1e-6 * patience


def test_delays_and_refusals_are_learned_and_capacity_comes_back():
    history = LaneHistory()
    assert history.delay(MINI, "flex") == ASSUMED["flex"]
    for number in range(20):
        history.observe(MINI, "flex", "answered", 10.0 + number, at=0.0)
    assert history.delay(MINI, "flex") == Delay(20.0, 29.0, 20)
    calm, _ = history.shares(MINI, "flex", now=0.0)
    for _ in range(40):
        history.observe(MINI, "flex", "refused", 0.1, at=100.0)
    scarce, _ = history.shares(MINI, "flex", now=100.0)
    later, _ = history.shares(MINI, "flex", now=100.0 + 1_000)
    assert calm < 0.1
    assert scarce > 0.5
    assert later == 0.1
    assert history.delay(MINI, "flex").answers == 20


def test_memory_is_bounded():
    history = LaneHistory()
    for number in range(2_000):
        history.observe(ModelRef("openai", f"m{number}"), "flex", "answered", 1.0, 0.0)
    assert len(history._tries) == 512
