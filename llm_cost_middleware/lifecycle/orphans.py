"""Calls that nobody will finish: dropped streams, calls of closed event loops, bookings that the ledger did not take.

The pipeline settles them on its next activity.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_cost_middleware.event_loops import in_thread

if TYPE_CHECKING:
    from llm_cost_middleware.lifecycle.spool import Spool
    from llm_cost_middleware.lifecycle.upkeep import Upkeep

Settle = Callable[[], None]


class LoopCalls:
    """Calls under way by event loop. One that is closed under them never resumes them."""

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, dict[int, Settle]] = {}

    def enter(self, loop: asyncio.AbstractEventLoop, key: int, settle: Settle) -> None:
        """A call begins. ``settle`` ends it as if it were cancelled."""
        self._by_loop.setdefault(loop, {})[key] = settle

    def leave(self, loop: asyncio.AbstractEventLoop, key: int) -> None:
        """A call has ended."""
        calls = self._by_loop.get(loop)
        if calls is not None:
            calls.pop(key, None)
            if not calls:
                self._by_loop.pop(loop, None)

    def __bool__(self) -> bool:
        """Whether any loop was closed under its calls."""
        return bool(self._by_loop) and any(loop.is_closed() for loop in tuple(self._by_loop))

    def take_stranded(self) -> list[Settle]:
        """Return how to settle the calls of closed loops, once."""
        closed = [loop for loop in tuple(self._by_loop) if loop.is_closed()]
        return [settle for loop in closed for settle in self._by_loop.pop(loop, {}).values()]


class OrphanQueue(deque[Settle]):
    """How to settle each orphan. A finaliser may run anywhere, under any lock, so it only appends here."""

    def __init__(self, spool: Spool | None = None, upkeep: Upkeep | None = None) -> None:
        super().__init__()
        self.spool, self.upkeep, self.loop_calls = spool, upkeep, LoopCalls()

    def __bool__(self) -> bool:
        """Whether there is anything to settle now."""
        return (
            len(self) > 0
            or (self.spool is not None and self.spool.due)
            or (self.upkeep is not None and self.upkeep.due)
            or bool(self.loop_calls)
        )

    def settle(self, *, closing: bool = False) -> None:
        """Settle all; with ``closing`` also try what is not due to be tried again."""
        if self.spool is not None:
            self.spool.retry(force=closing)
        if self.upkeep is not None and self.upkeep.due and not closing:
            self.upkeep.start()
        self.extend(self.loop_calls.take_stranded())
        while len(self):
            try:
                settle = self.popleft()
            except IndexError:  # another thread was quicker
                return
            settle()

    async def asettle(self) -> None:
        """Settle all, without blocking the event loop."""
        if self:
            await in_thread(self.settle)
