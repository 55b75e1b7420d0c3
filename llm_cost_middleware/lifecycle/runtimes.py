"""The ledger of a pipeline as its calls reach it: blocking, or on an event loop with connections of that loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from llm_cost_middleware.budget.backend import Journal, SharedState, SupportsAsync
from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.drivers import Runtime, running_loop
from llm_cost_middleware.lifecycle.orphans import OrphanQueue
from llm_cost_middleware.lifecycle.spool import Spool
from llm_cost_middleware.lifecycle.upkeep import NO_UPKEEP, Upkeep, UpkeepPlan


class RuntimePool:
    """One ``Runtime`` for threads, and one for each event loop where the storage has a client for event loops.

    Args:
        ledger: The ledger, opened.
        clock: Time.
        owned: Close the ledger with this pool; otherwise its opener closes it.
        plan: What upkeep the ledger needs meanwhile.
    """

    _lock = ForkSafeLock()

    def __init__(self, ledger: Ledger, clock: Clock, *, owned: bool, plan: UpkeepPlan = NO_UPKEEP) -> None:
        self.ledger, self._owned = ledger, owned
        self.spool = Spool(ledger, clock) if ledger.blocks else None
        """What the ledger could not take; ``None`` on a memory ledger, which takes all."""
        self._upkeep = Upkeep(ledger, clock, plan) if ledger.blocks and plan != NO_UPKEEP else None
        self.orphans = OrphanQueue(self.spool, self._upkeep)
        self.blocks = ledger.blocks
        """True if a verb of the ledger may wait for storage."""
        self.sync = Runtime(ledger, clock, None, self.orphans, self.orphans.loop_calls)
        self._shared: Runtime | None = None
        if not self.blocks:
            self._shared = self.sync
        elif not isinstance(ledger.backend, SupportsAsync):  # worker threads serve every loop
            self._shared = Runtime(ledger, clock, AsyncLedger.over(ledger), self.orphans, self.orphans.loop_calls)
        # Connections belong to the event loop that opened them, and hold it: neither is collected while it stands here.
        self._by_loop: dict[asyncio.AbstractEventLoop, Runtime] = {}
        self._ends: dict[asyncio.AbstractEventLoop, AsyncGenerator[None]] = {}

    def look_after(self, plan: UpkeepPlan) -> None:
        """Give the ledger this upkeep from now on, where it has any."""
        if self._upkeep is not None:
            self._upkeep.plan = plan

    @property
    def journal(self) -> Journal | None:
        """Where lines beside money are kept; ``None`` on a memory ledger, which ends with the process anyway."""
        return self.ledger.journal if self.blocks else None

    @property
    def takes_notes(self) -> bool:
        """Whether lines beside money can be written in the transaction of the money."""
        shared = self._shared.aledger if self._shared is not None else None
        return self.blocks and self.ledger.takes_notes and (shared is None or shared.takes_notes)

    @property
    def shared_state(self) -> SharedState | None:
        """Where processes share what they have learned; ``None`` on a memory ledger, which has one process."""
        return self.ledger.shared_state if self.blocks else None

    def of_loop(self) -> Runtime:
        """The runtime of the running event loop."""
        if self._shared is not None:
            return self._shared
        loop = running_loop(blocks=True)
        assert loop is not None  # noqa: S101 - it is there, or the line above raises; for mypy
        with self._lock:
            runtime = self._by_loop.get(loop)
            if runtime is None:
                self._forget_closed_loops()
                aledger = AsyncLedger.over(self.ledger)
                runtime = self._by_loop[loop] = Runtime(
                    self.ledger, self.sync.clock, aledger, self.orphans, self.orphans.loop_calls
                )
                if loop not in self._ends:
                    self._ends[loop] = end = self._until_the_loop_ends()
                    with suppress(StopIteration):  # it yields at once
                        end.__anext__().send(None)
            return runtime

    async def _until_the_loop_ends(self) -> AsyncGenerator[None]:
        """Close the connections with the event loop: who ends one finishes its generators, as ``asyncio.run`` does."""
        try:
            yield
        finally:
            await self._leave_loop()

    async def _leave_loop(self) -> None:
        runtime = self._by_loop.pop(asyncio.get_running_loop(), None)
        if runtime is not None and runtime.aledger is not None:
            await runtime.aledger.aclose()

    def _forget_closed_loops(self) -> None:
        """Let go of loops that were closed with their generators unfinished, and of what was opened after that."""
        for loop in [loop for loop in self._ends if loop.is_closed()]:
            self._by_loop.pop(loop, None)
            del self._ends[loop]

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        if self._owned and self._shared is not None and self._shared.aledger is not None:
            await self._shared.aledger.aclose()  # it closes the ledger itself
        else:
            await self._leave_loop()

    def close(self) -> None:
        """Close the ledger, if this pool owns it."""
        if self._upkeep is not None:
            self._upkeep.close()
        if self._owned:
            self.ledger.close()
