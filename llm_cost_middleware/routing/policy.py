"""Policies: from features, call site and state to a tier. One contract, four kinds, and overrides per call site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import blake2b
from random import Random
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.money import USD, parse_usd
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.cascade import AcceptBy
from llm_cost_middleware.routing.features import Features, working_text
from llm_cost_middleware.routing.learned import LearnedPolicy, Scored
from llm_cost_middleware.routing.rules import PolicyInput, Rule, first_match, parse_rules

PolicyKind = Literal["threshold", "rules", "learned", "cascade"]
EXPLORE_LEFT = 0.2
"""Exploration stops when less than this share of the tightest budget is left: it is paid for by plenty, not by need."""

TEXT_THRESHOLD = 10_000
ITEM_THRESHOLD = 30


class Tier(NamedTuple):
    """Models of about the same strength, over all providers. Tiers are listed from cheap to strong."""

    name: str
    models: tuple[ModelRef, ...]


class TierChoice(NamedTuple):
    """A tier, how it was arrived at, and how likely it was to be chosen."""

    tier: int
    score: float | None
    reason: str
    propensity: float = 1.0
    policy: str = "threshold"


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """How a tier is chosen.

    Args:
        kind: ``threshold``, ``rules``, ``learned`` or ``cascade``.
        text_threshold: Characters from which the threshold rule goes one tier up.
        item_threshold: Items from which it does.
        policy_file: Where ``learned`` was read from; for reports.
        explore: The share of calls that go to a random tier, so that replay is unbiased. Logged with propensities.
        floor: The lowest tier that may be used, as an index.
        ceiling: The highest tier that may be used, as an index.
        rules: For ``rules``: the first that matches decides; none: the threshold rule.
        sites: Policies of single call sites, by name or glob; the first that matches replaces this policy.
        learned: For ``learned``: the parsed policy file.
        tiers: The names of the tiers, for reasons.
        accept: For ``cascade``: what accepts a cheap answer: the caller's ``check``, its ``schema``, or ``agreement``
            of two cheap models.
        wait_usd_s: For ``cascade``: what a second of waiting is worth, in US dollars.

    Raises:
        ConfigurationError: A value outside its range, or ``learned`` without a policy file.
    """

    kind: PolicyKind = "threshold"
    text_threshold: int = TEXT_THRESHOLD
    item_threshold: int = ITEM_THRESHOLD
    policy_file: str = ""
    explore: float = 0.0
    floor: int | None = None
    ceiling: int | None = None
    rules: tuple[Rule, ...] = ()
    sites: Mapping[str, RoutingPolicy] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    learned: LearnedPolicy | None = field(default=None, hash=False, repr=False)
    tiers: tuple[str, ...] = ()
    accept: AcceptBy = "check"
    wait_usd_s: USD = 0
    version: str = field(init=False, default="", compare=False)
    """What stands in a decision for "under which policy": the kind, and a digest of everything that decides."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(PolicyKind):
            raise ConfigurationError(f"must be one of {', '.join(get_args(PolicyKind))}", key="routing.policy")
        for name in ("text_threshold", "item_threshold"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"must be a positive whole number, not {value!r}", key=f"routing.{name}")
        if isinstance(self.explore, bool) or not isinstance(self.explore, float | int) or not 0 <= self.explore <= 1:
            raise ConfigurationError(f"must be between 0 and 1, not {self.explore!r}", key="routing.explore")
        if self.floor is not None and self.ceiling is not None and self.floor > self.ceiling:
            raise ConfigurationError("the floor lies above the ceiling", key="routing.floor")
        if self.accept not in get_args(AcceptBy):
            raise ConfigurationError(f"must be one of {', '.join(get_args(AcceptBy))}", key="routing.accept")
        parse_usd(self.wait_usd_s, what="routing.wait_usd_s")
        if self.kind == "learned" and self.learned is None:
            raise ConfigurationError("a learned policy needs a policy_file: llm-cost tune", key="routing.policy_file")
        if self.kind == "rules" and not self.rules:
            raise ConfigurationError("a rules policy needs [[routing.rules]]", key="routing.rules")
        told = "; ".join(
            f"{item.name}={value.version if isinstance(value, LearnedPolicy) else value}"
            for item in fields(self)
            if item.name not in ("version", "tiers", "policy_file", "sites")
            for value in (getattr(self, item.name),)
        )
        object.__setattr__(self, "version", f"{self.kind}:{blake2b(told.encode(), digest_size=4).hexdigest()}")

    def tier_name(self, tier: int) -> str:
        """The configured name of a tier, else ``tier N``."""
        return self.tiers[tier] if 0 <= tier < len(self.tiers) else f"tier {tier}"

    def at(self, site: str) -> RoutingPolicy:
        """The policy that holds at a call site."""
        if not self.sites:
            return self
        own = self.sites.get(site)
        if own is not None:
            return own
        return next((policy for glob, policy in self.sites.items() if fnmatchcase(site, glob)), self)

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, Any],
        tiers: Sequence[Tier] = (),
        *,
        read_file: Callable[[str], str] | None = None,
    ) -> RoutingPolicy:
        """Read the ``[routing]`` table.

        Args:
            mapping: The table as parsed: ``policy``, the thresholds, ``floor`` and ``ceiling`` as tier names or
                indices, ``rules``, ``sites`` (a table of the same form for each site).
            tiers: The configured tiers, which names are resolved against.
            read_file: Reads ``policy_file``; the file is not read here.

        Raises:
            ConfigurationError: A value that cannot be used; ``UnknownKeyError`` for a key that does not exist.
        """
        names = tuple(tier.name for tier in tiers)
        return _from_mapping(cls(tiers=names), mapping, tiers, read_file, "routing")


