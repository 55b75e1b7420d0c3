"""Replay of the log under another policy: its bill and its measured quality, without a call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import CallContext, CallRequest
from llm_cost_middleware.routing.decision import EvaluatedCandidate, RoutingDecision
from llm_cost_middleware.routing.decision_log import LoggedCall, QualitySource
from llm_cost_middleware.routing.learning.fitting import cross_scores, design_of
from llm_cost_middleware.routing.learning.labels import labels_from_log
from llm_cost_middleware.routing.learning.replayed_cascade import CascadeReplay
from llm_cost_middleware.routing.learning.survey import rereadable
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.rules import PolicyInput, Rule
from llm_cost_middleware.routing.selection import TierChoice, select_tier, within_bounds

# Conditions of rules whose facts the log does not keep. A policy with one of them is refused: taking the condition for
# unmet would give a figure that looks like an answer.
UNLOGGED = ("tag", "scope", "provider", "max_tokens", "budget_left")

MIN_TO_CROSS_FIT = 20  # labels; with fewer calls of the log the policy was tuned on, nothing can be fitted anew
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


class _LogFacts(NamedTuple):
    """What replaying one call needs of the whole log."""

    cost_ratios: Mapping[str, float]
    quality_means: Mapping[tuple[str, int], float]
    tried: set[tuple[str, int]]
    held_out: Mapping[str, bool]
    cascades: Mapping[RoutingPolicy, CascadeReplay]


class _MeasuredCall(NamedTuple):
    logged: LoggedCall
    quality: float | None


def replay(
    logged: Iterable[LoggedCall], policy: RoutingPolicy, source: QualitySource | None = None
) -> list[ReplayedSite]:
    """Replay a log under a policy: one row for each call site, the largest bill first, and last the total.

    Forced and pinned calls stay where they were. Exploration of the new policy is not replayed. A call that a budget
    refused, or that never ended, is none: it has no settlement, where the others have.

    Args:
        logged: The log. It is read several times, and never kept; what can be read only once is.
        policy: The other policy.
        source: Source of quality; ``None``: feedback where there is enough of it.

    Raises:
        ConfigurationError: The policy has a rule on something that the log does not keep.
    """
    for own in (policy, *policy.sites.values()):
        _check_rules(own.rules)
    read = rereadable(logged)
    if any(entry.settlement is not None for entry in read):  # else it is a log of decisions alone
        read = _Those(read, lambda entry: entry.settlement is not None or bool(entry.outcomes))
    source = QualitySource.of(read) if source is None else source
    facts = _facts(read, policy, source)
    total = _Sums("all")
    by_site: dict[str, _Sums] = {}
    for entry in read:
        call = _replayed(_MeasuredCall(entry, source.read(entry)), policy, facts)
        for sums in (total, by_site.setdefault(call.site, _Sums(call.site))):
            sums.add(call)
    rows = [sums.row() for sums in by_site.values()]
    rows.sort(key=lambda row: -row.paid_nanousd)
    return [*rows, total.row()]


def _facts(read: Iterable[LoggedCall], policy: RoutingPolicy, source: QualitySource) -> _LogFacts:
    ratios: dict[str, list[float]] = {}
    seen: dict[tuple[str, int], list[float]] = {}
    for entry in read:
        decision, quality = entry.decision, source.read(entry)
        expected = decision.expected_nanousd
        if entry.settlement is not None and expected:
            _add(ratios.setdefault(decision.site, [0.0, 0.0]), entry.settlement.cost_nanousd, expected)
        if quality is not None:
            _add(seen.setdefault((decision.site, decision.tier), [0.0, 0]), quality, 1)
    cascading = [own for own in (policy, *policy.sites.values()) if own.kind == "cascade"]
    met = {policy.for_site(entry.decision.site) for entry in read} if cascading else set()
    return _LogFacts(
        {site: paid / expected for site, (paid, expected) in ratios.items()},
        _quality_means(seen),
        set(seen),
        held_out_choices(read, policy, source),
        {own: CascadeReplay(own, read) for own in cascading if own in met},
    )


def _add(sums: list[float], *parts: float) -> None:
    for place, part in enumerate(parts):
        sums[place] += part


def held_out_choices(logged: Iterable[LoggedCall], policy: RoutingPolicy, source: QualitySource) -> Mapping[str, bool]:
    """Return how a learned policy would decide on the calls that it was tuned on, had it not seen each of them.

    Scored on those very calls it would look better than it is (Chernozhukov et al. 2018, cross-fitting), so models are
    fitted anew, each on the other folds.

    Returns:
        Whether a call goes to the stronger model, by its id; empty where the policy was tuned on other calls.

    Raises:
        MissingExtraError: The ``learn`` extra is not installed.
    """
    choices: dict[str, bool] = {}
    for own in (policy, *policy.sites.values()):
        learned = own.learned if own.kind == "learned" else None
        seen = learned.fitted.get("log") if learned is not None else None
        if learned is None or not isinstance(seen, Mapping):
            continue
        tuned_on = _Those(logged, partial(_is_between, float(seen["first"]), float(seen["last"])))
        found = labels_from_log(tuned_on, learned.weak, learned.strong, source)
        if len(found.labels) >= MIN_TO_CROSS_FIT:
            scores = cross_scores(design_of(found.labels))
            threshold = learned.threshold
            choices |= {id_: score >= threshold for id_, score in zip(found.call_ids, scores, strict=True)}
    return choices


def _is_between(first: float, last: float, entry: LoggedCall) -> bool:
    return first <= entry.decision.at <= last


def choose_again(decision: RoutingDecision, policy: RoutingPolicy) -> TierChoice:
    """Return the tier that a policy would have chosen for a logged decision."""
    own = policy.for_site(decision.site)
    n_tiers = 1 + max((candidate.tier for candidate in decision.candidates), default=0)
    if own.kind == "learned" and own.learned is not None:
        scored = own.learned.score_counts(Counter(decision.ngrams), decision.text_stats, decision.site, decision.groups)
        if scored is not None:
            choice = TierChoice(own.learned.tier_of(scored), scored.score, "replayed", policy="learned")
            return within_bounds(own, choice, n_tiers)
    request = CallRequest("", decision.requested, (), context=CallContext(item_count=decision.features.item_count))
    return select_tier(own, PolicyInput(decision.features, request, decision.site, None, decision.at), n_tiers)


def _replayed(entry: _MeasuredCall, policy: RoutingPolicy, facts: _LogFacts) -> _ReplayedCall:
    decision, quality = entry.logged.decision, entry.quality
    ratios, means, tried = facts.cost_ratios, facts.quality_means, facts.tried
    paid = _paid(entry.logged)
    target, tier = decision.target, decision.tier
    own = policy.for_site(decision.site)
    features = decision.features
    # A cascade that the thresholds lead starts stronger for what is large.
    direct = own.watches_failures and own.is_large(features.text_length, features.item_count)
    if tier >= 0 and not direct and (cascade := facts.cascades.get(own)) is not None:
        return _cascaded(entry, paid, cascade, facts)
    if tier >= 0:  # not forced or pinned
        strong = facts.held_out.get(decision.call_id) if own.learned is not None else None
        if strong is None or own.learned is None:
            tier = choose_again(decision, policy).tier
        else:
            tier = own.learned.strong_tier if strong else own.learned.weak_tier
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


def _cascaded(entry: _MeasuredCall, paid: NanoUSD, cascade: CascadeReplay, facts: _LogFacts) -> _ReplayedCall:
    decision, quality = entry.logged.decision, entry.quality
    call = cascade.call(entry.logged, paid, facts.cost_ratios.get(decision.site, 1.0))
    robust = None
    means, weak = facts.quality_means, min((c.tier for c in decision.eligible), default=0)
    if quality is not None:
        overall = means["", -1]
        stronger = [tier for site, tier in means if site == decision.site and tier > weak]
        strong = means[decision.site, min(stronger)] if stronger else overall
        # what an escalated call was rated is the stronger model's answer; the cheap one's own was of no use
        answered = quality if not call.escalated or _answered_above(entry.logged, weak) else strong
        robust = (1 - call.escalated) * means.get((decision.site, weak), overall) + call.escalated * strong
        if call.seen:
            robust += (answered - robust) / decision.propensity
    moved = not call.seen or (call.escalated > 0 and not _answered_above(entry.logged, weak))
    supported = call.seen or (decision.site, weak) in facts.tried
    return _ReplayedCall(decision.site, moved, paid, call.nanousd, quality, robust, supported)


def _answered_above(entry: LoggedCall, tier: int) -> bool:
    """Whether a model of a higher tier answered in the end."""
    answered = entry.settlement.target if entry.settlement is not None else entry.decision.target
    return any(c.target == answered and c.tier > tier for c in entry.decision.candidates)


class _Those:
    """The calls of a log that are wanted, read anew each time."""

    def __init__(self, logged: Iterable[LoggedCall], wanted: Callable[[LoggedCall], bool]) -> None:
        self._logged, self._wanted = rereadable(logged), wanted

    def __iter__(self) -> Iterator[LoggedCall]:
        return filter(self._wanted, self._logged)


class _Mean:
    """A mean and its interval, of values that come one by one (Welford 1962)."""

    __slots__ = ("_mean", "_n", "_squares")

    def __init__(self) -> None:
        self._n, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        self._n += 1
        change = value - self._mean
        self._mean += change / self._n
        self._squares += change * (value - self._mean)

    def estimate(self) -> Estimate | None:
        """``None`` where there was no value."""
        if not self._n:
            return None
        error = _Z * sqrt(self._squares / max(self._n - 1, 1) / self._n)
        return Estimate(self._mean, self._mean - error, self._mean + error)


class _Sums:
    """What the row of a site is made of."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._calls = self._moved = self._paid = self._measured = self._unsupported = 0
        self._after, self._before_quality, self._after_quality = _Mean(), _Mean(), _Mean()

    def add(self, call: _ReplayedCall) -> None:
        self._calls += 1
        self._moved += call.moved
        self._paid += call.paid
        self._after.add(call.after)
        if call.quality is not None and call.robust is not None:
            self._measured += 1
            self._unsupported += not call.supported
            self._before_quality.add(call.quality)
            self._after_quality.add(call.robust)

    def row(self) -> ReplayedSite:
        after = self._after.estimate()
        return ReplayedSite(
            site=self._site,
            calls=self._calls,
            moved=self._moved,
            paid_nanousd=NanoUSD(self._paid),
            after_nanousd=Estimate(*(self._calls * part for part in after)) if after else Estimate(0.0, 0.0, 0.0),
            quality_before=self._before_quality.estimate(),
            quality_after=self._after_quality.estimate(),
            unsupported=self._unsupported / self._measured if self._measured else 0.0,
        )


def _cheapest(eligible: Sequence[EvaluatedCandidate], tier: int) -> EvaluatedCandidate:
    return min(eligible, key=lambda c: (c.tier < tier, abs(c.tier - tier), c.expected_nanousd or 0))


def _paid(entry: LoggedCall) -> NanoUSD:
    nano = entry.settlement.cost_nanousd if entry.settlement else entry.decision.expected_nanousd
    return NanoUSD(nano or 0)


def _quality_means(seen: Mapping[tuple[str, int], Sequence[float]]) -> dict[tuple[str, int], float]:
    """Return mean quality by (site, tier), drawn towards the mean of all, which has the key ``("", -1)``.

    Args:
        seen: The sum and the number of what was seen of each.
    """
    calls = sum(n for _, n in seen.values())
    overall = sum(total for total, _ in seen.values()) / calls if calls else 0.5
    means = {key: (total + _PRIOR * overall) / (n + _PRIOR) for key, (total, n) in seen.items()}
    return means | {("", -1): overall}


def _check_rules(rules: Sequence[Rule]) -> None:
    for rule in rules:
        for condition in rule.when:
            if condition.name in UNLOGGED:
                raise ConfigurationError(f"the log does not keep {condition.name}, so a rule on it cannot be replayed")
