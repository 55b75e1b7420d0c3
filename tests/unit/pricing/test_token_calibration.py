"""Estimates learned from settled calls."""

from __future__ import annotations

import pytest

from llm_cost_middleware.pricing.token_calibration import TokenCalibration
from llm_cost_middleware.providers.openai.request import read_request
from llm_cost_middleware.request import ModelRef

HERE, THERE = ModelRef("openai", "gpt-5"), ModelRef("openai", "gpt-4o")


def request(size, **more):
    return read_request(
        {"model": "gpt-5", "messages": [{"role": "user", "content": "x" * size}]} | more, "chat.completions"
    )


def test_nothing_is_estimated_before_enough_was_seen():
    calibration = TokenCalibration(warm=3)
    for _ in range(2):
        calibration.learn(HERE, request(952), 250)
        assert calibration.tokens(HERE, request(952)) is None
    calibration.learn(HERE, request(952), 250)
    assert calibration.tokens(HERE, request(952)) == 275, "a quarter of a token a byte, and a tenth on top"
    assert calibration.tokens(THERE, request(952)) is None, "what one model taught says nothing of another"


def test_an_estimate_covers_the_quantile_of_what_was_seen_and_one_outlier_does_not_rule_it():
    calibration = TokenCalibration(quantile=0.9, margin=0, warm=20)
    for tokens in (*range(100, 199), 5_000):
        calibration.learn(HERE, request(952), tokens)
    assert 189 <= calibration.tokens(HERE, request(952)) <= 192


def test_old_entries_are_forgotten():
    calibration = TokenCalibration(margin=0, warm=1)
    calibration.learn(HERE, request(952), 9_000)
    for _ in range(512):
        calibration.learn(HERE, request(952), 100)
    assert calibration.tokens(HERE, request(952)) <= 101


def test_content_that_is_not_text_is_neither_learned_nor_estimated():
    calibration = TokenCalibration(warm=1)
    calibration.learn(HERE, request(10), 100)
    stored = read_request({"model": "gpt-5", "input": "hi", "previous_response_id": "r"}, "responses")
    assert calibration.tokens(HERE, stored) is None
    assert calibration.tokens(HERE, request(10)) is not None


@pytest.mark.parametrize("wrong", [{"quantile": 1}, {"quantile": 0}, {"margin": -1}, {"warm": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="quantile"):
        TokenCalibration(**wrong)
