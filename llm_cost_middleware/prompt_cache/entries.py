"""Entries of a provider's cache, as its usage shows them.

``cache_read`` is the truth: up to there an entry was warm, whoever wrote it, and what was believed to be warm behind it
was not. Where a prefix ends in tokens is known exactly once it was written or read up to there, and estimated before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from llm_cost_middleware.prompt_cache.insurance import Loan
from llm_cost_middleware.prompt_cache.layout import PromptLayout
from llm_cost_middleware.prompt_cache.plan import LIFETIME_S
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import TokenUsage

_SHORTEST = "5m"
_FAR_OFF = 0.06
"""Share of the tokens read by which the estimate of a boundary may differ from them."""
_FAR_OFF_TOKENS = 200


class Entry:
    """Entry of a prefix at one model."""

    __slots__ = ("expires", "loan", "seen_at", "tokens", "ttl")

    def __init__(self, expires: float, ttl: str, tokens: int, seen_at: float) -> None:
        self.expires = expires
        self.seen_at = seen_at
        """When a request last showed that it is there, or is not."""
        self.ttl = ttl
        self.tokens = tokens
        """Tokens up to its end; 0 if not known exactly."""
        self.loan: Loan | None = None
        """What is lent on its write while nobody has read it."""


class HoldsEntries(Protocol):
    """Record of a fingerprint."""

    entries: dict[ModelRef, Entry]


def learn_entries(
    layout: PromptLayout,
    target: ModelRef,
    usage: TokenUsage,
    marked: Mapping[int, str],
    *,
    at: float,
    find: Callable[[bytes], HoldsEntries | None],
    make: Callable[[bytes], HoldsEntries],
) -> tuple[list[Entry], Entry | None]:
    """Update the entries from the usage of a request with marks.

    Args:
        layout: The request.
        target: The model that answered.
        usage: What it reports.
        marked: The boundaries that bore a mark, with its lifetime.
        at: When it was planned: lifetimes count from there.
        find: Returns the record of a fingerprint.
        make: The same, making one where there is none.

    Returns:
        The entries that were read, and the deepest one that was written.
    """
    boundaries, read, written = layout.boundaries, usage.cache_read, usage.cache_write
    records = [find(each.fingerprint) for each in boundaries]
    known = [None if record is None else record.entries.get(target) for record in records]
    hit = _end_of_read(layout, usage, known) if read else -1
    deepest = max(marked, default=-1)
    for number in range(deepest + 1):
        entry = known[number]
        if entry is not None and number > hit and entry.expires > at:
            entry.expires = entry.seen_at = at  # believed, and not there
    read_now = _renew(layout, target, usage, marked, known, hit, at=at, make=make)
    fresh: Entry | None = None
    for number in sorted(marked) if written else ():
        if number > hit:
            ttl, tokens = marked[number], read + written if number == deepest else 0
            fresh = Entry(at + LIFETIME_S.get(ttl, 300.0), ttl, tokens, at)
            make(boundaries[number].fingerprint).entries[target] = fresh
    return read_now, fresh


def _renew(
    layout: PromptLayout,
    target: ModelRef,
    usage: TokenUsage,
    marked: Mapping[int, str],
    known: list[Entry | None],
    hit: int,
    *,
    at: float,
    make: Callable[[bytes], HoldsEntries],
) -> list[Entry]:
    """Renew the entry that was read, and the marked ones before it; return them."""
    if hit < 0:
        return []
    entry = known[hit]
    if entry is None:  # another process wrote it
        prefix = layout.boundaries[hit].fingerprint
        entry = make(prefix).entries[target] = Entry(at, _SHORTEST, 0, at)
    entry.tokens = usage.cache_read
    before = (known[number] for number in sorted(marked) if number < hit)
    renewed = [each for each in before if each is not None and each.expires > at] + [entry]
    for each in renewed:  # for the lifetime that it was written with
        each.expires, each.seen_at = max(each.expires, at + LIFETIME_S.get(each.ttl, 300.0)), at
    return renewed


def _end_of_read(layout: PromptLayout, usage: TokenUsage, known: list[Entry | None]) -> int:
    """Return the boundary up to which tokens were read; -1 if it is none of this request's."""
    read, scale = usage.cache_read, usage.input_tokens / layout.size if layout.size else 0.0
    best, found = max(_FAR_OFF * read, _FAR_OFF_TOKENS), -1
    for number, boundary in enumerate(layout.boundaries):
        entry = known[number]
        if entry is not None and entry.tokens == read:
            return number
        off = abs(boundary.end * scale - read)
        if off < best and (entry is None or not entry.tokens):
            best, found = off, number
    return found
