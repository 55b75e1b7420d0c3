"""Streams and calls that were dropped unfinished, until the pipeline settles them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class OrphanQueue(deque[Callable[[], None]]):
    """How to settle each orphan. A finaliser may run anywhere, under any lock, so it only appends here."""

    def settle(self) -> None:
        """Settle all."""
        while self:
            try:
                settle = self.popleft()
            except IndexError:  # another thread was quicker
                return
            settle()

    async def asettle(self) -> None:
        """Settle all, without blocking the event loop."""
        if self:
            await asyncio.to_thread(self.settle)