def threshold_tier(
    text_length: int,
    item_count: int,
    *,
    text_threshold: int = TEXT_THRESHOLD,
    item_threshold: int = ITEM_THRESHOLD,
) -> int:
    """The classic rule: one tier up (1) for a long text or a large batch, else the lowest (0)."""
    return int(text_length >= text_threshold or item_count >= item_threshold)


def select_tier(policy: RoutingPolicy, given: PolicyInput, n_tiers: int, rng: Random | None = None) -> TierChoice:
    """Choose a tier for a call.

    Args:
        policy: The policy of the call's site (see ``RoutingPolicy.at``).
        given: Facts of the call; only the learned policy looks at the request's text.
        n_tiers: How many tiers there are.
        rng: Source of exploration; ``None`` turns exploration off.
    """
    top = n_tiers - 1
    low = min(policy.floor or 0, top)
    high = max(low, top if policy.ceiling is None else min(policy.ceiling, top))
    choice = _by_kind(policy, given, low, top)
    tier = min(max(choice.tier, low), high)
    if tier != choice.tier:
        bound = "floor" if tier > choice.tier else "ceiling"
        choice = choice._replace(tier=tier, reason=f"{choice.reason}; the {bound} makes it {policy.tier_name(tier)}")
    if policy.explore and rng and high > low and (given.budget_left is None or given.budget_left >= EXPLORE_LEFT):
        return _explore(policy, choice, low, high, rng)
    return choice


def _by_kind(policy: RoutingPolicy, given: PolicyInput, low: int, top: int) -> TierChoice:
    if policy.kind == "cascade":
        return TierChoice(low, None, "cheap first, stronger if the answer is not accepted", policy="cascade")
    if policy.kind == "learned" and policy.learned is not None:
        scored: Scored | None = policy.learned.score(working_text(given.request), given.site)
        if scored is not None:
            strong = scored.score >= scored.threshold
            tier = policy.learned.strong_tier if strong else policy.learned.weak_tier
            gain = f"{scored.score:+.3f} {'≥' if strong else '<'} {scored.threshold:+.3f}"
            reason = f"expected gain of the stronger model {gain} at {given.site}"
            return TierChoice(tier, scored.score, reason, policy="learned")
        return _threshold(policy, given.features, low)._replace(policy="default")
    if policy.kind == "rules":
        rule = first_match(policy.rules, given)
        if rule is not None:
            return TierChoice(top if rule.tier < 0 else rule.tier, None, f"rule {rule}", policy="rules")
    return _threshold(policy, given.features, low)


