"""Tuning: learn a policy from labels, guarantee the quality they support, and refuse where they support none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from statistics import NormalDist
from types import MappingProxyType

from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.drift import DriftReference
from llm_cost_middleware.routing.learned import ANY_SITE, LearnedPolicy, digest
from llm_cost_middleware.routing.learning.calibration import Calibration, QualityGuarantee, calibrate, gain_over_mixing
from llm_cost_middleware.routing.learning.fitting import cross_scores, design_of, fit, to_policy
from llm_cost_middleware.routing.learning.labels import PairedOutcome
from llm_cost_middleware.routing.policy import RoutingPolicy

# Confidence that prompts tell more than chance. It guards no promise (the calibration does, and counts no luck): it
# keeps out policies that are as good as a draw. At 0.95 few but the lucky label sets pass.
GAIN_CONFIDENCE = 0.8
# With fewer labels the error bars are wider than every gain seen on public data: 100 labels of MMLU reach an APGR of
# 0.51, where 0.5 is chance.
MIN_LABELS = 100


@dataclass(frozen=True, slots=True)
class PolicyScore:
    """Score of a policy on the labels: mean quality as a share of the strong model's, and its cost."""

    quality: float
    quality_low: float
    """Its one-sided lower bound."""
    spend: float
    """The share of the strong model's cost."""


@dataclass(frozen=True, slots=True)
class TuningResult:
    """Result of tuning: a policy, or ``None`` where the labels support none, with the reason in either case."""

    policy: LearnedPolicy | None
    reason: str
    labels: int
    sites: int
    calibration: Calibration | None = None
    current: PolicyScore | None = None
    tuned: PolicyScore | None = None
    saving: tuple[float, float, float] | None = None
    """The share of the strong model's cost that is saved, with its 95 % interval."""


def tune(
    labels: Sequence[PairedOutcome],
    weak: ModelRef,
    strong: ModelRef,
    *,
    current: RoutingPolicy,
    guarantee: QualityGuarantee = QualityGuarantee(),  # noqa: B008  # immutable
    folds: int = 10,
    seed: int = 0,
    log: Mapping[str, float] | None = None,
    rated: bool = True,
) -> TuningResult:
    """Fit, calibrate and assess a learned policy for one pair of models.

    Args:
        labels: Outcomes of both models.
        weak: The cheaper model.
        strong: The stronger one.
        current: The configured policy, which the learned one has to beat.
        guarantee: The quality to keep.
        folds: Each label is scored by a model fitted on the other folds.
        seed: Decides the folds.
        log: ``first`` and ``last``: the times of the logged calls that the labels come from, in seconds since the Unix
            epoch. Kept in the file, so that a replay of these calls is not taken for a test.
        rated: The qualities are reported ones, which those of live calls can be compared with.

    Raises:
        MissingExtraError: The ``learn`` extra is not installed.
    """
    n, sites = len(labels), len({label.site for label in labels})
    if n < MIN_LABELS:
        return TuningResult(
            None, f"{n} labels are too few to tell a gain from chance; {MIN_LABELS} are the least", n, sites
        )
    design = design_of(labels)
    scores = cross_scores(design, folds=folds, seed=seed)
    weak_scores, strong_scores = [label.weak for label in labels], [label.strong for label in labels]
    weak_costs, strong_costs = [label.weak_nanousd for label in labels], [label.strong_nanousd for label in labels]
    quality, confidence, _ = guarantee
    found = calibrate(scores, weak_scores, strong_scores, weak_costs, strong_costs, guarantee)
    threshold = found.chosen.threshold
    z = NormalDist().inv_cdf(confidence)
    tuned = _score_policy(labels, [score >= threshold for score in scores], z)
    now = _score_policy(labels, [_goes_up(current, label) for label in labels], z)
    gain, gain_low = gain_over_mixing(scores, weak_scores, strong_scores, threshold, GAIN_CONFIDENCE)
    refusal = _refusal(found, now, tuned, (gain, gain_low), guarantee)
    saving = _saving(labels, [score >= threshold for score in scores])
    if refusal:
        return TuningResult(None, refusal, n, sites, found, now, tuned, saving)
    policy = to_policy(fit(design, list(range(n))), design, weak, strong, round(threshold, 6))
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
    promised = round(quality * found.strong_quality, 4)
    keys = [] if labels[0].site == ANY_SITE else [(label.site, label.groups) for label in labels]
    fitted["drift"] = DriftReference.of(scores, keys, promised if rated else None).to_mapping()
    if log is not None:
        fitted["log"] = dict(log)
    policy = replace(policy, fitted=MappingProxyType(fitted))
    reason = (
        f"{tuned.quality:.1%} of the strong model's quality (at least {quality:.0%} with {confidence:.0%} confidence) "
        f"at {saving[0]:.0%} saved; {gain:+.1%} quality over sending as many calls there by chance"
    )
    return TuningResult(replace(policy, version=digest(policy)), reason, n, sites, found, now, tuned, saving)


def _goes_up(current: RoutingPolicy, label: PairedOutcome) -> bool:
    """Return whether the configured policy sends a label's call to the stronger model."""
    own = current.for_site(label.site)
    if own.kind == "learned" and own.learned is not None:
        scored = own.learned.score_counts(label.ngrams, label.text_stats, label.site, label.groups)
        if scored is not None:
            return scored.strong
    return own.is_large(label.text_length, label.item_count) or bool(own.floor)


def _score_policy(labels: Sequence[PairedOutcome], up: Sequence[bool], z: float) -> PolicyScore:
    n = len(labels)
    strong = sum(label.strong for label in labels) / n
    got = [label.strong if goes else label.weak for label, goes in zip(labels, up, strict=True)]
    ratio = sum(got) / n / strong if strong else 0.0
    # the error of a ratio of two means (delta method)
    parts = [value - ratio * label.strong for value, label in zip(got, labels, strict=True)]
    error = sqrt(sum(part * part for part in parts) / n / n) / strong if strong else inf
    return PolicyScore(ratio, ratio - z * error, 1 - _saving(labels, up)[0])


def _saving(labels: Sequence[PairedOutcome], up: Sequence[bool]) -> tuple[float, float, float]:
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
    now: PolicyScore,
    tuned: PolicyScore,
    gain: tuple[float, float],
    guarantee: QualityGuarantee,
) -> str:
    """Return why the labels do not support a new policy; empty where they do."""
    quality, confidence, _ = guarantee
    if found.strong_quality <= found.weak_quality:
        return (
            f"the more expensive model is no better here ({found.strong_quality:.1%} against {found.weak_quality:.1%}):"
            " use the cheaper one; the current policy stays"
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
    if gain[1] <= 0:
        return (
            f"choosing by prompt is not better than choosing as many by chance: {gain[0]:+.2%} quality, "
            f"lower bound {gain[1]:+.2%}; the current policy stays"
        )
    if now.quality_low >= quality and now.spend <= tuned.spend:
        return f"the current policy keeps {now.quality:.1%} of the quality for less; it stays"
    return ""
