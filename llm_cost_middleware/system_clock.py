"""The real clock: the only module that reads the time or sleeps."""

from __future__ import annotations

import asyncio
import time

from llm_cost_middleware.event_loops import other_loop


class SystemClock:
    """``Clock`` on the machine's own time."""

    __slots__ = ()

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    @staticmethod
    async def asleep(seconds: float) -> None:
        """Suspend the calling task, on asyncio or trio."""
        await (other_loop() or asyncio).sleep(seconds)
