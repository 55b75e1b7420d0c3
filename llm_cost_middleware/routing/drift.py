"""Drift of live calls from those that a learned policy was fitted on.

A policy's promise holds for calls like its labels. Three things are compared: which sites the calls come from, how they
score, and how good their answers are reported to be. Counts only; a policy file carries the reference, ``DriftCounts``
what was seen since. Past the limit the policy is not to be trusted, and the caller falls back to the stronger model.

Sites and scores are compared by the population stability index, for which 0.1 is commonly read as a slight and 0.25 as
a major shift, after what chance alone gives for as many calls is taken off.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log, sqrt
from typing import Any, NamedTuple

from llm_cost_middleware.errors import ConfigurationError

DRIFT_LIMIT = 0.25
"""Stability index past which a policy falls back: the usual reading of a major shift, and not chosen on our data."""
MIN_CALLS = 100
"""Live calls before sites and scores are judged."""
MIN_OUTCOMES = 50
WINDOW = 2_000
"""Calls after which all counts are halved, so that old ones fade."""
_BINS = 10  # of scores
_SITES = 16  # groups of calls told apart; the rest is one more
_SURE = 4.0  # deviations that chance is allowed: it is looked at every few dozen calls
_SURE_OF_OUTCOMES = 3.0
OTHER = "other"


class DriftReference(NamedTuple):
    """What the calls of a fit were like."""

    labels: int
    edges: tuple[float, ...]
    """Scores, out of fold, that cut the labels into tenths."""
    sites: Mapping[str, float]
    """Share of the labels by site or group of sites; the rest counts as other. Empty where labels had no site."""
    promised: float | None = None
    """The least mean quality that was promised; ``None`` where none was reported."""

    @classmethod
    def of(
        cls, scores: Sequence[float], sites: Iterable[tuple[str, Sequence[str]]], promised: float | None
    ) -> DriftReference:
        """Describe the labels of a fit: their scores out of fold, and the site and groups of each."""
        n, ordered = len(scores), sorted(scores)
        edges = tuple(round(ordered[n * cut // _BINS], 6) for cut in range(1, _BINS))
        keys = [(site, *groups) for site, groups in sites]
        shares: dict[str, float] = {}
        for depth in range(max(map(len, keys), default=0)):  # of what no listed site covers, the groups
            rest = [key for key in keys if not any(name in shares for name in key)]
            count = Counter(key[depth] for key in rest if len(key) > depth)
            for name, seen in count.most_common(_SITES - len(shares)):
                if seen * 4 * _SITES >= n:  # a smaller one says nothing
                    shares[name] = seen / n
        return cls(n, edges, shares, promised)

    def bin_of(self, site: str, groups: Sequence[str]) -> str:
        """The listed site or group that a call belongs to, the narrowest first."""
        return next((name for name in (site, *groups) if name in self.sites), OTHER)

    def to_mapping(self) -> dict[str, object]:
        """The entry of a policy file."""
        sites = {name: round(share, 4) for name, share in self.sites.items()}
        return {"labels": self.labels, "edges": list(self.edges), "sites": sites, "promised": self.promised}

    @classmethod
    def read(cls, entry: object) -> DriftReference | None:
        """Read the entry of a policy file; ``None`` where an older version wrote none.

        Raises:
            ConfigurationError: It cannot be used.
        """
        if entry is None:
            return None
        try:
            data: Mapping[str, Any] = entry  # type: ignore[assignment]  # what else it may be raises below
            promised = data["promised"]
            sites = {str(name): float(share) for name, share in data["sites"].items()}
            edges = tuple(float(edge) for edge in data["edges"])
            return cls(int(data["labels"]), edges, sites, None if promised is None else float(promised))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(f"cannot be read: {error!r}", key="policy_file.fitted.drift") from None


@dataclass(slots=True)
class DriftCounts:
    """What was seen of the calls of one policy. Counts fade, so that the present counts most."""

    calls: float = 0
    scores: dict[str, float] = field(default_factory=dict)
    """By tenth of the labels' scores, as text: keys of JSON."""
    sites: dict[str, float] = field(default_factory=dict)
    outcomes: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Reported qualities: their number, their sum, the sum of their squares."""
    reason: str = ""
    """Why the policy fell back; it stays."""

    def observe(self, reference: DriftReference, score: float, site: str, groups: Sequence[str]) -> None:
        """Count a call."""
        self.calls += 1
        _add(self.scores, {str(bisect(reference.edges, score)): 1})
        _add(self.sites, {reference.bin_of(site, groups): 1})

    def outcome(self, quality: float) -> None:
        """Count a reported quality."""
        for place, value in enumerate((1.0, quality, quality * quality)):
            self.outcomes[place] += value

    def add(self, other: DriftCounts) -> None:
        """Add what another process saw."""
        self.calls += other.calls
        _add(self.scores, other.scores)
        _add(self.sites, other.sites)
        self.outcomes = [one + more for one, more in zip(self.outcomes, other.outcomes, strict=True)]
        self.reason = self.reason or other.reason
        if self.calls >= WINDOW:
            self.calls /= 2
            for counts in (self.scores, self.sites):
                counts.update({name: count / 2 for name, count in counts.items()})
            self.outcomes = [value / 2 for value in self.outcomes]

    def judge(self, reference: DriftReference, limit: float = DRIFT_LIMIT) -> str:
        """Return why the policy is not to be trusted any more; empty where it is."""
        if self.reason or not limit:
            return self.reason
        if self.calls >= MIN_CALLS:
            even = {str(cut): 1 / _BINS for cut in range(_BINS)}
            looked = [("scores", stability(even, self.scores, reference.labels))]
            if reference.sites:
                shares = {**reference.sites, OTHER: max(0.0, 1 - sum(reference.sites.values()))}
                looked.append(("call sites", stability(shares, self.sites, reference.labels)))
            for name, index in looked:
                if index > limit:
                    self.reason = (
                        f"the {name} of its last {self.calls:,.0f} calls are not those of its {reference.labels:,} "
                        f"labels: a stability index of {index:.2f}, past {limit:g}"
                    )
                    return self.reason
        n, total, squares = self.outcomes
        if reference.promised is not None and n >= MIN_OUTCOMES:
            mean = total / n
            error = sqrt(max(squares / n - mean * mean, 0.0) / n)
            if mean + _SURE_OF_OUTCOMES * error < reference.promised:
                self.reason = (
                    f"its answers are rated {mean:.3f} in {n:,.0f} reports, under the promised {reference.promised:.3f}"
                )
        return self.reason

    def dump(self) -> bytes:
        """The counts as a small shared value."""
        return json.dumps(
            [1, self.calls, self.scores, self.sites, self.outcomes, self.reason], separators=(",", ":")
        ).encode()

    @classmethod
    def load(cls, data: bytes | None) -> DriftCounts:
        """Read a shared value; one of another version, or damaged, is as good as none."""
        try:
            version, calls, scores, sites, outcomes, reason = json.loads(data or b"[]")
            if version != 1 or len(outcomes) != len(cls().outcomes):
                return cls()
            tenths, places = ({str(name): float(n) for name, n in each.items()} for each in (scores, sites))
            return cls(float(calls), tenths, places, [float(value) for value in outcomes], str(reason))
        except (ValueError, TypeError, AttributeError):
            return cls()


def _add(counts: dict[str, float], more: Mapping[str, float]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0.0) + count


def stability(expected: Mapping[str, float], seen: Mapping[str, float], labels: int) -> float:
    """Return the stability index of counts against expected shares, less what chance gives for as many.

    Without a shift it is about chi-squared over the number of calls and labels; four deviations of that are allowed.
    """
    calls, bins = sum(seen.values()), len(expected)
    index = 0.0
    for name, share in expected.items():
        was, now = (share * labels + 0.5) / (labels + 0.5 * bins), (seen.get(name, 0) + 0.5) / (calls + 0.5 * bins)
        index += (now - was) * log(now / was)
    free = bins - 1
    return index - (free + _SURE * sqrt(2 * free)) * (1 / calls + 1 / labels)
