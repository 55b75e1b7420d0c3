"""Routing policies: the settings that lead from features, call site and budget to a tier, and their TOML table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from hashlib import blake2b
from math import inf
from os import PathLike
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.money import USD, parse_usd
from llm_cost_middleware.natural_values import Duration, read_number, read_patience, read_whole
from llm_cost_middleware.platform import read_regions
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision import AcceptBy
from llm_cost_middleware.routing.drift import DRIFT_LIMIT
from llm_cost_middleware.routing.learned import LearnedPolicy
from llm_cost_middleware.routing.rules import Rule, parse_rules
from llm_cost_middleware.typed_fields import names_unknown_keys, read_choice

_NOT_DECIDING = (
    "tiers",
    "policy_file",
    "sites",
    "on_unsupported",
    "by_default",
    "regions",  # a hard rule over candidates, not a choice among them
    "drift_limit",
    "shadow",
    "patience",
)
"""Fields that decide nothing about the model: logged versions stay comparable."""
PolicyKind = Literal["threshold", "rules", "learned", "cascade", "off"]
OnUnsupported = Literal["leave_out", "refuse"]
_CHOICES = (
    ("kind", "policy", PolicyKind), ("accept", "accept", AcceptBy), ("on_unsupported", "on_unsupported", OnUnsupported),
)  # fmt: skip
"""Fields that are one of a few words, with their keys."""


class Tier(NamedTuple):
    """Models, or arms, of about the same strength, over all providers. Tiers are listed from cheap to strong."""

    name: str
    models: tuple[ModelRef, ...]


@names_unknown_keys("routing")
@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """Settings by which a tier is chosen.

    Args:
        kind: ``threshold``, ``rules``, ``learned``, ``cascade``, or ``off``: every call goes to the model it names.
        text_threshold: Characters from which the threshold rule goes one tier up.
        item_threshold: Items from which it does.
        policy_file: The file that ``learned`` was read from; for reports.
        explore: The share of calls that go to a random tier, so that replay is unbiased. Logged with propensities.
        floor: The lowest tier that may be used, as an index.
        ceiling: The highest tier that may be used, as an index.
        rules: For ``rules``: the first that matches decides; none: the threshold rule.
        sites: Policies of single call sites, by name or glob; the first that matches replaces this policy.
        learned: For ``learned``: the parsed policy file.
        tiers: The names of the tiers, for reasons.
        accept: For ``cascade``: what accepts a cheap answer: the caller's ``check``, its ``schema``, ``agreement`` of
            two cheap models, or ``no_failure``: it shows none (``signals.VISIBLE_FAILURES``), and the caller's check,
            where there is one, passes it. With ``no_failure`` the thresholds decide where a call starts, and alone
            where nothing can be reviewed (streams).
        answer_field: For ``agreement``: the compared field of a JSON answer (``result.label``); empty: all of it.
        wait_usd_s: For ``cascade``: the price of a second of waiting, in US dollars.
        on_unsupported: For calls that name no model: where none that can be reached takes ``stop``, ``logprobs``,
            ``top_logprobs`` or ``logit_bias``, ``leave_out`` sends them without, ``refuse`` raises.

    Raises:
        ConfigurationError: A value outside its range, or ``learned`` without a policy file.
    """

    kind: PolicyKind = "threshold"
    # The classic rule is one for long documents and batches, not for difficulty: of 39,470 ordinary prompts of public
    # benchmarks two are as long.
    text_threshold: int = 10_000
    item_threshold: int = 30
    policy_file: str = ""
    explore: float = 0.0
    floor: int | None = None
    ceiling: int | None = None
    rules: tuple[Rule, ...] = ()
    sites: Mapping[str, RoutingPolicy] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    learned: LearnedPolicy | None = field(default=None, hash=False, repr=False)
    tiers: tuple[str, ...] = ()
    accept: AcceptBy = "check"
    answer_field: str = ""
    wait_usd_s: USD = 0
    on_unsupported: OnUnsupported = "leave_out"
    shadow: float = 0.0
    """The share of calls that a model of another tier answers, too, to learn from; its answer is dropped."""
    drift_limit: float = DRIFT_LIMIT
    """For ``learned``: the stability index past which the stronger model takes all calls (``drift``); 0: never."""
    patience: Duration | None = None
    """How long an answer may take, where the call itself says nothing (``cost_context(patience=)``); ``None``: nobody
    waits. Kept in seconds."""
    regions: tuple[str, ...] = ()
    """Places or geographies (``eu``) outside which no call may be served, whoever names the model; none: anywhere."""
    by_default: bool = field(default=False, compare=False)
    """Nobody chose it: it came with ``[[tiers]]``, and the classic functions go by size instead."""
    version: str = field(init=False, default="", compare=False)
    """The kind, and a digest of everything that decides; logged with each decision."""
    # Two that are worked out once, because every call asks for them several times.
    watches_failures: bool = field(init=False, default=False, repr=False, compare=False)
    """Whether an answer that visibly fails is asked for again, a tier up."""
    learns: bool = field(init=False, default=False, repr=False, compare=False)
    """Whether its decisions carry what can be learned from later."""

    def __post_init__(self) -> None:
        for name, key, choices in _CHOICES:
            read_choice(choices, getattr(self, name), f"routing.{key}")
        for name in ("text_threshold", "item_threshold"):
            value = read_whole(getattr(self, name), f"routing.{name}")
            if value < 1:
                raise ConfigurationError(f"must be a positive whole number, not {value!r}", key=f"routing.{name}")
            object.__setattr__(self, name, value)
        for name, most, form in (
            ("explore", 1, "between 0 and 1"), ("shadow", 1, "between 0 and 1"), ("drift_limit", inf, "0 or more")
        ):  # fmt: skip
            share = read_number(getattr(self, name), f"routing.{name}", form=form)
            object.__setattr__(self, name, share)
            if not 0 <= share <= most:
                raise ConfigurationError(f"must be {form}, not {share!r}", key=f"routing.{name}")
        object.__setattr__(self, "regions", _read_regions(self.regions))
        object.__setattr__(self, "patience", read_patience(self.patience, "routing.patience"))
        if self.floor is not None and self.ceiling is not None and self.floor > self.ceiling:
            raise ConfigurationError("the floor lies above the ceiling", key="routing.floor")
        if not isinstance(self.answer_field, str):
            raise ConfigurationError(f"must be a name, not {self.answer_field!r}", key="routing.answer_field")
        parse_usd(self.wait_usd_s, what="routing.wait_usd_s")
        if self.kind == "learned" and self.learned is None:
            raise ConfigurationError("a learned policy needs a policy_file: llm-cost tune", key="routing.policy_file")
        if self.kind == "rules" and not self.rules:
            raise ConfigurationError("a rules policy needs [[routing.rules]]", key="routing.rules")
        object.__setattr__(self, "watches_failures", self.kind == "cascade" and self.accept == "no_failure")
        object.__setattr__(self, "learns", self.explore > 0 or self.shadow > 0 or self.kind == "learned")
        # Names of tiers and files do not decide; each site's policy has a version of its own.
        deciding = "; ".join(
            f"{item.name}={value.version if isinstance(value, LearnedPolicy) else value}"
            for item in fields(self)
            if item.init and item.name not in _NOT_DECIDING
            for value in (getattr(self, item.name),)
        )
        object.__setattr__(
            self,
            "version",
            f"{self.kind}:{blake2b(deciding.encode(errors='surrogatepass'), digest_size=4).hexdigest()}",
        )

    def is_large(self, text_length: int, item_count: int) -> bool:
        """Return whether the classic rule goes one tier up: for a long text or a large batch."""
        return text_length >= self.text_threshold or item_count >= self.item_threshold

    @property
    def patience_s(self) -> float | None:
        """``patience`` in seconds."""
        return cast("float | None", self.patience)

    def tier_name(self, tier: int) -> str:
        """Return the configured name of a tier, else ``tier N``."""
        return self.tiers[tier] if 0 <= tier < len(self.tiers) else f"tier {tier}"

    def for_site(self, site: str) -> RoutingPolicy:
        """Return the policy of a call site."""
        if not self.sites:
            return self
        own = self.sites.get(site)
        if own is not None:  # a name before any glob, wherever it stands in the table
            return own
        for glob, policy in self.sites.items():
            if fnmatchcase(site, glob):
                return policy
        return self

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
            mapping: The table as parsed: ``policy`` (a cascade accepts by ``no_failure`` unless told), the thresholds,
                ``floor`` and ``ceiling`` as tier names or indices, ``rules``, ``sites`` (a table of the same form for
                each site).
            tiers: The configured tiers, which names are resolved against.
            read_file: Reads ``policy_file``; the file is not read here.

        Raises:
            ConfigurationError: A value that cannot be used; ``UnknownKeyError`` for a key that does not exist.
        """
        return _from_mapping(cls(tiers=tuple(tier.name for tier in tiers)), mapping, tiers, read_file, "routing")


