"""What advice rests on: the calls, the cache traces and refusals of the journal, prices, and what is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llm_cost_middleware.advice.calls import CallGroup, CallLog
from llm_cost_middleware.advice.pricing import Pricer, Served
from llm_cost_middleware.metering.refused import RefusedCall
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.prompt_cache.trace import Trace
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.policy import Tier

MIN_CALLS = 20
"""Fewer calls of a site say too little to advise on."""


@dataclass(frozen=True)
class Evidence:
    """What all kinds of advice may look at."""

    log: CallLog
    catalogue: Catalogue
    tiers: Sequence[Tier] = ()
    successors: Mapping[ModelRef, tuple[ModelRef, ...]] = field(default_factory=dict)
    """Models that follow others under another name, as the dated tiers have it."""
    traces: Callable[[], Iterable[Trace]] = tuple
    """Streams the cache traces in the order of their calls."""
    refusals: Sequence[tuple[RefusedCall, float]] = ()
    """Calls that were refused for want of money, with the moment."""
    hour_of: Callable[[float], int] = lambda at: int(at // 3_600) % 24
    """The hour of the day that a moment lies in."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pricer", Pricer(self.catalogue))

    pricer: Pricer = field(init=False)

    def by_site(self, *, failed: bool = False) -> Iterator[tuple[tuple[str, ModelRef], list[CallGroup]]]:
        """The groups of each site and model, answered or failed."""
        found: dict[tuple[str, ModelRef], list[CallGroup]] = {}
        for group in self.log.groups:
            if bool(group.key.failure) == failed:
                found.setdefault((group.key.site, group.key.target), []).append(group)
        yield from found.items()


class Change:
    """What an advice changes of a call."""

    def __init__(self, groups: Iterable[CallGroup]) -> None:
        self.groups = frozenset(map(id, groups))

    def applies(self, group: CallGroup) -> bool:
        """Whether it changes any call of a group."""
        return id(group) in self.groups

    def after(self, group: CallGroup, index: int, served: Served) -> Served | None:
        """How the call would have been served; ``None``: not at all, and nothing would have been billed."""
        raise NotImplementedError

    def likely(self, group: CallGroup, index: int) -> int:
        """Nano-dollars that a call without a known usage cost, as far as can be told: what is booked, by default."""
        return group.amounts[index]


class Proposal(NamedTuple):
    """An advice before its saving is worked out."""

    kind: str
    site: str
    target: str
    told: str
    """What was found, in a sentence."""
    lines: tuple[str, ...]
    """Lines of the configuration, or comments on what to change in the code where no configuration can."""
    change: Change | None
    """``None``: it saves no money by itself."""
    evidence: Mapping[str, Any]
    unknown: str
    """What the log cannot say."""
    learn: str = ""
    """How to find that out at little cost."""
    examples: tuple[str, ...] = ()
    """Ids of calls."""


def examples(
    groups: Iterable[CallGroup], wanted: Callable[[CallGroup, int], bool] = lambda *_: True
) -> tuple[str, ...]:
    """The ids of the three dearest calls that are wanted."""
    best: list[tuple[int, str]] = []
    for group in groups:
        for index, amount in enumerate(group.amounts):
            if (len(best) < _EXAMPLES or amount > best[-1][0]) and wanted(group, index):
                best = sorted([*best, (amount, group.ids[index])], reverse=True)[:_EXAMPLES]
    return tuple(id_ for _, id_ in best)


_EXAMPLES = 3


def named(site: str) -> str:
    """A call site in a sentence, on one line whatever its name holds: it may stand in a comment of a configuration."""
    shown = "".join(char if char.isprintable() else " " for char in site)
    return f"call site {shown}" if site else "calls without a site"


def quoted(text: str) -> str:
    """A text as TOML has it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in escaped) + '"'


def tier_lines(tiers: Sequence[Tier], change: Mapping[ModelRef, str]) -> tuple[str, ...]:
    """``[[tiers]]`` with other models in the place of some, each as TOML has it."""
    lines: list[str] = []
    for tier in tiers:
        models = ", ".join(dict.fromkeys(change.get(model, model_text(model)) for model in tier.models))
        lines += ["[[tiers]]", f"name = {quoted(tier.name)}", f"models = [{models}]", ""]
    return tuple(lines[:-1])


def model_text(model: ModelRef) -> str:
    """A model or an arm as TOML has it."""
    if not model.parameters:
        return quoted(str(model))
    stated = [
        f"{name} = {quoted(value) if isinstance(value, str) else value}" for name, value in model.parameters.items()
    ]
    return "{" + ", ".join([f"model = {quoted(str(model.plain))}", *stated]) + "}"
