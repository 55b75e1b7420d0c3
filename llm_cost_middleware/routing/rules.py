"""Declarative rules: conditions and the tier that they lead to. The first rule that matches decides."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec import Struct

from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.request import CallRequest
from llm_cost_middleware.routing.features import Features

_DAY = 86_400
_HOUR = 3_600


class PolicyInput(Struct, frozen=True, gc=False):
    """Facts of one call that a policy may decide by."""

    features: Features
    request: CallRequest
    site: str
    budget_left: float | None
    """The share of the tightest budget that is left; ``None`` (unknown) matches no condition on it."""
    now: float
    groups: tuple[str, ...] = ()
    """The wider groups of the site (``sites.CallSite``)."""
    fallen_back: Mapping[str, str] = MappingProxyType({})
    """Learned policies that are not to be trusted any more, with the reason, by version."""


_NUMBERS: dict[str, Callable[[PolicyInput], float | None]] = {
    "text_length": lambda s: s.features.text_length,
    "item_count": lambda s: s.features.item_count,
    "total_chars": lambda s: s.features.total_chars,
    "input_tokens": lambda s: s.features.input_tokens,
    "turns": lambda s: s.features.turns,
    "messages": lambda s: s.features.messages,
    "tools": lambda s: s.features.tools,
    "media": lambda s: s.features.media,
    "budget_left": lambda s: s.budget_left,
    # UTC: a rule must decide alike on every machine
    "hour": lambda s: s.now % _DAY // _HOUR,
    "weekday": lambda s: (s.now // _DAY + 3) % 7,  # the epoch was a Thursday; Monday is 0
    "max_tokens": lambda s: s.request.max_tokens,
}
_NAMES: dict[str, Callable[[PolicyInput], Sequence[str]]] = {
    "site": lambda s: (s.site,),
    "tag": lambda s: s.request.context.tags,
    "scope": lambda s: s.request.context.scopes,
    "model": lambda s: (s.request.model,),
    "provider": lambda s: (s.request.provider,),
    "need": lambda s: s.features.needs,
}
CONDITIONS = (*_NUMBERS, *_NAMES)
"""Every condition. Numbers take ``">= 4000"`` (a bare number means equal); hours and weekdays are UTC, Monday is 0;
names take a glob."""

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "==": operator.eq, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


class Condition(NamedTuple):
    """One condition: a name, a comparison, a value."""

    name: str
    how: str
    value: float | str

    def matches(self, given: PolicyInput) -> bool:
        """Return whether the condition is met; an unknown number meets none."""
        if isinstance(self.value, str):
            return any(fnmatchcase(name, self.value) for name in _NAMES[self.name](given))
        number = _NUMBERS[self.name](given)
        return number is not None and _COMPARE[self.how](number, self.value)

    def __str__(self) -> str:
        value = self.value if isinstance(self.value, str) else f"{self.value:g}"
        return f"{self.name} {self.how} {value}"


class Rule(NamedTuple):
    """Conditions that together lead to a tier; ``tier`` -1 is the strongest."""

    when: tuple[Condition, ...]
    tier: int

    def __str__(self) -> str:
        return " and ".join(map(str, self.when)) or "always"


def first_match(rules: Sequence[Rule], given: PolicyInput) -> Rule | None:
    """Return the first rule whose conditions all match, or ``None``."""
    return next((rule for rule in rules if all(condition.matches(given) for condition in rule.when)), None)


def parse_rules(value: object, tiers: Sequence[str], path: str = "rules") -> tuple[Rule, ...]:
    """Read ``[[routing.rules]]``: each a table with ``tier`` (a name or an index) and ``when`` (condition → value).

    Raises:
        ConfigurationError: A value that cannot be read; ``UnknownKeyError`` for a key or condition that does not exist.
    """
    if isinstance(value, tuple) and all(isinstance(rule, Rule) for rule in value):
        return value
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigurationError("must be a list of tables", key=path)
    return tuple(_parse_rule(entry, tiers, f"{path}.{number}") for number, entry in enumerate(value))


def _parse_rule(entry: object, tiers: Sequence[str], path: str) -> Rule:
    if not isinstance(entry, Mapping):
        raise ConfigurationError("must be a table with 'tier' and 'when'", key=path)
    for key in entry:
        if key not in ("tier", "when"):
            raise UnknownKeyError(f"{path}.{key}", ("tier", "when"))
    tier = entry.get("tier")
    if isinstance(tier, str) and tier in tiers:
        tier = list(tiers).index(tier)
    if type(tier) is not int or not -1 <= tier < (len(tiers) or tier + 1):
        raise ConfigurationError(f"{tier!r} is no tier; there are {', '.join(tiers) or 'none'}", key=f"{path}.tier")
    when = entry.get("when", {})
    if not isinstance(when, Mapping):
        raise ConfigurationError("must be a table of conditions", key=f"{path}.when")
    return Rule(tuple(_parse_condition(name, text, f"{path}.when.{name}") for name, text in when.items()), tier)


def _parse_condition(name: str, value: Any, path: str) -> Condition:
    if name in _NAMES:
        if not isinstance(value, str):
            raise ConfigurationError(f"must be a name or a glob, not {value!r}", key=path)
        return Condition(name, "is", value)
    if name not in _NUMBERS:
        raise UnknownKeyError(path, CONDITIONS)
    how, number = "==", value
    if isinstance(value, str):
        text = value.strip()
        how = next((sign for sign in _COMPARE if text.startswith(sign)), "==")
        number = text.removeprefix(how).strip()
    try:
        return Condition(name, how, float(number))
    except (TypeError, ValueError):
        raise ConfigurationError(f"must be a comparison such as '>= 4000', not {value!r}", key=path) from None
