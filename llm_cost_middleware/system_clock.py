"""The real clock: the only module that reads the time or sleeps."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """``Clock`` on the machine's own time."""

    __slots__ = ()

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    asleep = staticmethod(asyncio.sleep)
