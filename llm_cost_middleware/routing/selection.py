"""Selection of a tier by a policy: four kinds, bounds, and exploration."""

from __future__ import annotations

from random import Random

from msgspec import Struct, structs

from llm_cost_middleware.routing.complexity import TextReading, read_text
from llm_cost_middleware.routing.features import Features, last_user_text
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.rules import PolicyInput, first_match
from llm_cost_middleware.sentences import Sentence, text

# Exploration stops below this share of the tightest budget: a random tier may cost more than the chosen one.
MIN_BUDGET_SHARE_TO_EXPLORE = 0.2


class TierChoice(Struct, frozen=True, gc=False):
    """A tier, the reason for it, and the probability with which it was chosen."""

    tier: int
    score: float | None
    told: Sentence
    """The reason."""
    propensity: float = 1.0
    policy: str = "threshold"
    reading: TextReading | None = None
    """The text as it was read to score it."""
    chances: tuple[float, ...] = ()
    """Where exploration drew: the probability of each tier, from the lowest."""

    @property
    def reason(self) -> str:
        """The reason as a text."""
        return text(self.told)


def select_tier(policy: RoutingPolicy, given: PolicyInput, n_tiers: int, rng: Random | None = None) -> TierChoice:
    """Choose a tier for a call.

    Args:
        policy: The policy of the call's site (see ``RoutingPolicy.for_site``).
        given: Facts of the call; only the learned policy looks at the request's text.
        n_tiers: How many tiers there are.
        rng: Source of exploration; ``None`` turns exploration off.
    """
    low, high = _bounds(policy, n_tiers)
    if policy.kind == "threshold":
        choice = _by_threshold(policy, given.features, low)
    else:
        choice = _by_kind(policy, given, low, n_tiers - 1)
    if not low <= choice.tier <= high:
        choice = within_bounds(policy, choice, n_tiers)
    if not (policy.explore and rng and high > low):
        return choice
    affordable = given.budget_left is None or given.budget_left >= MIN_BUDGET_SHARE_TO_EXPLORE
    return _explore(policy, choice, low, high, rng) if affordable else choice


def within_bounds(policy: RoutingPolicy, choice: TierChoice, n_tiers: int) -> TierChoice:
    """Return a choice between the floor and the ceiling of a policy; its reason names the one that moved it."""
    low, high = _bounds(policy, n_tiers)
    tier = min(max(choice.tier, low), high)
    if tier == choice.tier:
        return choice
    bound = "floor" if tier > choice.tier else "ceiling"
    told = ("{}; the {} makes it {}".format, choice.told, bound, policy.tier_name(tier))
    return structs.replace(choice, tier=tier, told=told)


def _bounds(policy: RoutingPolicy, n_tiers: int) -> tuple[int, int]:
    """Return the lowest and highest tier; a floor above the strongest tier means the strongest."""
    top = n_tiers - 1
    if policy.floor is None and policy.ceiling is None:
        return 0, top
    low = min(policy.floor or 0, top)
    return low, max(low, top if policy.ceiling is None else min(policy.ceiling, top))


def _by_kind(policy: RoutingPolicy, given: PolicyInput, low: int, top: int) -> TierChoice:
    told: Sentence
    if policy.watches_failures:
        by_size = _by_threshold(policy, given.features, low)
        request = given.request
        if by_size.tier > low or request.stream or request.size_only:  # a stream is with its caller before it fails
            return by_size
        told = ("{}; stronger if the answer visibly fails".format, by_size.told)
        return structs.replace(by_size, told=told, policy="cascade")
    if policy.kind == "cascade":
        return TierChoice(low, None, "cheap first, stronger if the answer is not accepted", policy="cascade")
    if policy.kind == "learned" and policy.learned is not None:
        fallen = given.fallen_back.get(policy.learned.version)
        reading = read_text(last_user_text(given.request))
        scored = policy.learned.score_reading(reading, given.site, given.groups)
        if fallen:
            told = ("the learned policy has fallen back to the stronger model: {}".format, fallen)
            return TierChoice(policy.learned.strong_tier, scored.score, told, policy="learned", reading=reading)
        gain = "expected gain of the stronger model {:+.3f} {} {:+.3f} at {}".format
        told = (gain, scored.score, "≥" if scored.strong else "<", scored.threshold, given.site)
        return TierChoice(policy.learned.tier_of(scored), scored.score, told, policy="learned", reading=reading)
    if policy.kind == "rules":
        rule = first_match(policy.rules, given)
        if rule is not None:
            return TierChoice(top if rule.tier < 0 else rule.tier, None, ("rule {}".format, rule), policy="rules")
    return _by_threshold(policy, given.features, low)


def _by_threshold(policy: RoutingPolicy, features: Features, low: int) -> TierChoice:
    length, items = features.text_length, features.item_count
    long, many = policy.text_threshold, policy.item_threshold
    by_length, by_items = length / long, items / many
    score = by_length if by_length >= by_items else by_items  # noqa: FURB136 - calling max() costs more
    if length >= long:
        return TierChoice(low + 1, score, ("{:,} characters ≥ {:,}".format, length, long))
    if items >= many:
        return TierChoice(low + 1, score, ("{} ≥ {:,}".format, (_batch, items), many))
    return TierChoice(low, score, (_below, length, long, items, many))


def _below(length: int, text_threshold: int, items: int, item_threshold: int) -> str:
    return f"{length:,} characters < {text_threshold:,} and {_batch(items)} < {item_threshold:,}"


def _batch(items: int) -> str:
    return "1 item" if items == 1 else f"{items:,} items"


def _explore(policy: RoutingPolicy, choice: TierChoice, low: int, high: int, rng: Random) -> TierChoice:
    """Replace a choice by a random tier with probability ``policy.explore``, and note the tier's propensity.

    The chosen tier may be drawn as well, so that every tier has a known probability above zero: without it the
    estimates from the log (``learning.labels``, ``learning.replay``) would be biased.
    """
    arms = high - low + 1
    share = policy.explore / arms
    chances = tuple(
        (share if low <= tier <= high else 0.0) + (1 - policy.explore) * (tier == choice.tier)
        for tier in range(high + 1)
    )
    tier = low + rng.randrange(arms) if rng.random() < policy.explore else choice.tier
    choice = structs.replace(choice, propensity=chances[tier], chances=chances)
    if tier == choice.tier:
        return choice
    return structs.replace(choice, tier=tier, told=("explored, instead of: {}".format, choice.told))
