"""Learned policy: a small file for review, and its inference in plain Python.

One linear model for one pair of models of one application: hashed n-grams, the call site and text statistics give the
*expected gain* of the stronger model; from the threshold on, the call goes there. ``llm-cost tune`` writes the file.
"""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import accumulate, pairwise
from math import isfinite, log, sqrt
from operator import mul
from types import MappingProxyType
from typing import Any, NamedTuple

from llm_cost_middleware.capabilities.arms import parse_arm
from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.complexity import NGRAM_BITS, STAT_NAMES, TextReading, read_text
from llm_cost_middleware.routing.drift import DriftReference
from llm_cost_middleware.routing.features import GROUP_PREFIXES

# Linear, because the field's benchmarks find linear models tied with kNN and with fine-tuned ones, and because it runs
# in a tenth of a millisecond without numpy.
FORMAT = 2  # 1: without groups of sites
ANY_SITE = "*"  # entry of ``sites`` that covers every call: labels without a site were fitted as this

_BUCKETS = 1 << NGRAM_BITS


class Scored(NamedTuple):
    """A text's expected gain by the stronger model, and the threshold of its call site."""

    score: float
    threshold: float

    @property
    def strong(self) -> bool:
        """Whether the call goes to the stronger model."""
        return self.score >= self.threshold


class SiteTerm(NamedTuple):
    """Bias of a call site, and its own threshold where the labels carried one."""

    bias: float
    threshold: float | None = None
    labels: int = 0


_NO_LABELS = SiteTerm(0.0)


