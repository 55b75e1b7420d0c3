"""A threshold is a promise with an error bar: chosen so that the quality it keeps is safe, not just likely.

Plain Python on scores and outcomes; where the scores came from does not matter, as long as no score was made by a
model that had seen its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import NormalDist, pstdev
from typing import NamedTuple

_GRID = 100
_GAP = 0.5
"""Standard deviations of all scores: rows that lie so far apart are told apart whatever the live calls look like."""
_KEPT = 0.5
"""The share of the saving that lowering a threshold to such a gap has to leave."""


class Point(NamedTuple):
    """One point of the quality-cost curve: calls scored at or above ``threshold`` go to the strong model."""

    threshold: float
    strong_share: float
    quality: float
    """Mean quality, absolute."""
    spend: float
    """What the calls cost, as a share of what they cost at the strong model."""
    margin: float
    """The one-sided bound of (quality - promised quality), at the confidence asked for: safe where it is ≥ 0."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A chosen threshold and what is known of it."""

    chosen: Point
    naive: Point
    """What would have been chosen without an error bar: the cheapest point that reaches the promise on these rows."""
    curve: tuple[Point, ...]
    """From "all strong" to "all weak"."""
    weak_quality: float
    strong_quality: float
    weak_spend: float
    """The share of the strong model's cost that the weak model costs."""

    @property
    def saving(self) -> float:
        """The share of the strong model's cost that the chosen threshold saves."""
        return 1 - self.chosen.spend


def calibrate(
    scores: Sequence[float],
    weak: Sequence[float],
    strong: Sequence[float],
    weak_nanousd: Sequence[int],
    strong_nanousd: Sequence[int],
    *,
    quality: float = 0.95,
    confidence: float = 0.95,
    horizon: int | None = None,
) -> Calibration:
    """Choose the thriftiest threshold whose quality is at least ``quality`` of the strong model's, with confidence.

    Thresholds are tried from the safest (all strong) down, and the first that is not safe ends the search: a fixed
    sequence of tests, so that trying many costs no confidence.

    Where the scores fall into heaps, the threshold is lowered to the gap below the heap that it would cut. The test is
    of a cut among these rows' scores, but the model that is deployed has seen them all, and live calls repeat or bring
    numbers and names: that moves every score a little. In a heap a little is many calls, in a gap it is none.

    Args:
        scores: Expected gains, out of fold.
        weak: The weak model's quality on each row.
        strong: The strong model's quality.
        weak_nanousd: The weak model's cost of each row.
        strong_nanousd: The strong model's cost of each row.
        quality: The share of the strong model's quality that is promised.
        confidence: How likely the promise is to be kept.
        horizon: For how many calls to come the promise is made; as many as there are rows by default. Their own
            chance is part of the error bar. 0 promises the long run only.
    """
    n = len(scores)
    order = sorted(range(n), key=scores.__getitem__, reverse=True)
    z = NormalDist().inv_cdf(confidence)
    ahead = n if horizon is None else horizon
    spread = sqrt(1 / n + (1 / ahead if ahead else 0.0))
    wide = _GAP * pstdev(scores)
    gaps = {count for count in range(1, n) if scores[order[count - 1]] - scores[order[count]] >= wide > 0}
    steps = gaps | {round(n * step / _GRID) for step in range(_GRID + 1)}
    roomy: set[Point] = set()

    total = square = value = 0.0
    cost, all_strong = sum(weak_nanousd), sum(strong_nanousd) or 1
    for row in range(n):
        distance = weak[row] - quality * strong[row]
        total += distance
        square += distance * distance
        value += weak[row]
    curve: list[Point] = []
    for count in range(n + 1):
        if count in steps and _separates(scores, order, count):
            mean = total / n
            margin = mean - z * sqrt(max(square / n - mean * mean, 0.0)) * spread
            point = Point(_threshold(scores, order, count), count / n, value / n, cost / all_strong, margin)
            curve.append(point)
            if count in gaps:
                roomy.add(point)
        if count < n:
            row = order[count]
            before, after = weak[row] - quality * strong[row], (1 - quality) * strong[row]
            total += after - before
            square += after * after - before * before
            value += strong[row] - weak[row]
            cost += strong_nanousd[row] - weak_nanousd[row]
    curve.reverse()
    safe = 0
    while safe + 1 < len(curve) and curve[safe + 1].margin >= 0:
        safe += 1
    chosen = curve[safe]
    if chosen.threshold < inf:
        enough = _KEPT * (1 - chosen.spend)
        chosen = next((p for p in reversed(curve[: safe + 1]) if p in roomy and 1 - p.spend >= enough), chosen)
    strong_mean = sum(strong) / n
    naive = min((p for p in curve if p.quality >= quality * strong_mean), key=lambda p: p.spend, default=curve[0])
    return Calibration(chosen, naive, tuple(curve), sum(weak) / n, strong_mean, curve[-1].spend)


def gain_over_mixing(
    scores: Sequence[float], weak: Sequence[float], strong: Sequence[float], threshold: float, confidence: float = 0.95
) -> tuple[float, float]:
    """How much better a threshold is than sending the same share of calls to the strong model by chance.

    Returns:
        The difference in mean quality, and its one-sided lower bound.
    """
    n = len(scores)
    share = sum(score >= threshold for score in scores) / n
    gap = (sum(strong) - sum(weak)) / n
    parts = [((score >= threshold) - share) * (s - w - gap) for score, w, s in zip(scores, weak, strong, strict=True)]
    mean = sum(parts) / n
    deviation = sqrt(sum((part - mean) ** 2 for part in parts) / n)
    return mean, mean - NormalDist().inv_cdf(confidence) * deviation / sqrt(n)


def _separates(scores: Sequence[float], order: Sequence[int], count: int) -> bool:
    """Whether a threshold can tell the first ``count`` rows from the rest: equal scores cannot be told apart."""
    return count in (0, len(order)) or scores[order[count - 1]] > scores[order[count]]


def _threshold(scores: Sequence[float], order: Sequence[int], count: int) -> float:
    if count == 0:
        return inf
    return -inf if count == len(order) else (scores[order[count - 1]] + scores[order[count]]) / 2
