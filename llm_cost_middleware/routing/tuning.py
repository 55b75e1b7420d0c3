"""``llm-cost tune``: learn a policy from labels, promise what it can, and refuse where they do not support it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from statistics import NormalDist
from types import MappingProxyType

from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.calibration import Calibration, calibrate, gain_over_mixing
from llm_cost_middleware.routing.fitting import cross_scores, design_of, fit, to_policy
from llm_cost_middleware.routing.labels import Label
from llm_cost_middleware.routing.learned import LearnedPolicy, digest
from llm_cost_middleware.routing.policy import RoutingPolicy, threshold_tier

MIN_LABELS = 100
"""Fewer labels are not looked at: their error bars swallow every gain seen on public data."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a policy does on the labels: mean quality as a share of the strong model's, and its cost."""

    quality: float
    quality_low: float
    """Its one-sided lower bound."""
    spend: float
    """The share of the strong model's cost."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What tuning found. ``policy`` is ``None`` where it refuses, and ``reason`` says why in either case."""

    policy: LearnedPolicy | None
    reason: str
    labels: int
    sites: int
    calibration: Calibration | None = None
    current: Standing | None = None
    tuned: Standing | None = None
    saving: tuple[float, float, float] | None = None
    """The share of the strong model's cost that is saved, with its 95 % interval."""


def tune(
    labels: Sequence[Label],
    weak: ModelRef,
    strong: ModelRef,
    *,
    current: RoutingPolicy,
    quality: float = 0.95,
    confidence: float = 0.95,
    horizon: int | None = None,
    folds: int = 10,
    seed: int = 0,
) -> Tuning:
    """Fit, calibrate and judge a learned policy for one pair of models.

    Args:
        labels: Outcomes of both models.
        weak: The cheaper model.
        strong: The dearer one.
        current: The configured policy, which has to be beaten.
        quality: The share of the strong model's mean quality that is promised.
        confidence: How likely the promise is to be kept, and a gain to be one.
        horizon: For how many calls to come; as many as there are labels by default, 0 for the long run.
        folds: Each label is scored by a model of the other folds.
        seed: Decides the folds.

    Raises:
        MissingExtraError: The ``learn`` extra is not installed.
    """
    n, sites = len(labels), len({label.site for label in labels})
    if n < MIN_LABELS:
        return Tuning(None, f"{n} labels are too few to tell a gain from chance; {MIN_LABELS} are the least", n, sites)
    design = design_of(labels)
    scores = cross_scores(design, folds=folds, seed=seed)
    weak_scores, strong_scores = [label.weak for label in labels], [label.strong for label in labels]
    weak_costs, strong_costs = [label.weak_nanousd for label in labels], [label.strong_nanousd for label in labels]
    found = calibrate(
        scores, weak_scores, strong_scores, weak_costs, strong_costs,
        quality=quality, confidence=confidence, horizon=horizon,
    )  # fmt: skip
    threshold = found.chosen.threshold
    z = NormalDist().inv_cdf(confidence)
    tuned = _standing(labels, [score >= threshold for score in scores], z)
    now = _standing(labels, [_goes_up(current, label) for label in labels], z)
    gain, gain_low = gain_over_mixing(scores, weak_scores, strong_scores, threshold, confidence)
    refusal = _refusal(found, now, tuned, gain, gain_low, quality, confidence)
    saving = _saving(labels, [score >= threshold for score in scores])
    if refusal:
        return Tuning(None, refusal, n, sites, found, now, tuned, saving)
    policy = to_policy(fit(design, design_rows(n)), design, weak, strong, round(threshold, 6))
    fitted = {
        "labels": n,
        "promised_quality": quality,
        "confidence": confidence,
        "weak_quality": round(found.weak_quality, 4),
        "strong_quality": round(found.strong_quality, 4),
        "quality": round(found.chosen.quality, 4),
        "strong_share": round(found.chosen.strong_share, 4),
        "saving": [round(value, 4) for value in saving],
    }
    policy = replace(policy, fitted=MappingProxyType(fitted))
    reason = (
        f"{tuned.quality:.1%} of the strong model's quality (at least {quality:.0%} with {confidence:.0%} confidence) "
        f"at {saving[0]:.0%} saved; {gain:+.1%} quality over sending as many calls there by chance"
    )
    return Tuning(replace(policy, version=digest(policy)), reason, n, sites, found, now, tuned, saving)


def design_rows(n: int) -> list[int]:
    """Every row."""
    return list(range(n))


def _goes_up(current: RoutingPolicy, label: Label) -> bool:
    """Whether the configured policy sends a label's call to the stronger model."""
    own = current.at(label.site)
    if own.kind == "learned" and own.learned is not None:
        scored = own.learned.score_counts(label.grams, label.shape, label.site)
        if scored is not None:
            return scored.score >= scored.threshold
    up = threshold_tier(
        label.text_length, label.item_count, text_threshold=own.text_threshold, item_threshold=own.item_threshold
    )
    return bool(up) or bool(own.floor)


def _standing(labels: Sequence[Label], up: Sequence[bool], z: float) -> Standing:
    n = len(labels)
    strong = sum(label.strong for label in labels) / n
    got = [label.strong if goes else label.weak for label, goes in zip(labels, up, strict=True)]
    ratio = sum(got) / n / strong if strong else 0.0
    parts = [value - ratio * label.strong for value, label in zip(got, labels, strict=True)]
    error = sqrt(sum(part * part for part in parts) / n / n) / strong if strong else inf
    return Standing(ratio, ratio - z * error, 1 - _saving(labels, up)[0])


def _saving(labels: Sequence[Label], up: Sequence[bool]) -> tuple[float, float, float]:
    n = len(labels)
    strong = sum(label.strong_nanousd for label in labels) / n
    if not strong:
        return 0.0, 0.0, 0.0
    paid = [label.strong_nanousd if goes else label.weak_nanousd for label, goes in zip(labels, up, strict=True)]
    ratio = sum(paid) / n / strong
    parts = [cost - ratio * label.strong_nanousd for cost, label in zip(paid, labels, strict=True)]
    error = NormalDist().inv_cdf(0.975) * sqrt(sum(part * part for part in parts) / n / n) / strong
    return 1 - ratio, 1 - ratio - error, 1 - ratio + error


def _refusal(
    found: Calibration,
    now: Standing,
    tuned: Standing,
    gain: float,
    gain_low: float,
    quality: float,
    confidence: float,
) -> str:
    """Why the labels do not support a new policy; empty where they do."""
    if found.strong_quality <= found.weak_quality:
        return (
            f"the dearer model is no better here ({found.strong_quality:.1%} against {found.weak_quality:.1%}): "
            "use the cheaper one; the current policy stays"
        )
    if found.chosen.threshold == inf:
        return (
            f"the cheaper model alone keeps {quality:.0%} of the quality with {confidence:.0%} confidence: "
            "no router is needed; set ceiling to its tier, or promise more"
        )
    if found.chosen.threshold == -inf:
        return (
            f"no threshold keeps {quality:.0%} of the quality with {confidence:.0%} confidence on these labels: "
            "more labels or a smaller promise; the current policy stays"
        )
    if gain_low <= 0:
        return (
            f"choosing by prompt is not better than choosing as many by chance: {gain:+.2%} quality, "
            f"lower bound {gain_low:+.2%}; the current policy stays"
        )
    if now.quality_low >= quality and now.spend <= tuned.spend:
        return f"the current policy keeps {now.quality:.1%} of the quality for less; it stays"
    return ""
