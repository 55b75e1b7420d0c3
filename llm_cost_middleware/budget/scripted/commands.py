"""What ``ScriptedProtocol`` yields, and the client of a server runs."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

MAX_STALE = 50
"""Consecutive "stale" replies before giving up."""
PATIENCE_MS = 10_000
"""Time after which a caller is refused at the latest, where the server does not answer."""
BLOCK = 500
"""Rows that are read at once."""


class Script(NamedTuple):
    """Step that the server runs as a whole: a script of Redis, a function of PostgreSQL."""

    name: str
    keys: list[str]
    args: list[Any]


T = TypeVar("T")
CommandFlow = Generator[Any, Any, T]
"""Yields steps, or other commands that the client of this server knows, and receives their replies."""
