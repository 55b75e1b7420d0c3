"""Digests of beginnings of prompts, kept to go on from: conversations are sent again with every turn.

Tools and instructions return with nearly every request of an application, and all but the last turn of a conversation
with its next one. Where a prompt begins as one that was digested here before, only what follows is digested.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llm_cost_middleware.request import BlockRef, CallRequest

_KEPT = 1_024
"""Beginnings to keep: about a kilobyte each, and no more than ten."""
_MOST = 64
"""Boundaries in a beginning that is kept."""


class Boundary(Struct, frozen=True, gc=False):
    """Position where a cached prefix can end."""

    ref: BlockRef
    number: int
    """Number of the block, as a lookback counts blocks."""
    end: int
    """UTF-8 bytes of the prompt up to here."""
    tokens: int
    """Estimated tokens up to here."""
    fingerprint: bytes
    """What tells the prompt up to here apart: 16 bytes, or 8 that no other process knows."""
    mark: str | None
    """TTL of the caller's own mark here."""
    markable: bool


class CallersMark(Struct, frozen=True, gc=False):
    """Cache mark that the caller set on a block."""

    number: int
    """Number of the block that bears it, or that contains the one that does."""
    ttl: str


class Digested(Struct, frozen=True, gc=False):
    """A beginning of a prompt, as far as it was read."""

    digest: Any
    """Its SHA-256, to be copied before it is fed."""
    size: int
    """Its UTF-8 bytes."""
    number: int
    """Number of its last block."""
    head: int
    """Number of its boundaries in tools and system."""
    boundaries: tuple[Boundary, ...]
    """Those in it that are asked for: all up to the end of the first turn, the last one alone behind it."""
    callers: tuple[CallersMark, ...] = ()
    """The caller's marks in it."""


_known: dict[tuple[int, int], Digested] = {}


def begins_with(request: CallRequest, density: float, salts: tuple[str, str]) -> int | None:
    """Return what tells all of a prompt but its messages apart, in this process; ``None`` where it is not to be kept.

    Args:
        request: The request. What tells its messages apart is in its contents, the caller's marks on them excepted.
        density: Tokens per byte, in which boundaries are counted.
        salts: What its parameters add.
    """
    if request.contents.marked:
        return None
    direct = request.endpoint == "messages"
    return hash((density, direct, salts, request.output_schema, request.tools, request.server_tools))


def known(base: int | None, told: int) -> Digested | None:
    """Return what is known of a beginning that ends in the messages ``told``."""
    return None if base is None else _known.get((base, told))


def keep(base: int | None, told: int, found: Digested) -> None:
    """Keep a beginning to go on from."""
    if base is not None and len(found.boundaries) + len(found.callers) <= _MOST:
        if len(_known) >= _KEPT:
            _known.clear()  # beginnings that never return would otherwise grow it for ever
        _known[base, told] = found
