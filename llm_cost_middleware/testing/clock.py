"""Clock that tests advance."""

from __future__ import annotations

import asyncio

from llm_cost_middleware.event_loops import other_loop


class FakeClock:
    """``Clock`` for tests: time passes in ``advance``, and when code under test sleeps.

    Args:
        start: Wall time in seconds since the Unix epoch; by default 2026-01-15 12:00 UTC.
    """

    def __init__(self, start: float = 1_768_478_400.0) -> None:
        self.slept: list[float] = []
        self._now, self._monotonic = start, 0.0

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since the clock was created."""
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        """Advance at once, and append to ``slept``."""
        self.slept.append(seconds)
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        """Advance at once, and let other tasks run."""
        self.sleep(seconds)
        # Else a loop of sleeping tasks would never let another one run.
        await (other_loop() or asyncio).sleep(0)

    def advance(self, seconds: float) -> None:
        """Advance wall and monotonic time."""
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, back or forth, as a correction of the system's time does."""
        self._now += seconds
