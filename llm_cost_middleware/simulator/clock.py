"""Simulator's clock: it stands still until a test moves it."""

import threading

START = 1_795_435_200.0
"""2026-11-23T12:00:00Z."""


class SimClock:
    """Seconds since the epoch, moved by hand; cache lifetimes and `created` stamps follow it.

    Args:
        start: The first reading.
    """

    def __init__(self, start: float = START) -> None:
        self._now = start
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the current reading."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Move forward (or, with a negative number, back) and return the new reading."""
        with self._lock:
            self._now += seconds
            return self._now

    def set(self, at: float) -> None:
        """Jump to an absolute reading."""
        with self._lock:
            self._now = at
