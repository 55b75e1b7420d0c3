"""Fitting of the linear model of a learned policy. Needs the ``learn`` extra; the fitted policy needs nothing.

Two steps, because most of the signal is which task a prompt belongs to: first each call site's mean gain, drawn
towards that of its group where labels are few, and each group's towards the next wider one; then a ridge regression of
the rest on the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.complexity import NGRAM_BITS
from llm_cost_middleware.routing.learned import LearnedPolicy, SiteTerm
from llm_cost_middleware.routing.learning.labels import PairedOutcome

Matrix = Any
"""A scipy CSR matrix."""
Vector = Any
"""A numpy array."""

# Labels that the overall mean counts for at each site: a site with few labels is not judged by them alone.
SITE_PRIOR = 10.0
# The ridge penalty. Between 3 and 10 nothing changes by more than a hundredth of APGR on public data, and choosing it
# by an inner cross-validation was no better than a constant.
PENALTY = 6.0
# Size of a standardised text statistic beside a text vector of length 1: the statistics are to help, not to decide.
STAT_SCALE = 0.1
# N-grams kept, the most frequent first; more make the policy file larger and no better.
MAX_NGRAMS = 1 << 16
MIN_SEEN = 1  # labels that must contain an n-gram for it to count


class Design(NamedTuple):
    """Labels as matrices, built once and cut into folds by row."""

    counts: Matrix
    """1 + log of how often each kept n-gram occurs."""
    buckets: Vector
    """The bucket of each column."""
    text_stats: Vector
    sites: tuple[str, ...]
    """Sites and groups; last ``""``, which is no group."""
    site_of: Vector
    """The indices into ``sites`` of each row: from its widest group to its site."""
    gain: Vector


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted model, still as arrays."""

    rarity: Vector
    coefficients: Vector
    stat_weights: Vector
    intercept: float
    site_bias: Vector
    site_labels: Vector

    def scores(self, design: Design, rows: Vector) -> Vector:
        """Return the scores of some rows of a design, of the fit or held out."""
        part = _normalised(design.counts[rows], self.rarity)
        text = part @ self.coefficients + design.text_stats[rows] @ self.stat_weights
        return text + self.intercept + self.site_bias[design.site_of[rows]].sum(1)


def design_of(labels: Sequence[PairedOutcome]) -> Design:
    """Turn labels into matrices. Raises ``MissingExtraError`` without the ``learn`` extra."""
    numpy, sparse = _extra()
    rows = [0]
    columns: list[int] = []
    values: list[int] = []
    for label in labels:
        columns.extend(label.ngrams.keys())
        values.extend(label.ngrams.values())
        rows.append(len(columns))
    full = sparse.csr_matrix(
        (1 + numpy.log(numpy.array(values, float)), numpy.array(columns, numpy.int32), rows),
        shape=(len(labels), 1 << NGRAM_BITS),
    )
    seen = numpy.bincount(full.indices, minlength=1 << NGRAM_BITS)
    order = numpy.argsort(-seen, kind="stable")[:MAX_NGRAMS]
    buckets = numpy.sort(order[seen[order] >= MIN_SEEN])
    with_stats = all(label.text_stats for label in labels)
    depth = max((len(label.groups) for label in labels), default=0)
    nested = [(*("",) * (depth - len(label.groups)), *reversed(label.groups), label.site) for label in labels]
    sites = (*sorted({key for row in nested for key in row if key}), "")
    index = {site: number for number, site in enumerate(sites)}
    return Design(
        full[:, buckets],
        buckets,
        numpy.array([label.text_stats for label in labels] if with_stats else numpy.zeros((len(labels), 0))),
        sites,
        numpy.array([[index[key] for key in row] for row in nested]),
        numpy.array([label.strong - label.weak for label in labels], float),
    )


