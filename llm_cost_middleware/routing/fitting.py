"""Fitting the linear model of a learned policy. Needs the ``learn`` extra; what it makes needs nothing.

Two steps, because most of the signal is which task a prompt belongs to: first each call site's mean gain, drawn
towards the overall mean where labels are few; then a ridge regression of what is left on the text.
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
from llm_cost_middleware.routing.complexity import GRAM_BITS
from llm_cost_middleware.routing.labels import Label
from llm_cost_middleware.routing.learned import LearnedPolicy, SiteTerm

Matrix = Any
"""A scipy CSR matrix."""
Vector = Any
"""A numpy array."""

SITE_PRIOR = 10.0
"""Labels' worth of the overall mean that a site starts with."""
PENALTY = 6.0
"""The ridge penalty. Between 3 and 10 nothing changes by more than a hundredth of APGR on public data, and choosing it
by an inner cross-validation was no better than not choosing."""
SHAPE_SCALE = 0.1
"""The size of a standardised shape feature beside a text vector of length 1."""
MAX_GRAMS = 1 << 16
"""N-grams kept, the most frequent first; more make a larger policy file and no better one."""
MIN_SEEN = 1
"""Labels that must hold an n-gram for it to count."""


class Design(NamedTuple):
    """Labels as matrices. Made once, cut into folds by row."""

    counts: Matrix
    """1 + log of how often each kept n-gram occurs."""
    buckets: Vector
    """The bucket of each column."""
    shape: Vector
    sites: tuple[str, ...]
    site_of: Vector
    """The index into ``sites`` of each row."""
    gain: Vector


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted model, still as arrays."""

    rarity: Vector
    coefficients: Vector
    shape: Vector
    intercept: float
    site_bias: Vector
    site_labels: Vector

    def scores(self, design: Design, rows: Vector) -> Vector:
        """The scores of some rows of the design they were, or were not, fitted on."""
        part = _normalised(design.counts[rows], self.rarity)
        text = part @ self.coefficients + design.shape[rows] @ self.shape
        return text + self.intercept + self.site_bias[design.site_of[rows]]


def design_of(labels: Sequence[Label]) -> Design:
    """Turn labels into matrices. Raises ``MissingExtraError`` without the ``learn`` extra."""
    numpy, sparse = _extra()
    rows = [0]
    columns: list[int] = []
    values: list[int] = []
    for label in labels:
        columns.extend(label.grams.keys())
        values.extend(label.grams.values())
        rows.append(len(columns))
    full = sparse.csr_matrix(
        (1 + numpy.log(numpy.array(values, float)), numpy.array(columns, numpy.int32), rows),
        shape=(len(labels), 1 << GRAM_BITS),
    )
    seen = numpy.bincount(full.indices, minlength=1 << GRAM_BITS)
    order = numpy.argsort(-seen, kind="stable")[:MAX_GRAMS]
    buckets = numpy.sort(order[seen[order] >= MIN_SEEN])
    shaped = all(label.shape for label in labels)
    sites = tuple(sorted({label.site for label in labels}))
    index = {site: number for number, site in enumerate(sites)}
    return Design(
        full[:, buckets],
        buckets,
        numpy.array([label.shape for label in labels] if shaped else numpy.zeros((len(labels), 0))),
        sites,
        numpy.array([index[label.site] for label in labels]),
        numpy.array([label.strong - label.weak for label in labels], float),
    )


def fit(design: Design, rows: Vector) -> Fit:
    """Fit on some rows of a design."""
    numpy, sparse = _extra()
    gain, site = design.gain[rows], design.site_of[rows]
    mean = float(gain.mean())
    labels = numpy.bincount(site, minlength=len(design.sites))
    bias = numpy.bincount(site, weights=gain - mean, minlength=len(design.sites)) / (labels + SITE_PRIOR)
    part = design.counts[rows]
    seen = numpy.bincount(part.indices, minlength=part.shape[1])
    rarity = numpy.where(seen >= MIN_SEEN, numpy.log((1 + len(rows)) / (1 + seen)) + 1, 0.0)
    text = _normalised(part, rarity)
    centre, spread = design.shape[rows].mean(0), design.shape[rows].std(0) + 1e-9
    scale = SHAPE_SCALE / spread
    both = sparse.hstack([text, (design.shape[rows] - centre) * scale]).tocsr()
    ridge = _ridge()(alpha=PENALTY, solver="sparse_cg", tol=1e-2).fit(both, gain - mean - bias[site])
    split = part.shape[1]
    shape = ridge.coef_[split:] * scale
    intercept = mean + float(ridge.intercept_) - float(centre @ shape)
    return Fit(rarity, ridge.coef_[:split], shape, intercept, bias, labels)


def cross_scores(design: Design, *, folds: int = 10, seed: int = 0) -> list[float]:
    """A score for every row, each by a model that did not see it."""
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
    """The fitted model as a policy that plain Python can run."""
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
        sites=MappingProxyType({site: SiteTerm(round(float(bias), 6), None, int(n)) for site, bias, n in terms}),
        shape=tuple(round(float(weight), 6) for weight in fitted.shape),
        weights=MappingProxyType(weights),
    )


def _normalised(counts: Matrix, rarity: Vector) -> Matrix:
    numpy, sparse = _extra()
    weighted = counts.multiply(rarity).tocsr()
    length = numpy.sqrt(numpy.asarray(weighted.multiply(weighted).sum(1)).ravel())
    length[length == 0] = 1.0
    return sparse.diags(1 / length) @ weighted


def _extra() -> tuple[Any, Any]:
    """Numpy and scipy.sparse, which come with scikit-learn."""
    with needed_for("fitting a routing policy"):
        return import_module("numpy"), import_module("scipy.sparse")


def _ridge() -> Any:
    with needed_for("fitting a routing policy"):
        return import_module("sklearn.linear_model").Ridge
