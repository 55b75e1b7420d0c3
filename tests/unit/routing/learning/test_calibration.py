from __future__ import annotations

import random
from math import inf

import pytest

from llm_cost_middleware.routing.learning.calibration import QualityGuarantee, calibrate, gain_over_mixing
from llm_cost_middleware.routing.learning.tuning import GAIN_CONFIDENCE


def world(n, *, signal, seed=0, gap=0.3):
    """Scores and outcomes where the strong model gains ``gap`` on average, more so where the score is high."""
    rng = random.Random(seed)
    scores, weak, strong = [], [], []
    for _ in range(n):
        hard = rng.random()
        scores.append(hard if signal else rng.random())
        weak.append(float(rng.random() > 2 * gap * hard))
        strong.append(1.0)
    return scores, weak, strong, [1] * n, [10] * n


def test_the_curve_runs_from_all_strong_to_all_weak():
    found = calibrate(*world(500, signal=True))
    first, last = found.curve[0], found.curve[-1]
    assert (first.strong_share, first.threshold, first.spend) == (1.0, -inf, 1.0)
    assert (last.strong_share, last.threshold, last.spend) == (0.0, inf, 0.1)
    assert first.quality == found.strong_quality
    assert last.quality == pytest.approx(found.weak_quality)


def test_the_error_bar_costs_and_more_labels_make_it_cheaper():
    few, many = (calibrate(*world(n, signal=True)) for n in (400, 20_000))
    for found in (few, many):
        assert found.chosen.spend >= found.naive.spend
        assert found.chosen.margin >= 0
    assert many.chosen.spend - many.naive.spend < few.chosen.spend - few.naive.spend


def test_more_confidence_never_saves_more():
    facts = world(2_000, signal=True)
    costs = [
        calibrate(*facts, QualityGuarantee(confidence=confidence)).chosen.spend
        for confidence in (0.5, 0.8, 0.95, 0.999)
    ]
    assert costs == sorted(costs)


def test_the_long_run_is_cheaper_to_promise_than_the_next_calls():
    facts = world(2_000, signal=True)
    assert (
        calibrate(*facts, QualityGuarantee(horizon=0)).chosen.spend
        <= calibrate(*facts, QualityGuarantee(horizon=100)).chosen.spend
    )


def test_equal_scores_are_never_torn_apart():
    found = calibrate([1.0] * 10 + [0.0] * 10, [0.0] * 10 + [1.0] * 10, [1.0] * 20, [1.0] * 20, [2.0] * 20)
    assert [point.strong_share for point in found.curve] == [1.0, 0.5, 0.0]
    assert found.naive.threshold == 0.5


def heaps(noise, *, low=0.3):
    """Two heaps of scores, of which only the upper one, two fifths of all, gains by the strong model."""
    rng = random.Random(3)
    hard = [number % 5 < 2 for number in range(1_000)]
    scores = [(1.0 if upper else low) + rng.uniform(-noise, noise) for upper in hard]
    return scores, [float(not upper) for upper in hard], [1.0] * 1_000, [1] * 1_000, [3] * 1_000


@pytest.mark.parametrize("quality", [0.8, 0.9, 0.95])
def test_a_cluster_of_scores_is_not_split_where_a_gap_is_near(quality):
    found = calibrate(*heaps(0.1), QualityGuarantee(quality))
    assert found.chosen.strong_share == 0.4
    assert 0.4 < found.chosen.threshold < 0.9
    assert found.naive.strong_share < 0.4


def test_without_a_gap_the_threshold_is_as_cheap_as_is_safe():
    found = calibrate(*heaps(0.4, low=0.9))
    later = found.curve[found.curve.index(found.chosen) + 1]
    assert later.margin < 0 <= found.chosen.margin


def test_a_gap_that_would_cost_most_of_the_saving_is_left_alone():
    scores, *facts = heaps(0.4, low=0.9)
    scores[2] = -9.0  # one odd row: below it all others are one heap
    assert calibrate(scores, *facts).chosen.strong_share < 0.95


def test_where_the_cheap_model_is_as_good_every_call_is_routed_to_it():
    found = calibrate([0.1, 0.2, 0.3] * 50, [1.0] * 150, [1.0] * 150, [1.0] * 150, [2.0] * 150)
    assert found.chosen.threshold == inf
    assert found.saving == 0.5


def test_the_gain_over_mixing_is_distinguished_from_chance():
    scores, weak, strong, *_ = world(4_000, signal=True)
    gain, low = gain_over_mixing(scores, weak, strong, 0.5)
    assert 0 < low < gain
    scores, weak, strong, *_ = world(4_000, signal=False)
    gain, low = gain_over_mixing(scores, weak, strong, 0.5)
    assert low < 0 < low + 0.1
    assert abs(gain) < 0.03


def test_the_promise_is_kept_in_most_fresh_samples():
    kept = 0
    for seed in range(60):
        found = calibrate(*world(600, signal=True, seed=seed), QualityGuarantee(0.9))
        scores, weak, strong, *_ = world(600, signal=True, seed=1_000 + seed)
        got = [s if score >= found.chosen.threshold else w for score, w, s in zip(scores, weak, strong, strict=True)]
        kept += sum(got) >= 0.9 * sum(strong)
    assert kept >= 55


def test_of_few_labels_the_lucky_ones_do_not_pass():
    """Scores that tell nothing: a threshold keeps what a mix of as many calls keeps, whatever the labels show."""
    kept = accepted = 0
    for seed in range(300):
        rng = random.Random(seed)
        scores = [rng.random() for _ in range(300)]
        weak, strong = ([float(rng.random() < good) for _ in scores] for good in (0.5, 0.9))
        found = calibrate(scores, weak, strong, [1] * 300, [10] * 300, QualityGuarantee(0.8, horizon=0))
        _, low = gain_over_mixing(scores, weak, strong, found.chosen.threshold, GAIN_CONFIDENCE)
        if abs(found.chosen.threshold) < inf and low > 0:
            accepted += 1
            kept += 0.5 + 0.4 * found.chosen.strong_share >= 0.8 * 0.9
    assert accepted >= 20
    assert kept / accepted >= 0.95


def test_a_gain_that_is_far_beyond_its_error_is_counted_whole():
    found, more = (calibrate(*world(n, signal=True)) for n in (2_000, 200_000))
    assert abs(found.chosen.strong_share - found.naive.strong_share) > abs(
        more.chosen.strong_share - more.naive.strong_share
    )
    assert more.chosen.strong_share == pytest.approx(more.naive.strong_share, abs=0.02)
