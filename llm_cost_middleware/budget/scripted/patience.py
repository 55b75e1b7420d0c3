"""How often a step is sent again to a server that is away, and until when."""

from __future__ import annotations

import time
from collections.abc import Callable

from llm_cost_middleware.budget.scripted.commands import PATIENCE_MS

TIMEOUT_S = 3.0
"""Seconds that one answer may take: a caller is waiting for the one to his reserve, ``PATIENCE_MS`` in all."""
_TRIES = 7
FLEET_TRIES = 24
"""As many where another server may take the place of one that refuses: until the time is over."""


class Patience:
    """For one verb, of which every step may be sent twice.

    It rides out a lost connection or a short fail-over; a server that does not answer at all is given up in time.

    Args:
        is_passing: Whether an error may be gone at the next try.
        tries: How many at most.
    """

    def __init__(self, is_passing: Callable[[Exception], bool], tries: int = _TRIES) -> None:
        self._is_passing, self._most = is_passing, tries
        self._tries, self._until = 0, time.monotonic() + PATIENCE_MS / 1000

    def pause_s(self, error: Exception) -> float | None:
        """Return how long to wait before the next try; ``None`` if there is none."""
        self._tries += 1
        pause = min(0.01 * 2**self._tries, 0.5)
        last = self._tries >= self._most or time.monotonic() + pause + TIMEOUT_S > self._until
        return None if last or not self._is_passing(error) else pause
