"""Commands that ``RedisProtocol`` yields, and ``client`` runs."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

MAX_STALE = 50
"""Consecutive "stale" replies before giving up."""
PATIENCE_MS = 10_000
"""Time after which a caller is refused at the latest, where the server does not answer."""
BLOCK = 500
"""Rows that are read at once."""


class RedisScript(NamedTuple):
    """Script of ``lua/`` to run."""

    name: str
    keys: list[str]
    args: list[Any]


class RedisCommand(NamedTuple):
    """Plain command to run."""

    words: tuple[Any, ...]


T = TypeVar("T")
CommandFlow = Generator[RedisScript | RedisCommand, Any, T]
