"""The real clock: the only module that reads the time or sleeps."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """``Clock`` on the machine's own time."""

    __slots__ = ()

    def now(self) -> float:
        """Seconds since the Unix epoch, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of ``time.monotonic``."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block the calling thread."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Suspend the calling task."""
        await asyncio.sleep(seconds)
