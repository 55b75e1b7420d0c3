"""Prompts that began like an earlier one and could not be read from the cache, because something in front changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial

from llm_cost_middleware.advice.calls import INPUT, READ, WRITES, CallGroup
from llm_cost_middleware.advice.evidence import Change, Evidence, Proposal, examples, named
from llm_cost_middleware.advice.pricing import Served
from llm_cost_middleware.prompt_cache.cache_report import COMPARED, compare_prompts, most_similar
from llm_cost_middleware.prompt_cache.plan import LIFETIME_S
from llm_cost_middleware.prompt_cache.trace import Trace
from llm_cost_middleware.request import ModelRef

_FEW = 5
_BYTES_PER_TOKEN = 4
_UNKNOWN = "whether the entry would have been alive at each call; within its lifetime it is taken to be"


class _Read(Change):
    """What was the same as before is read from the cache."""

    def __init__(self, groups: list[CallGroup], lost: dict[str, int]) -> None:
        super().__init__(groups)
        self._lost = lost

    def after(self, group: CallGroup, index: int, served: Served) -> Served:
        """See ``Change``."""
        count = self._lost.get(group.ids[index], 0)
        if not count:
            return served
        left = list(served.tokens)
        for bucket in (*WRITES, INPUT):
            taken = min(left[bucket], count)
            left[bucket] -= taken
            left[READ] += taken
            count -= taken
        return served._replace(tokens=tuple(left))


def lost_caches(evidence: Evidence) -> Iterator[Proposal]:
    """Call sites whose prompts are broken by the same cause, again and again."""
    recent: dict[ModelRef, deque[Trace]] = {}
    lost: dict[tuple[str, ModelRef, str], dict[str, int]] = {}
    for trace in evidence.traces():
        before = recent.setdefault(trace.target, deque(maxlen=COMPARED))
        earlier = most_similar(trace, before)
        before.append(trace)
        if earlier is None or trace.at - earlier.at > max(earlier.lifetime_s, LIFETIME_S["5m"]):
            continue
        found = compare_prompts(earlier, trace)
        size = sum(segment.size for segment in trace.segments)
        if found is None or not size:
            continue
        # By bytes, of the tokens that were billed: a count of bytes alone is off by a third.
        tokens = min(found.lost_tokens * _BYTES_PER_TOKEN * trace.input_tokens // size, trace.input_tokens)
        tokens -= trace.read_tokens
        if tokens > 0:
            lost.setdefault((trace.site, trace.target, found.reason), {})[trace.call_id] = tokens
    if not lost:
        return
    by_site = dict(evidence.by_site())
    for (site, target, reason), calls in lost.items():
        groups = [group for group in by_site.get((site, target), ()) if group.key.known]
        if len(calls) < _FEW or not groups:
            continue
        yield Proposal(
            "cache", site, str(target), f"{len(calls):,} prompts of {named(site)} lost their cache: {reason}",
            _lines(reason, site), _Read(groups, calls),
            {"cause": reason, "prompts": len(calls), "lost_tokens": sum(calls.values())}, _UNKNOWN,
            "llm-cost cache shows hit rates before and after",
            examples(groups, partial(_among, frozenset(calls))),
        )  # fmt: skip


def _among(ids: frozenset[str], group: CallGroup, index: int) -> bool:
    return group.ids[index] in ids


def _lines(reason: str, site: str) -> tuple[str, ...]:
    place = reason.split(" differs", maxsplit=1)[0] if " differs" in reason else ""
    if place:
        advice = (
            f"move what changes in {place} (a date, a counter) behind everything that stays, best into the question"
        )
    elif "tools" in reason or "definition" in reason:
        advice = "send the same tools in the same order in every call"
    elif reason.startswith("parameter"):
        advice = "keep this parameter the same over the calls of a conversation"
    else:
        advice = "append to the conversation, and do not change what was sent before"
    return (f"# in the code of {named(site)}:", f"# {advice}")
