"""Tools that are sent, and billed, in every call of a site and that no answer has ever called."""

from __future__ import annotations

from collections.abc import Iterator

from llm_cost_middleware.advice.calls import INPUT, OUTPUT, READ, WRITES, CallGroup
from llm_cost_middleware.advice.evidence import Change, Evidence, Proposal, examples, named
from llm_cost_middleware.advice.kinds.steps import without
from llm_cost_middleware.advice.pricing import Served

_SEEN = 50
"""Calls whose answers were seen, from which a tool without a call counts as unused."""
_UNKNOWN = (
    "whether a tool is there for rare cases; streamed answers are not looked into, what later turns show of them is"
)
_LEARN = "leave the tools out for a share of the calls, or defer them (defer_loading) where the model has tool search"


class _Without(Change):
    """Without the tokens of some tools: they stand at the beginning of a prompt, where most is read from the cache."""

    def __init__(self, groups: list[CallGroup], unused: frozenset[str], least: int) -> None:
        super().__init__(groups)
        self._unused, self._least = unused, least

    def after(self, group: CallGroup, index: int, served: Served) -> Served:
        """See ``Change``."""
        chars = group.chars[index]
        size = sum(length for mark, length in group.key.tools if mark in self._unused)
        if not chars or not size:
            return served
        less = sum(served.tokens[:OUTPUT]) * min(size, chars) // chars
        left = without(served.tokens, less, (READ, *WRITES, INPUT))
        whole = sum(left[:OUTPUT])
        if whole < self._least:  # too short for a cache: all of it is paid for in full
            left = (whole, *(0 for _ in (READ, *WRITES)), *left[OUTPUT:])
        return served._replace(tokens=left)


def unused_tools(evidence: Evidence) -> Iterator[Proposal]:
    """Call sites with tools that were never called."""
    by_site: dict[str, list[CallGroup]] = {}
    for group in evidence.log.groups:
        if group.key.tools and group.key.known:
            by_site.setdefault(group.key.site, []).append(group)
    for site, groups in by_site.items():
        sent: dict[str, int] = {}
        used = {mark for group in groups for mark in group.used}
        for group in groups:
            for mark, _ in group.key.tools:
                sent[mark] = sent.get(mark, 0) + group.seen
        unused = frozenset(mark for mark, seen in sent.items() if seen >= _SEEN and mark not in used)
        if not unused:
            continue
        largest = max(groups, key=len).key.tools
        places = [number for number, (mark, _) in enumerate(largest, 1) if mark in unused]
        told = ", ".join(map(str, places))
        yield Proposal(
            "tools", site, str(groups[0].key.target),
            f"{len(unused)} of {len(largest)} tools of {named(site)} were never called in "
            f"{sum(group.seen for group in groups):,} calls, and are billed in each",
            (f"# in the code of {named(site)}: leave out tools number {told} of {len(largest)}, in the order sent",),
            _Without(groups, unused, _least(evidence, groups)),
            {"unused": len(unused), "sent": len(largest), "places": places,
             "calls_seen": sum(group.seen for group in groups), "tools_called": len(used)},
            _UNKNOWN, _LEARN, examples(groups),
        )  # fmt: skip


def _least(evidence: Evidence, groups: list[CallGroup]) -> int:
    """Tokens of the shortest prompt that is cached, of the models of some calls."""
    return max(evidence.catalogue.limits(*group.key.target).min_cache_tokens or 0 for group in groups)
