"""Less thinking: a lower effort of the same model, as its own calls in the log have it, else as a table assumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llm_cost_middleware.advice.calls import OUTPUT, REASONING, CallGroup
from llm_cost_middleware.advice.evidence import (
    MIN_CALLS,
    Change,
    Evidence,
    Proposal,
    examples,
    model_text,
    named,
    tier_lines,
)
from llm_cost_middleware.advice.pricing import Served
from llm_cost_middleware.capabilities import find_capabilities
from llm_cost_middleware.capabilities.arms import Arm, output_factor
from llm_cost_middleware.capabilities.efforts import LEVELS
from llm_cost_middleware.metering.call_facts import CUT, OWN_EFFORT
from llm_cost_middleware.request import ModelRef

_EFFORT = "reasoning_effort="
_UNKNOWN = "whether the answers stay as good with less thinking; the log shows failures and cut answers alone"
_LEARN = (
    "put the arm beside the present one in its tier and let [routing] explore = 0.05 try it, or label a few hundred "
    "answers: llm-cost tune"
)


class _Less(Change):
    """So much of the thinking."""

    def __init__(self, groups: Sequence[CallGroup], times: float) -> None:
        super().__init__(groups)
        self._times = times

    def after(self, group: CallGroup, index: int, served: Served) -> Served:
        """See ``Change``."""
        del group, index
        tokens = served.tokens
        thought = round(tokens[REASONING] * self._times)
        if thought >= tokens[REASONING]:
            return served
        output = tokens[OUTPUT] - tokens[REASONING] + thought
        return served._replace(tokens=(*tokens[:OUTPUT], output, thought))


class _Thought(NamedTuple):
    """Thinking of some calls."""

    calls: int
    tokens: int
    cut: int

    @classmethod
    def of(cls, groups: Sequence[CallGroup]) -> _Thought:
        cut = sum(1 for group in groups for flags in group.flags if flags & CUT)
        return cls(sum(map(len, groups)), sum(sum(group.columns[REASONING]) for group in groups), cut)

    @property
    def mean(self) -> float:
        return self.tokens / self.calls if self.calls else 0.0


def lower_efforts(evidence: Evidence) -> Iterator[Proposal]:
    """Call sites whose answers think, at a model that has a lower effort."""
    for (site, target), every in evidence.by_site():
        groups = [group for group in every if group.key.known]
        by_level: dict[str, list[CallGroup]] = {}
        for group in groups:
            by_level.setdefault(_level(group, target), []).append(group)
        known = find_capabilities(*target)
        if known is None or not known.efforts:
            continue
        for level, own in by_level.items():
            now = _Thought.of(own)
            output = sum(sum(group.columns[OUTPUT]) for group in own)
            if now.calls < MIN_CALLS or not level or now.tokens * 10 < output:
                continue
            found = _lower(target, level, now, by_level, known.efforts)
            if found is None:
                continue
            lower, times, tried = found
            stated = sum(1 for group in own for flags in group.flags if flags & OWN_EFFORT)
            yield Proposal(
                "effort", site, str(target),
                f"{now.tokens / max(output, 1):.0%} of the output of {named(site)} is thinking, at effort {level}",
                _lines(evidence, target, level, lower, site, by_caller=stated * 2 > now.calls),
                _Less(own, times),
                {"effort": level, "lower": lower, "thinking_tokens_a_call": round(now.mean), "times": round(times, 4),
                 "supported": bool(tried), "calls_at_lower": tried},
                _UNKNOWN if tried else f"{_UNKNOWN}; no call of this site was made with it: how much less it thinks "
                "is assumed",
                _LEARN, examples(own),
            )  # fmt: skip


def _level(group: CallGroup, target: ModelRef) -> str:
    """The effort of a group; empty where it is the caller's own, and not told."""
    for part in group.key.arm.split("+"):
        if part.startswith(_EFFORT):
            return part.removeprefix(_EFFORT)
    if any(flags & OWN_EFFORT for flags in group.flags[:1]):
        return ""
    known = find_capabilities(*target)
    return (known.default_effort or "") if known is not None else ""


def _lower(
    target: ModelRef, level: str, now: _Thought, by_level: dict[str, list[CallGroup]], efforts: Sequence[str]
) -> tuple[str, float, int] | None:
    """The lower effort, how much of the thinking it leaves, and on how many calls that rests; 0: on none."""
    if level not in LEVELS:
        return None
    lower = [name for name in efforts if LEVELS.index(name) < LEVELS.index(level)]
    tried = []
    for name in lower:
        seen = _Thought.of(by_level.get(name, ()))
        if seen.calls >= MIN_CALLS and seen.mean < now.mean and seen.cut * now.calls <= max(now.cut, 1) * seen.calls:
            tried.append((seen.mean, name, seen.calls))
    if tried:
        mean, name, calls = min(tried)
        return name, mean / now.mean, calls
    assumed = [name for name in lower if name not in ("none", "minimal")]
    if not assumed:
        return None
    name = max(assumed, key=LEVELS.index)
    factors = [output_factor(Arm(*target, {"reasoning_effort": each})) for each in (name, level)]
    return name, factors[0] / factors[1], 0


def _lines(
    evidence: Evidence, target: ModelRef, level: str, lower: str, site: str, *, by_caller: bool
) -> tuple[str, ...]:
    arm = Arm(*target, {"reasoning_effort": lower})
    changed = {
        model: model_text(Arm(*target, {**model.parameters, "reasoning_effort": lower}))
        for tier in evidence.tiers for model in tier.models
        if model.plain == target and model.parameters.get("reasoning_effort", level) == level
    }  # fmt: skip
    if changed and not by_caller:
        return tier_lines(evidence.tiers, changed)
    return (f"# in the code of {named(site)}:", f'reasoning_effort = "{arm.parameters["reasoning_effort"]}"')
