"""Cache report: savings of caching by prefix, and the causes of prefixes that could not be read.

Each call is compared with the most similar of the calls shortly before it at the same model. Unless it continues that
call, the first segment that differs broke the prefix, and everything behind it was paid for again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.prompt_cache.trace import Segment, Trace
from llm_cost_middleware.request import ModelRef

COMPARED = 32
"""Number of earlier calls of the same model that are searched for the most similar one."""
_BYTES_PER_TOKEN = 4


class PrefixBreak(NamedTuple):
    """Cause for which a call could not read the prefix of an earlier one."""

    reason: str
    """Such as ``system 0 differs only in numbers or dates: a timestamp or counter``."""
    lost_tokens: int
    """Estimated tokens behind the difference that were the same, and paid for again."""


@dataclass(slots=True)
class PrefixReport:
    """Totals of one prefix: calls whose tools and system prompt differ at most in numbers and dates."""

    prefix_id: str
    """Fingerprint of tools and system prompt."""
    target: ModelRef
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
        """Share of input tokens that was read from the cache."""
        return self.read_tokens / self.input_tokens if self.input_tokens else 0.0

    @property
    def net_nanousd(self) -> NanoUSD:
        """Saving of reads less the cost of writes; negative if writes were wasted."""
        return NanoUSD(self.saved_nanousd - self.paid_nanousd)


def report_prefixes(traces: Iterable[Trace]) -> list[PrefixReport]:
    """Return a report per prefix, most input first.

    Args:
        traces: Traces in chronological order.
    """
    reports: dict[tuple[str, ModelRef], PrefixReport] = {}
    recent: dict[ModelRef, deque[Trace]] = {}
    for trace in traces:
        name = prefix_id(trace)
        report = reports.setdefault((name, trace.target), PrefixReport(name, trace.target))
        report.calls += 1
        report.input_tokens += trace.input_tokens
        report.read_tokens += trace.read_tokens
        report.written_tokens += trace.written_tokens
        report.saved_nanousd = NanoUSD(report.saved_nanousd + trace.saved_nanousd)
        report.paid_nanousd = NanoUSD(report.paid_nanousd + trace.paid_nanousd)
        before = recent.setdefault(trace.target, deque(maxlen=COMPARED))
        found = find_prefix_break(trace, before)
        if found is not None:
            report.breaks[found.reason] += 1
            report.lost_tokens += found.lost_tokens
        before.append(trace)
    return sorted(reports.values(), key=lambda report: -report.input_tokens)


def prefix_id(trace: Trace) -> str:
    """Return the fingerprint of tools, in any order, and system prompt, without numbers and dates."""
    # Shapes, not texts: a timestamp in the system prompt breaks the cache, and must not hide that it is one prefix.
    shapes = sorted(each.shape for each in trace.segments if each.place.startswith("tool "))
    shapes += [each.shape for each in trace.segments if each.place.startswith("system ")]
    return sha256(" ".join(shapes).encode()).hexdigest()[:12]


def find_prefix_break(trace: Trace, before: Iterable[Trace]) -> PrefixBreak | None:
    """Return the cause that broke the prefix shared with the most similar earlier call; ``None`` if intact."""
    earlier = most_similar(trace, before)
    return None if earlier is None else compare_prompts(earlier, trace)


def most_similar(trace: Trace, before: Iterable[Trace]) -> Trace | None:
    """Return the earlier call that shares most with a call; ``None`` if none shares anything.

    One that shares no text may still begin alike but for numbers and dates: then the latest of these.
    """
    best, earlier, alike = 0, None, None
    shape = trace.segments[0].shape if trace.segments else ""
    for candidate in before:
        score = _similarity(candidate.segments, trace.segments)
        if score and score >= best:  # of equals the latest: its cache entry is the one most likely still alive
            best, earlier = score, candidate
        elif shape and candidate.segments and candidate.segments[0].shape == shape:
            alike = candidate
    return alike if earlier is None else earlier


def compare_prompts(before: Trace, after: Trace) -> PrefixBreak | None:
    """Return the cause that broke the prefix between two calls.

    ``None`` if the later call continues the earlier one, or differs only in its own question.
    """
    old, new = before.segments, after.segments
    at = next(
        (n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a.fingerprint != b.fingerprint),
        min(len(old), len(new)),
    )
    # Parameters come first: their change invalidates the cache even if every segment is the same.
    changed = [name for name, _ in set(before.params) ^ set(after.params)]
    if changed and at and any(each.place.startswith(("system", "message")) for each in new[:at]):
        names = ", ".join(sorted(set(changed)))
        return PrefixBreak(f"parameter {names} changed", sum(each.size for each in new[:at]) // _BYTES_PER_TOKEN)
    if at in (len(old), len(new)):
        return None
    kept = {each.fingerprint for each in old[at:]}  # one more segment moves the one that stood here
    same = sum(each.size for each in new[at + 1 :] if each.fingerprint in kept)
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
    return PrefixBreak(reason, same // _BYTES_PER_TOKEN) if same else None


def _tools_reason(old: Sequence[Segment], new: Sequence[Segment], at: Segment) -> str:
    was = [each.fingerprint for each in old if each.place.startswith("tool ")]
    now = [each.fingerprint for each in new if each.place.startswith("tool ")]
    if sorted(was) == sorted(now):
        return "the same tools in another order"
    if len(was) != len(now):
        return f"tools were {'added' if len(now) > len(was) else 'removed'}"
    return f"the definition of {at.place} changed"


def _similarity(old: Sequence[Segment], new: Sequence[Segment]) -> int:
    """Return the bytes in common, at any position."""
    sizes = {each.fingerprint: each.size for each in old}
    return sum(sizes.get(each.fingerprint, 0) for each in new)
