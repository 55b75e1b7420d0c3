"""Advice ranked by money: each saving by itself, and the sum of all applied one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llm_cost_middleware.advice.calls import CallGroup
from llm_cost_middleware.advice.evidence import MIN_CALLS, Change, Evidence, Proposal
from llm_cost_middleware.advice.kinds import KINDS
from llm_cost_middleware.advice.pricing import Served
from llm_cost_middleware.money import NanoUSD

LEAST_SHARE = 0.01
"""Share of what its calls cost that an advice saves at least."""


class Advice(NamedTuple):
    """One advice."""

    kind: str
    site: str
    target: str
    told: str
    lines: tuple[str, ...]
    calls: int
    """Calls that it would have changed."""
    cost_nanousd: NanoUSD
    """What these cost."""
    saved_nanousd: NanoUSD
    """What would have been saved, had it been followed alone."""
    saved_in_order_nanousd: NanoUSD
    """What it would have saved after those that rank before it: these may be added up."""
    evidence: Mapping[str, Any]
    unknown: str
    learn: str
    examples: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; amounts are dollars as text, exactly."""
        return {
            "kind": self.kind,
            "site": self.site,
            "model": self.target,
            "told": self.told,
            "saved_usd": f"{self.saved_nanousd.usd:f}",
            "saved_in_order_usd": f"{self.saved_in_order_nanousd.usd:f}",
            "cost_usd": f"{self.cost_nanousd.usd:f}",
            "calls": self.calls,
            "configuration": list(self.lines),
            "evidence": dict(self.evidence),
            "unknown": self.unknown,
            "learn": self.learn,
            "examples": list(self.examples),
        }


class AdviceReport(NamedTuple):
    """The advice on a stretch of time."""

    advice: tuple[Advice, ...]
    """The dearest waste first."""
    calls: int
    cost_nanousd: NanoUSD
    saved_nanousd: NanoUSD
    """Of all of them together, each applied to what those before it leave."""
    since: float | None
    until: float | None
    """The first and the last call, seconds since the Unix epoch."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; amounts are dollars as text, exactly."""
        return {
            "version": 1,
            "since": self.since,
            "until": self.until,
            "calls": self.calls,
            "cost_usd": f"{self.cost_nanousd.usd:f}",
            "saved_usd": f"{self.saved_nanousd.usd:f}",
            "advice": [one.to_dict() for one in self.advice],
            "notes": list(self.notes),
        }


class _Sums:
    """Sums of one proposal."""

    __slots__ = ("by_group", "calls", "cost", "in_order", "saved")

    def __init__(self) -> None:
        self.calls = self.cost = self.saved = self.in_order = 0
        self.by_group: dict[int, int] = {}
        """What it saves in each group, alone."""


def advise(evidence: Evidence, kinds: Mapping[str, Callable[[Evidence], Iterable[Proposal]]] = KINDS) -> AdviceReport:
    """Return what would have cost less.

    Args:
        evidence: The log, and what is known beside it.
        kinds: The kinds of waste that are looked for.
    """
    proposals = [found for find in kinds.values() for found in find(evidence)]
    sums = {id(found): _Sums() for found in proposals}
    for group in evidence.log.groups:
        for change, own in _changes(group, proposals, sums):
            _add_alone(evidence, group, change, own)
    kept = [
        found for found in proposals
        if found.change is None or sums[id(found)].saved > max(0, LEAST_SHARE * sums[id(found)].cost)
    ]  # fmt: skip
    kept.sort(key=lambda found: (-sums[id(found)].saved, found.kind, found.site, found.target))
    log = evidence.log
    found = ((group, _changes(group, kept, sums)) for group in log.groups)
    total = sum(_add_in_order(evidence, group, changes) for group, changes in found if changes)
    advice = tuple(_advice(found, sums[id(found)]) for found in kept)
    return AdviceReport(
        advice, log.calls, NanoUSD(log.cost_nanousd), NanoUSD(total), log.first, log.last, tuple(_notes(evidence))
    )


def _changes(group: CallGroup, proposals: Sequence[Proposal], sums: Mapping[int, _Sums]) -> list[tuple[Change, _Sums]]:
    """What proposals change of a group, in their order."""
    changing = ((one.change, sums[id(one)]) for one in proposals)
    return [(change, sum_) for change, sum_ in changing if change is not None and change.applies(group)]


def _before(evidence: Evidence, group: CallGroup, change: Change) -> Iterator[tuple[int, float, Served, int]]:
    """The calls of a group that can be priced: index, moment, how each was served, and what that cost."""
    key, price = group.key, evidence.pricer.cost
    for index, (at, tokens) in enumerate(zip(group.at, group.tokens(), strict=True)):
        served = Served(key.provider, key.billed, key.terms, tokens)
        before = price(served, at) if key.known else change.likely(group, index)
        if before is not None:
            yield index, at, served, before


def _add_alone(evidence: Evidence, group: CallGroup, change: Change, sums: _Sums) -> None:
    """Price every call of a group anew, under one change alone."""
    saved, price = 0, evidence.pricer.cost
    for index, at, served, before in _before(evidence, group, change):
        other = change.after(group, index, served)
        if other is served:
            continue
        cost = 0 if other is None else price(other, at)
        if cost is not None:  # else it is not offered so, and stays as it is
            sums.calls += 1
            sums.cost += before
            saved += before - cost
    sums.saved += saved
    sums.by_group[id(group)] = saved


def _add_in_order(evidence: Evidence, group: CallGroup, found: Sequence[tuple[Change, _Sums]]) -> int:
    """Price every call of a group anew, each change on what those before it leave; return the whole saving."""
    if len(found) == 1:  # nothing overlaps here
        saved = found[0][1].by_group[id(group)]
        found[0][1].in_order += saved
        return saved
    total, price = 0, evidence.pricer.cost
    for index, at, first, before in _before(evidence, group, found[0][0]):
        served, left = first, before
        for change, sums in found:
            other = change.after(group, index, served)
            cost = 0 if other is None else price(other, at)
            if other is served or cost is None:
                continue
            sums.in_order += left - cost
            left = cost
            if other is None:
                break
            served = other
        total += before - left
    return total


def _advice(found: Proposal, sums: _Sums) -> Advice:
    return Advice(
        found.kind, found.site, found.target, found.told, found.lines, sums.calls, NanoUSD(sums.cost),
        NanoUSD(sums.saved), NanoUSD(sums.in_order), found.evidence, found.unknown, found.learn, found.examples,
    )  # fmt: skip


def _notes(evidence: Evidence) -> Iterable[str]:
    log = evidence.log
    few = [(site, calls) for (site, _), of in evidence.by_site() if (calls := sum(map(len, of))) < MIN_CALLS]
    if few:
        sites, calls = len({site for site, _ in few}), sum(calls for _, calls in few)
        have = "call site has" if sites == 1 else "call sites have"
        yield (
            f"{sites:,} {have} fewer than {MIN_CALLS} calls of a model, {calls:,} in all: too few for most "
            "advice; a longer time may have more"
        )
    if log.summed:
        yield f"{log.summed:,} archived calls are known as sums alone: they were not priced again"
    if log.unread:
        yield f"{log.unread:,} rows say nothing of their calls (booked by hand, or a batch): they were not priced again"
    odd = sum(len(group) for group in log.groups if not group.key.known and not group.key.failure)
    if odd:
        yield f"{odd:,} calls have no usage, or usage of another kind (audio, searches): they were not priced again"
