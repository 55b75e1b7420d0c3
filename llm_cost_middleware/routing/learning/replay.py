"""Replay of the log under another policy: its bill and its measured quality, without a call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import CallContext, CallRequest
from llm_cost_middleware.routing.decision import EvaluatedCandidate, RoutingDecision
from llm_cost_middleware.routing.decision_log import LoggedCall, QualitySource
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.rules import PolicyInput, Rule
from llm_cost_middleware.routing.selection import TierChoice, select_tier, within_bounds

# Conditions of rules whose facts the log does not keep. A policy with one of them is refused: taking the condition for
# unmet would give a figure that looks like an answer.
UNLOGGED = ("tag", "scope", "provider", "max_tokens", "budget_left")

_PRIOR = 10.0  # calls that the overall mean counts for at each site, as in ``fitting.SITE_PRIOR``
_Z = NormalDist().inv_cdf(0.975)


class Estimate(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ReplayedSite:
    """One call site (or all of them) before and after."""

    site: str
    calls: int
    moved: int
    """Calls that would have gone to another model."""
    paid_nanousd: NanoUSD
    """Amount paid."""
    after_nanousd: Estimate
    """Estimated amount in nano-dollars. A call that would have moved counts at its expected cost there, times the ratio
    of actual to expected costs at its site."""
    quality_before: Estimate | None
    quality_after: Estimate | None
    """Doubly robust over the calls with an outcome; ``None`` where no outcome was logged."""
    unsupported: float
    """The share of measured calls whose new tier was never tried at their site: their quality there is a guess."""


class _ReplayedCall(NamedTuple):
    site: str
    moved: bool
    paid: NanoUSD
    after: float
    quality: float | None
    robust: float | None
    supported: bool


class _MeasuredCall(NamedTuple):
    logged: LoggedCall
    quality: float | None


def replay(
    logged: Iterable[LoggedCall], policy: RoutingPolicy, source: QualitySource | None = None
) -> list[ReplayedSite]:
    """Replay a log under a policy: one row for each call site, the largest bill first, and last the total.

    Forced and pinned calls stay where they were. Exploration of the new policy is not replayed.

    Args:
        logged: The log.
        policy: The other policy.
        source: Source of quality; ``None``: feedback where there is enough of it.

    Raises:
        ConfigurationError: The policy has a rule on something that the log does not keep.
    """
    for own in (policy, *policy.sites.values()):
        _check_rules(own.rules)
    read = list(logged)
    quality_of = (QualitySource.of(read) if source is None else source).read
    entries = [_MeasuredCall(entry, quality_of(entry)) for entry in read]
    ratios, means, tried = _cost_ratios(read), _quality_means(entries), _tried(entries)
    calls = [_replayed(entry, policy, ratios, means, tried) for entry in entries]
    by_site: dict[str, list[_ReplayedCall]] = {}
    for call in calls:
        by_site.setdefault(call.site, []).append(call)
    rows = [_summary(site, own) for site, own in by_site.items()]
    rows.sort(key=lambda row: -row.paid_nanousd)
    return [*rows, _summary("all", calls)]


def choose_again(decision: RoutingDecision, policy: RoutingPolicy) -> TierChoice:
    """Return the tier that a policy would have chosen for a logged decision."""
    own = policy.for_site(decision.site)
    n_tiers = 1 + max((candidate.tier for candidate in decision.candidates), default=0)
    if own.kind == "learned" and own.learned is not None:
        scored = own.learned.score_counts(Counter(decision.ngrams), decision.text_stats, decision.site)
        if scored is not None:
            choice = TierChoice(own.learned.tier_of(scored), scored.score, "replayed", policy="learned")
            return within_bounds(own, choice, n_tiers)
    request = CallRequest("", decision.requested, (), context=CallContext(item_count=decision.features.item_count))
    return select_tier(own, PolicyInput(decision.features, request, decision.site, None, decision.at), n_tiers)


def _replayed(
    entry: _MeasuredCall,
    policy: RoutingPolicy,
    ratios: dict[str, float],
    means: dict[tuple[str, int], float],
    tried: set[tuple[str, int]],
) -> _ReplayedCall:
    decision, quality = entry.logged.decision, entry.quality
    paid = _paid(entry.logged)
    target, tier = decision.target, decision.tier
    if tier >= 0:  # not forced or pinned
        tier = choose_again(decision, policy).tier
        if tier != decision.tier:
            chosen = _cheapest(decision.eligible, tier)
            target, tier = chosen.target, chosen.tier
    moved = target != decision.target
    after = float(paid)
    if moved:
        expected = next(c.expected_nanousd for c in decision.candidates if c.target == target)
        after = (expected or 0) * ratios.get(decision.site, 1.0)
    robust = None
    if quality is not None:  # doubly robust: the mean, corrected by the outcome where the tier stays the same
        robust = means[decision.site, tier] if (decision.site, tier) in means else means["", -1]
        if tier == decision.tier:
            robust += (quality - robust) / decision.propensity
    supported = tier == decision.tier or (decision.site, tier) in tried
    return _ReplayedCall(decision.site, moved, paid, after, quality, robust, supported)


def _summary(site: str, calls: Sequence[_ReplayedCall]) -> ReplayedSite:
    measured = [call for call in calls if call.quality is not None and call.robust is not None]
    total = _mean([call.after for call in calls])
    return ReplayedSite(
        site=site,
        calls=len(calls),
        moved=sum(call.moved for call in calls),
        paid_nanousd=NanoUSD(sum(call.paid for call in calls)),
        after_nanousd=Estimate(*(len(calls) * part for part in total)) if total else Estimate(0.0, 0.0, 0.0),
        quality_before=_mean([call.quality for call in measured if call.quality is not None]),
        quality_after=_mean([call.robust for call in measured if call.robust is not None]),
        unsupported=sum(not call.supported for call in measured) / len(measured) if measured else 0.0,
    )


def _mean(values: Sequence[float]) -> Estimate | None:
    if not values:
        return None
    n = len(values)
    mean = sum(values) / n
    error = _Z * sqrt(sum((value - mean) ** 2 for value in values) / max(n - 1, 1) / n)
    return Estimate(mean, mean - error, mean + error)


def _cheapest(eligible: Sequence[EvaluatedCandidate], tier: int) -> EvaluatedCandidate:
    return min(eligible, key=lambda c: (c.tier < tier, abs(c.tier - tier), c.expected_nanousd or 0))


def _paid(entry: LoggedCall) -> NanoUSD:
    nano = entry.settlement.cost_nanousd if entry.settlement else entry.decision.expected_nanousd
    return NanoUSD(nano or 0)


def _cost_ratios(entries: Sequence[LoggedCall]) -> dict[str, float]:
    """Return the ratio of paid to expected cost by site."""
    sums: dict[str, list[float]] = {}
    for entry in entries:
        expected = entry.decision.expected_nanousd
        if entry.settlement is not None and expected:
            total = sums.setdefault(entry.decision.site, [0.0, 0.0])
            total[0] += entry.settlement.cost_nanousd
            total[1] += expected
    return {site: paid / expected for site, (paid, expected) in sums.items()}


def _quality_means(entries: Sequence[_MeasuredCall]) -> dict[tuple[str, int], float]:
    """Return mean quality by (site, tier), drawn towards the mean of all, which has the key ``("", -1)``."""
    seen: dict[tuple[str, int], list[float]] = {}
    for entry in entries:
        if entry.quality is not None:
            decision = entry.logged.decision
            seen.setdefault((decision.site, decision.tier), []).append(entry.quality)
    every = [value for values in seen.values() for value in values]
    overall = sum(every) / len(every) if every else 0.5
    means = {key: (sum(values) + _PRIOR * overall) / (len(values) + _PRIOR) for key, values in seen.items()}
    return means | {("", -1): overall}


def _tried(entries: Sequence[_MeasuredCall]) -> set[tuple[str, int]]:
    return {(e.logged.decision.site, e.logged.decision.tier) for e in entries if e.quality is not None}


def _check_rules(rules: Sequence[Rule]) -> None:
    for rule in rules:
        for condition in rule.when:
            if condition.name in UNLOGGED:
                raise ConfigurationError(f"the log does not keep {condition.name}, so a rule on it cannot be replayed")
