"""Memos whose counts a storage can add up by itself, without reading what a memo says."""

from __future__ import annotations

from typing import NamedTuple, Self

MOST_COUNTS = 5
"""So many counts has a memo at most that is tallied; one with more is read by itself."""


class Tally(NamedTuple):
    """A memo taken apart, so that equal kinds can be added up."""

    kind: str
    """A memo itself: what it shares with others, and zeros in the place of its counts."""
    counts: tuple[int, ...]
    """Its counts, in the order in which they stand in ``kind``."""


class TalliedMemo(bytes):
    """A memo with its tally. Whoever copies its bytes alone loses no more than time when sums are made."""

    tally: Tally | None = None

    @classmethod
    def of(cls, memo: bytes, kind: str, counts: tuple[int, ...]) -> Self:
        """Return a memo with its tally; without one where it has more counts than are tallied."""
        found = cls(memo)
        if len(counts) <= MOST_COUNTS:
            found.tally = Tally(kind, counts)
        return found


class UnwrittenMemo:
    """A memo as its parts: bytes are made of it where it leaves the process, or is read. Immutable to others."""

    __slots__ = ()

    def written(self) -> bytes:
        """Return the memo."""
        raise NotImplementedError


def written_memo(memo: bytes | UnwrittenMemo) -> bytes:
    """Return a memo as its bytes."""
    return memo.written() if isinstance(memo, UnwrittenMemo) else memo


def tally_of(memo: bytes) -> Tally | None:
    """Return the tally of a memo, if its writer gave it one."""
    return memo.tally if isinstance(memo, TalliedMemo) else None
