"""A newer or cheaper model of the same line would have answered for less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_cost_middleware.advice.calls import OUTPUT, CallGroup
from llm_cost_middleware.advice.evidence import (
    MIN_CALLS,
    Change,
    Evidence,
    Proposal,
    examples,
    model_text,
    tier_lines,
)
from llm_cost_middleware.advice.pricing import Served
from llm_cost_middleware.capabilities import find_capabilities
from llm_cost_middleware.capabilities.arms import read_arm
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.pricing.successors import newer_models
from llm_cost_middleware.request import ModelRef

_UNKNOWN = "whether the newer model answers these calls as well, and whether it counts their text as as many tokens"
_LEARN = (
    "let it answer beside the present one for a share of the calls ([routing] shadow = 0.02) and compare, or "
    "llm-cost tune"
)


class _Instead(Change):
    """The same tokens at another model."""

    def __init__(self, groups: list[CallGroup], other: ModelRef, window: int | None) -> None:
        super().__init__(groups)
        self._other, self._window = other, window

    def after(self, group: CallGroup, index: int, served: Served) -> Served:
        """See ``Change``."""
        del group, index
        if self._window is not None and sum(served.tokens[:OUTPUT]) > self._window:
            return served
        return served._replace(provider=self._other.provider, model=self._other.model)


def cheaper_siblings(evidence: Evidence) -> Iterator[Proposal]:
    """Models of which a later one of the same line costs less, call by call."""
    found: dict[ModelRef, list[CallGroup]] = {}
    for group in evidence.log.groups:
        if group.key.known and not group.key.failure:
            found.setdefault(group.key.target, []).append(group)
    for target, groups in found.items():
        calls = sum(map(len, groups))
        others = newer_models(evidence.catalogue, target)
        others += [other for other in evidence.successors.get(target, ()) if other not in others]
        if calls < MIN_CALLS or not others:
            continue
        priced = [(cost, number) for number, other in enumerate(others) if (cost := _cost(evidence, groups, other))]
        present = _cost(evidence, groups, None)
        best, number = min(priced, default=(0, 0))
        if not priced or present is None or best >= present:
            continue
        other = others[number]
        change = _Instead(groups, other, evidence.pricer.context_window(other))
        yield Proposal(
            "sibling", "", str(target), f"{other.model} is newer than {target.model} and costs less for these calls",
            _lines(evidence, target, other), change,
            {"newer": str(other), "sites": len({group.key.site for group in groups}), **_differs(target, other)},
            _UNKNOWN, _LEARN, examples(groups),
        )  # fmt: skip


def _cost(evidence: Evidence, groups: list[CallGroup], other: ModelRef | None) -> int | None:
    """What all calls cost at another model; ``None`` where one of them has no price, or does not fit."""
    total, price = 0, evidence.pricer.cost
    window = evidence.pricer.context_window(other) if other is not None else None
    for group in groups:
        key = group.key
        provider, model = (key.provider, key.billed) if other is None else other
        for at, tokens in zip(group.at, group.tokens(), strict=True):
            if window is not None and sum(tokens[:OUTPUT]) > window:
                provider, model = key.provider, key.billed
            cost = price(Served(provider, model, key.terms, tokens), at)
            if cost is None:
                return None
            total += cost
    return total


def _differs(target: ModelRef, other: ModelRef) -> Mapping[str, Any]:
    """What the capability table has for the present model and not for the other."""
    old, new = find_capabilities(*target), find_capabilities(*other)
    if old is None or new is None:
        return {"not_taken": ["unknown: the capability table lacks one of the two"]}
    before, after = old._asdict(), new._asdict()
    lost = []
    for name, value in before.items():
        if value is True and after[name] is False:
            lost.append(name)
        elif isinstance(value, tuple | list) and (gone := [each for each in value if each not in after[name]]):
            lost.append(f"{name}: {', '.join(map(str, gone))}")
        elif name == "sampling" and value != after[name]:
            lost.append(f"sampling: {value}, now {after[name]}")
    return {"not_taken": lost} if lost else {}


def _lines(evidence: Evidence, target: ModelRef, other: ModelRef) -> tuple[str, ...]:
    changed: dict[ModelRef, str] = {}
    for tier in evidence.tiers:
        for model in tier.models:
            if model.plain == target:
                changed[model] = model_text(_arm(other, model))
    if changed:
        return tier_lines(evidence.tiers, changed)
    return (f"# where the calls name {target.model}:", f'model = "{other.model}"')


def _arm(other: ModelRef, arm: ModelRef) -> ModelRef:
    if not arm.parameters:
        return other
    try:
        return read_arm(other, arm.parameters, "tiers")
    except ConfigurationError:
        return other