def fit(design: Design, rows: Vector) -> Fit:
    """Fit on some rows of a design."""
    numpy, sparse = _extra()
    gain, site = design.gain[rows], design.site_of[rows]
    mean = float(gain.mean())
    size, rest = len(design.sites), gain - mean
    labels, bias = numpy.zeros(size, int), numpy.zeros(size)
    for column in site.T:  # from wide to narrow, each on what the wider ones leave
        seen = numpy.bincount(column, minlength=size)
        part = numpy.bincount(column, weights=rest, minlength=size) / (seen + SITE_PRIOR)
        part[-1] = 0.0
        rest = rest - part[column]
        labels, bias = labels + seen, bias + part
    part = design.counts[rows]
    seen = numpy.bincount(part.indices, minlength=part.shape[1])
    # as in scikit-learn's smoothed inverse document frequency
    rarity = numpy.where(seen >= MIN_SEEN, numpy.log((1 + len(rows)) / (1 + seen)) + 1, 0.0)
    text = _normalised(part, rarity)
    stats = design.text_stats[rows]
    centre, spread = stats.mean(0), stats.std(0) + 1e-9  # a constant statistic must not divide by zero
    scale = STAT_SCALE / spread
    both = sparse.hstack([text, (stats - centre) * scale]).tocsr()
    ridge = _ridge()(alpha=PENALTY, solver="sparse_cg", tol=1e-2).fit(both, rest)
    split = part.shape[1]
    stat_weights = ridge.coef_[split:] * scale
    intercept = mean + float(ridge.intercept_) - float(centre @ stat_weights)
    return Fit(rarity, ridge.coef_[:split], stat_weights, intercept, bias, labels)


def cross_scores(design: Design, *, folds: int = 10, seed: int = 0) -> list[float]:
    """Return a score for every row by a model that did not see it."""
    numpy, _ = _extra()
    scores = numpy.zeros(len(design.gain))
    order = list(range(len(scores)))
    Random(seed).shuffle(order)  # noqa: S311  # a shuffle of rows, not a secret
    shuffled = numpy.array(order)
    for number in range(folds):
        held_out = shuffled[number::folds]
        others = numpy.setdiff1d(shuffled, held_out)
        scores[held_out] = fit(design, others).scores(design, held_out)
    return [float(score) for score in scores]


def to_policy(fitted: Fit, design: Design, weak: ModelRef, strong: ModelRef, threshold: float) -> LearnedPolicy:
    """Return the fitted model as a policy that plain Python can run."""
    kept = fitted.rarity > 0
    weights = {
        int(bucket): (float(coefficient * rarity), float(rarity * rarity))
        for bucket, coefficient, rarity in zip(
            design.buckets[kept], fitted.coefficients[kept], fitted.rarity[kept], strict=True
        )
    }
    terms = zip(design.sites, fitted.site_bias, fitted.site_labels, strict=True)
    return LearnedPolicy(
        version="",
        weak=weak,
        strong=strong,
        threshold=threshold,
        intercept=round(fitted.intercept, 6),
        sites=MappingProxyType(
            {site: SiteTerm(round(float(bias), 6), None, int(n)) for site, bias, n in terms if site}
        ),
        stat_weights=tuple(round(float(weight), 6) for weight in fitted.stat_weights),
        weights=MappingProxyType(weights),
    )


def _normalised(counts: Matrix, rarity: Vector) -> Matrix:
    numpy, sparse = _extra()
    weighted = counts.multiply(rarity).tocsr()
    length = numpy.sqrt(numpy.asarray(weighted.multiply(weighted).sum(1)).ravel())
    length[length == 0] = 1.0  # a text without a known n-gram scores by its site alone
    return sparse.diags(1 / length) @ weighted


def _extra() -> tuple[Any, Any]:
    """Import numpy and scipy.sparse, which come with scikit-learn."""
    with needed_for("fitting a routing policy"):
        return import_module("numpy"), import_module("scipy.sparse")


def _ridge() -> Any:
    with needed_for("fitting a routing policy"):
        return import_module("sklearn.linear_model").Ridge