@lru_cache(maxsize=64)
def _grouped(number: int) -> str:
    """A number with its thousands grouped: the same few thresholds stand in every reason."""
    return f"{number:,}"


def _threshold(policy: RoutingPolicy, features: Features, low: int) -> TierChoice:
    length, items = features.text_length, features.item_count
    batch = "1 item" if items == 1 else f"{items:,} items"
    up = threshold_tier(length, items, text_threshold=policy.text_threshold, item_threshold=policy.item_threshold)
    score = max(length / policy.text_threshold, items / policy.item_threshold)
    if not up:
        limits = _grouped(policy.text_threshold), _grouped(policy.item_threshold)
        reason = f"{length:,} characters < {limits[0]} and {batch} < {limits[1]}"
    elif length >= policy.text_threshold:
        reason = f"{length:,} characters ≥ {policy.text_threshold:,}"
    else:
        reason = f"{batch} ≥ {policy.item_threshold:,}"
    return TierChoice(low + up, score, reason)


def _explore(policy: RoutingPolicy, choice: TierChoice, low: int, high: int, rng: Random) -> TierChoice:
    arms = high - low + 1
    share = policy.explore / arms
    if rng.random() >= policy.explore:
        return choice._replace(propensity=1 - policy.explore + share)
    tier = low + rng.randrange(arms)
    if tier == choice.tier:
        return choice._replace(propensity=1 - policy.explore + share)
    return choice._replace(tier=tier, propensity=share, reason=f"explored, instead of: {choice.reason}")


_KEYS = {"policy": "kind"} | {
    f.name: f.name for f in fields(RoutingPolicy) if f.name not in ("kind", "learned", "tiers", "version")
}


def _from_mapping(
    base: RoutingPolicy,
    mapping: Mapping[str, Any],
    tiers: Sequence[Tier],
    read_file: Callable[[str], str] | None,
    path: str,
) -> RoutingPolicy:
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        if key not in _KEYS:
            raise UnknownKeyError(f"{path}.{key}", _KEYS)
        values[_KEYS[key]] = value
    names = tuple(tier.name for tier in tiers)
    for bound in ("floor", "ceiling"):
        if bound in values:
            values[bound] = tier_index(values[bound], names, f"{path}.{bound}")
    if "rules" in values:
        values["rules"] = parse_rules(values["rules"], names, f"{path}.rules")
    if values.get("policy_file") and read_file is not None:
        learned = LearnedPolicy.parse(read_file(values["policy_file"]))
        values["learned"] = learned.bound_to([(tier.name, tier.models) for tier in tiers]) if tiers else learned
    sites = values.pop("sites", {})
    if not isinstance(sites, Mapping):
        raise ConfigurationError("must be a table of call sites", key=f"{path}.sites")
    policy = replace(base, **values)
    own = {
        site: _from_mapping(
            replace(policy, sites=MappingProxyType({})), table, tiers, read_file, f"{path}.sites.{site}"
        )
        for site, table in sites.items()
    }
    return replace(policy, sites=MappingProxyType(own)) if own else policy


def tier_index(value: object, names: Sequence[str], key: str) -> int | None:
    """The index of a tier from its name or index; ``""`` and ``None`` mean none. Raises ``ConfigurationError``."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value in names:
        return list(names).index(value)
    if type(value) is int and 0 <= value < (len(names) or value + 1):
        return value
    raise ConfigurationError(f"{value!r} is no tier; there are {', '.join(names) or 'none'}", key=key)