def _read_regions(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and all(isinstance(one, str) and one for one in value):
        return read_regions(value)
    raise ConfigurationError(f"must be a list such as ['eu'], not {value!r}", key="routing.regions")


_KEYS = {"policy": "kind"} | {
    f.name: f.name for f in fields(RoutingPolicy) if f.init and f.name not in ("kind", "learned", "tiers", "by_default")
}


def _from_mapping(
    base: RoutingPolicy,
    mapping: Mapping[str, Any],
    tiers: Sequence[Tier],
    read_file: Callable[[str], str] | None,
    path: str,
) -> RoutingPolicy:
    values: dict[str, Any] = {}
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(f"must be a table such as {{'policy': 'off'}}, not {mapping!r}", key=path)
    for key, value in mapping.items():
        if key not in _KEYS:
            raise UnknownKeyError(f"{path}.{key}", _KEYS)
        values[_KEYS[key]] = value
    _default_accept(base, values, path)
    for bound in ("floor", "ceiling"):
        if bound in values:
            values[bound] = tier_index(values[bound], base.tiers, f"{path}.{bound}")
    if "rules" in values:
        values["rules"] = parse_rules(values["rules"], base.tiers, f"{path}.rules")
    if not isinstance(file := values.get("policy_file", ""), str | PathLike):
        raise ConfigurationError(f"must be the path of a file, not {file!r}", key=f"{path}.policy_file")
    if file and read_file is not None:
        learned = LearnedPolicy.parse(read_file(values["policy_file"]))
        values["learned"] = learned.bound_to(tiers) if tiers else learned
    sites = values.pop("sites", {})
    if not isinstance(sites, Mapping):
        raise ConfigurationError("must be a table of call sites", key=f"{path}.sites")
    policy = _changed(base, values, path)
    alone = replace(policy, sites=MappingProxyType({}))  # sites inherit everything but the other sites
    own = {site: _from_mapping(alone, table, tiers, read_file, f"{path}.sites.{site}") for site, table in sites.items()}
    return replace(policy, sites=MappingProxyType(own)) if own else policy


def _changed(base: RoutingPolicy, values: dict[str, Any], path: str) -> RoutingPolicy:
    try:
        return replace(base, **values)
    except ConfigurationError as error:
        error.key = (error.key or "routing").removeprefix("routing").lstrip(".")  # the policy knows no other place
        raise error.within(path) from None


def _default_accept(base: RoutingPolicy, values: dict[str, Any], path: str) -> None:
    if "kind" in values:
        read_choice(PolicyKind, values["kind"], f"{path}.policy")  # compared below: an array has no one truth
    if values.get("kind") == "cascade" != base.kind:
        values.setdefault("accept", "no_failure")


def tier_index(value: object, names: Sequence[str], key: str) -> int | None:
    """Return the index of a tier from its name or index; ``None`` for ``""`` and ``None``.

    Raises:
        ConfigurationError: There is no such tier.
    """
    if value is None or (isinstance(value, str) and not value):
        return None
    if isinstance(value, str) and value in names:
        return list(names).index(value)
    if type(value) is int and 0 <= value < (len(names) or value + 1):
        return value
    raise ConfigurationError(f"{value!r} is no tier; there are {', '.join(names) or 'none'}", key=key)
