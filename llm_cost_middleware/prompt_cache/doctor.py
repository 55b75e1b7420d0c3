"""The cache doctor: what caching earned, prefix by prefix, and what broke the prefixes that could have been read.

Each call is held against the most similar of the calls shortly before it at the same model. Where it is not a
continuation of that call, the first segment that differs is what broke the prefix, and everything behind it was paid
for again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.prompt_cache.trace import Segment, Trace
from llm_cost_middleware.request import Target

_COMPARED = 32
"""So many earlier calls of the same model are looked through for the most similar one."""
_BYTES_PER_TOKEN = 4


class Break(NamedTuple):
    """What kept a call from reading what an earlier one had sent."""

    reason: str
    """Such as ``system 0 differs only in numbers or dates: a timestamp or counter``."""
    lost_tokens: int
    """About so many tokens behind the difference were the same, and paid for again."""


@dataclass(slots=True)
class PrefixReport:
    """The traffic over one prefix: calls whose tools and system prompt are the same but for numbers and dates."""

    family: str
    """A fingerprint."""
    target: Target
    calls: int = 0
    input_tokens: int = 0
    read_tokens: int = 0
    written_tokens: int = 0
    saved_nanousd: NanoUSD = ZERO
    paid_nanousd: NanoUSD = ZERO
    breaks: Counter[str] = field(default_factory=Counter)
    lost_tokens: int = 0

    @property
    def hit_rate(self) -> float:
        """The share of input tokens that was read from the cache."""
        return self.read_tokens / self.input_tokens if self.input_tokens else 0.0

    @property
    def net_nanousd(self) -> NanoUSD:
        """What caching earned; negative where writes were wasted."""
        return NanoUSD(self.saved_nanousd - self.paid_nanousd)


def diagnose(traces: Iterable[Trace]) -> list[PrefixReport]:
    """A report for each prefix, the one with the most input first.

    Args:
        traces: In the order of time.
    """
    reports: dict[tuple[str, Target], PrefixReport] = {}
    recent: dict[Target, deque[Trace]] = {}
    for trace in traces:
        name = family(trace)
        report = reports.setdefault((name, trace.target), PrefixReport(name, trace.target))
        report.calls += 1
        report.input_tokens += trace.input_tokens
        report.read_tokens += trace.read_tokens
        report.written_tokens += trace.written_tokens
        report.saved_nanousd = NanoUSD(report.saved_nanousd + trace.saved_nanousd)
        report.paid_nanousd = NanoUSD(report.paid_nanousd + trace.paid_nanousd)
        before = recent.setdefault(trace.target, deque(maxlen=_COMPARED))
        found = find_break(trace, before)
        if found is not None:
            report.breaks[found.reason] += 1
            report.lost_tokens += found.lost_tokens
        before.append(trace)
    return sorted(reports.values(), key=lambda report: -report.input_tokens)


def family(trace: Trace) -> str:
    """The fingerprint of tools, in any order, and system prompt, blind to numbers and dates."""
    shapes = sorted(each.shape for each in trace.segments if each.place.startswith("tool "))
    shapes += [each.shape for each in trace.segments if each.place.startswith("system ")]
    return sha256(" ".join(shapes).encode()).hexdigest()[:12]


def find_break(trace: Trace, before: Iterable[Trace]) -> Break | None:
    """What broke the prefix that ``trace`` shares with the most similar of the calls before it, if anything did."""
    best, earlier = 0, None
    for candidate in before:
        score = _similarity(candidate.segments, trace.segments)
        if score and score >= best:  # the latest of equals
            best, earlier = score, candidate
    return None if earlier is None else compare(earlier, trace)


def compare(before: Trace, after: Trace) -> Break | None:
    """What broke the prefix between two calls.

    ``None`` where nothing did: the later call continues the earlier one, or parts from it with a question of its own.
    """
    old, new = before.segments, after.segments
    at = next(
        (n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a.print != b.print), min(len(old), len(new))
    )
    changed = [name for name, _ in set(before.params) ^ set(after.params)]
    if changed and at and any(each.place.startswith(("system", "message")) for each in new[:at]):
        names = ", ".join(sorted(set(changed)))
        return Break(f"parameter {names} changed", sum(each.size for each in new[:at]) // _BYTES_PER_TOKEN)
    if at in (len(old), len(new)):
        return None
    kept = {each.print for each in old[at + 1 :]}
    same = sum(each.size for each in new[at + 1 :] if each.print in kept)
    was, now = old[at], new[at]
    if was.place.startswith("tool ") or now.place.startswith("tool "):
        reason = _tools_reason(old, new, now if now.place.startswith("tool ") else was)
    elif now.place.startswith("system") and was.shape == now.shape:
        same += now.size
        reason = f"{now.place} differs only in numbers or dates: a timestamp, counter or id"
    elif 2 * same < sum(each.size for each in old[at + 1 :]):
        return None  # another conversation
    elif was.kind == now.kind and now.kind in ("image", "document", "audio"):
        reason = f"{now.place}: the {now.kind} changed"
    else:
        reason = f"{now.place} changed" + (" within the history" if now.place.startswith("message") else "")
    return Break(reason, same // _BYTES_PER_TOKEN) if same else None


def _tools_reason(old: Sequence[Segment], new: Sequence[Segment], at: Segment) -> str:
    was = [each.print for each in old if each.place.startswith("tool ")]
    now = [each.print for each in new if each.place.startswith("tool ")]
    if sorted(was) == sorted(now):
        return "the same tools in another order"
    if len(was) != len(now):
        return f"tools were {'added' if len(now) > len(was) else 'removed'}"
    return f"the definition of {at.place} changed"


def _similarity(old: Sequence[Segment], new: Sequence[Segment]) -> int:
    """The bytes they have in common, wherever they stand."""
    sizes = {each.print: each.size for each in old}
    return sum(sizes.get(each.print, 0) for each in new)
