"""Report by call site: what plans expected to read from the cache, what was read, and why the two differ."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from llm_cost_middleware.prompt_cache.cache_report import COMPARED, compare_prompts, find_prefix_break, most_similar
from llm_cost_middleware.prompt_cache.plan import LIFETIME_S
from llm_cost_middleware.prompt_cache.trace import Trace
from llm_cost_middleware.request import ModelRef

_ALIKE = 0.1
"""Share of the expected tokens by which what was read may differ from it."""
_ALIKE_TOKENS = 256
UNEXPECTED = "more was read than expected: something outside this process had written it"
KEPT = "more was read than expected: the provider kept the entry for {minutes} minutes"
EXPIRED = "the entry had expired: {minutes} minutes since the call before"
GONE = (
    "the same prompt was sent within the entry's lifetime, and was not read: the provider dropped it, or the prompt "
    "was changed on its way (a gateway, a hook, another API key)"
)


@dataclass(slots=True)
class SiteReport:
    """Totals of one call site at one model."""

    site: str
    target: ModelRef
    calls: int = 0
    expected_tokens: int = 0
    read_tokens: int = 0
    short_calls: int = 0
    """Calls that read less than was expected."""
    causes: Counter[str] = field(default_factory=Counter)
    """Why calls read more or less than was expected."""


def report_sites(traces: Iterable[Trace]) -> list[SiteReport]:
    """Return a report per call site and model, most calls first.

    Args:
        traces: Traces in chronological order.
    """
    reports: dict[tuple[str, ModelRef], SiteReport] = {}
    recent: dict[ModelRef, deque[Trace]] = {}
    for trace in traces:
        report = reports.setdefault((trace.site, trace.target), SiteReport(trace.site, trace.target))
        report.calls += 1
        report.expected_tokens += trace.expected_tokens
        report.read_tokens += trace.read_tokens
        before = recent.setdefault(trace.target, deque(maxlen=COMPARED))
        off = trace.read_tokens - trace.expected_tokens
        if abs(off) > max(_ALIKE * trace.expected_tokens, _ALIKE_TOKENS):
            report.short_calls += off < 0
            report.causes[_cause_of_more(trace, before) if off > 0 else _cause(trace, before)] += 1
        before.append(trace)
    return sorted(reports.values(), key=lambda report: -report.calls)


def _cause_of_more(trace: Trace, before: deque[Trace]) -> str:
    """Return why a call read more than was expected."""
    earlier = most_similar(trace, before)
    if earlier is not None and trace.at - earlier.at >= LIFETIME_S["5m"] and compare_prompts(earlier, trace) is None:
        return KEPT.format(minutes=int((trace.at - earlier.at) // 60))
    return UNEXPECTED


def _cause(trace: Trace, before: deque[Trace]) -> str:
    """Return why a call read less than was expected."""
    broken = find_prefix_break(trace, before)
    if broken is not None:
        return broken.reason
    earlier = most_similar(trace, before)
    if earlier is not None and trace.at - earlier.at >= (trace.lifetime_s or LIFETIME_S["5m"]):
        return EXPIRED.format(minutes=int((trace.at - earlier.at) // 60))
    return GONE