@dataclass(frozen=True, slots=True)
class LearnedPolicy:
    """Fitted router for one pair of models. Immutable; ``parse`` and ``dump`` read and write its file."""

    version: str
    """Digest of everything that decides, logged with each decision."""
    weak: ModelRef
    """The cheaper model, or arm."""
    strong: ModelRef
    threshold: float
    intercept: float
    sites: Mapping[str, SiteTerm]
    """Of sites and of their groups: the bias of each is added to those of the groups that it belongs to."""
    stat_weights: tuple[float, ...]
    """Weights of ``complexity.STAT_NAMES``; empty where the labels had no text statistics."""
    weights: Mapping[int, tuple[float, float]] = field(repr=False)
    """N-gram bucket → (weight, rarity). A bucket that is not listed was seen too rarely to count."""
    fitted: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """Labels, quality, confidence, and saving with its interval. For people."""
    weak_tier: int = 0
    strong_tier: int = 1

    @property
    def drift(self) -> DriftReference | None:
        """What its labels were like, for the watch over live calls; ``None`` in files of older versions."""
        return DriftReference.read(self.fitted.get("drift"))

    def score(self, text: str, site: str, groups: Sequence[str] = ()) -> Scored:
        """Score a text at a call site.

        At a site without labels its groups and the text decide, as they do for such sites where the policy is judged.

        Args:
            text: The last user text.
            site: The call's site.
            groups: The groups that the site belongs to, the narrower ones first.
        """
        return self.score_reading(read_text(text), site, groups)

    def score_reading(self, reading: TextReading, site: str, groups: Sequence[str] = ()) -> Scored:
        """As ``score``, of a text that was read already."""
        return self._scored(site, groups, reading.ngrams, reading.stats if self.stat_weights else ())

    def score_counts(
        self, counts: Mapping[int, int], stats: Sequence[float], site: str, groups: Sequence[str] = ()
    ) -> Scored | None:
        """Score a logged text by its hashed n-grams and its statistics; ``None`` where an old log lacks these."""
        return None if self.stat_weights and not stats else self._scored(site, groups, counts, stats)

    def _scored(self, site: str, groups: Sequence[str], counts: Mapping[int, int], stats: Sequence[float]) -> Scored:
        term = self.sites.get(site) or self.sites.get(ANY_SITE) or _NO_LABELS
        bias = term.bias
        for group in groups:
            bias += self.sites.get(group, _NO_LABELS).bias
        dot = norm = 0.0
        get = self.weights.get
        for bucket, count in counts.items():
            entry = get(bucket)
            if entry is not None:
                weight, rarity = entry
                if count > 1:  # sublinear: the tenth repetition of a word matters less than the first
                    often = 1.0 + log(count)
                    weight *= often
                    rarity *= often * often
                dot += weight
                norm += rarity
        score = self.intercept + bias + (dot / sqrt(norm) if norm else 0.0)
        score += sum(map(mul, self.stat_weights, stats))
        return Scored(score, self.threshold if term.threshold is None else term.threshold)

    def tier_of(self, scored: Scored) -> int:
        """Return the tier of the model that a score leads to."""
        return self.strong_tier if scored.strong else self.weak_tier

    def bound_to(self, tiers: Sequence[tuple[str, Sequence[ModelRef]]]) -> LearnedPolicy:
        """Return the policy with its two models found in the configured tiers.

        Raises:
            ConfigurationError: One of the two models it was fitted on is in no tier, or their order is reversed:
                labels of one pair say nothing of another.
        """
        found = [_tier_of(target, tiers) for target in (self.weak, self.strong)]
        if found[0] >= found[1]:
            raise ConfigurationError(
                f"it was fitted on {self.weak} below {self.strong}; the tiers order them otherwise",
                key="routing.policy_file",
            )
        return replace(self, weak_tier=found[0], strong_tier=found[1])

    def dump(self) -> str:
        """Return the policy file: JSON, with the n-gram weights as one compressed line below the parts to review."""
        return json.dumps(_document(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str) -> LearnedPolicy:
        """Read a policy file.

        Raises:
            ConfigurationError: It is not one, or it was written by a newer version, or a value cannot be used;
                ``UnknownKeyError`` for a key that does not exist.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(f"not a policy file: {error}", key="policy_file") from None
        if not isinstance(document, dict):
            raise ConfigurationError("not a policy file: a table is expected", key="policy_file")
        if (found := document.get("format")) not in (1, FORMAT):
            raise ConfigurationError(
                f"has format {found!r}; this version reads 1 to {FORMAT}", key="policy_file.format"
            )
        _check_keys(document, _KEYS, "policy_file")
        try:
            sites = {name: _site(name, entry) for name, entry in document["sites"].items()}
            policy = cls(
                version="",
                weak=_target(document["weak"]),
                strong=_target(document["strong"]),
                threshold=_number(document["threshold"]),
                intercept=_number(document["intercept"]),
                sites=MappingProxyType(sites),
                stat_weights=_stat_weights(document["shape"]),
                weights=MappingProxyType(unpack_weights(document["grams"])),
                fitted=MappingProxyType(dict(document["fitted"])),
            )
        except KeyError as error:
            raise ConfigurationError("is missing", key=f"policy_file.{error.args[0]}") from None
        except (TypeError, ValueError, AttributeError, struct.error, zlib.error) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"not a usable policy file: {error}", key="policy_file") from None
        DriftReference.read(policy.fitted.get("drift"))  # a file that cannot be watched is refused when it is read
        return replace(policy, version=digest(policy))


_KEYS = ("format", "weak", "strong", "fitted", "threshold", "intercept", "sites", "shape", "grams")
_SITE_KEYS = ("bias", "threshold", "labels")


def digest(policy: LearnedPolicy) -> str:
    """Return ten characters that change with anything that decides; the report on the fit does not."""
    document = {key: value for key, value in _document(policy).items() if key != "fitted"}
    return blake2b(json.dumps(document, sort_keys=True).encode(), digest_size=5).hexdigest()


def pack_weights(weights: Mapping[int, tuple[float, float]]) -> str:
    """Return n-gram weights as text: columns of bucket gaps, half-precision weights and rarities; deflated, base64."""
    buckets = sorted(weights)
    count = len(buckets)
    gaps = [b - a for a, b in pairwise([0, *buckets])]
    columns = struct.pack(f"<{count}I", *gaps) + b"".join(
        struct.pack(f"<{count}e", *(weights[bucket][column] for bucket in buckets)) for column in (0, 1)
    )
    return b64encode(zlib.compress(columns, 9)).decode()


def unpack_weights(text: str) -> dict[int, tuple[float, float]]:
    """Read the text of ``pack_weights``. Raises ``ValueError``, ``zlib.error`` or ``struct.error`` on damage."""
    columns = zlib.decompress(b64decode(text, validate=True))
    count = len(columns) // 8
    buckets = accumulate(struct.unpack_from(f"<{count}I", columns))
    values = struct.unpack(f"<{2 * count}e", columns[4 * count :])
    weights = {bucket: (values[row], values[count + row]) for row, bucket in enumerate(buckets)}
    if any(bucket >= _BUCKETS or not isfinite(a) or not b > 0 for bucket, (a, b) in weights.items()):
        raise ValueError("an n-gram weight is out of range")
    return weights


def _document(policy: LearnedPolicy) -> dict[str, object]:
    return {
        # an older version reads what has no groups, too
        "format": FORMAT if any(name.startswith(GROUP_PREFIXES) for name in policy.sites) else 1,
        "weak": str(policy.weak),
        "strong": str(policy.strong),
        "fitted": dict(policy.fitted),
        "threshold": policy.threshold,
        "intercept": policy.intercept,
        "sites": {
            name: {key: value for key, value in term._asdict().items() if value is not None}
            for name, term in policy.sites.items()
        },
        "shape": dict(zip(STAT_NAMES, policy.stat_weights, strict=True)) if policy.stat_weights else {},
        "grams": pack_weights(policy.weights),
    }


def _tier_of(target: ModelRef, tiers: Iterable[tuple[str, Sequence[ModelRef]]]) -> int:
    for index, (_, models) in enumerate(tiers):
        if target in models:
            return index
    raise ConfigurationError(f"it was fitted on {target}, which is in no tier", key="routing.policy_file")


def _check_keys(table: Mapping[str, Any], known: Iterable[str], path: str) -> None:
    for key in table:
        if key not in known:
            raise UnknownKeyError(f"{path}.{key}", known)


def _site(name: str, entry: Mapping[str, Any]) -> SiteTerm:
    _check_keys(entry, _SITE_KEYS, f"policy_file.sites.{name}")
    threshold = entry.get("threshold")
    return SiteTerm(
        _number(entry["bias"]), None if threshold is None else _number(threshold), int(entry.get("labels", 0))
    )


def _stat_weights(table: Mapping[str, Any]) -> tuple[float, ...]:
    _check_keys(table, STAT_NAMES, "policy_file.shape")
    return tuple(_number(table.get(name, 0.0)) for name in STAT_NAMES) if table else ()


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _target(text: str) -> ModelRef:
    return parse_arm(text, "policy_file")
