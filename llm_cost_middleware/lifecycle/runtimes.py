"""The ledger of a pipeline as its calls reach it: blocking, or on an event loop with connections of that loop."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from llm_cost_middleware.budget.backend import Journal
from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.drivers import Runtime
from llm_cost_middleware.lifecycle.orphans import OrphanQueue


class RuntimePool:
    """One ``Runtime`` for threads, and one for each event loop where the storage needs connections of its own.

    Args:
        url: The ledger.
        clock: Time.
        options: Further arguments of ``Ledger.open``.

    Raises:
        ConfigurationError: A URL that cannot be used.
        LedgerUnavailableError: The ledger's storage cannot be opened.
    """

    _lock = ForkSafeLock()

    def __init__(self, url: str, clock: Clock, **options: Any) -> None:
        self._url, self._options = url, {"clock": clock, **options}
        self.ledger = Ledger.open(url, **self._options)
        self.orphans = OrphanQueue()
        self.blocks = not url.startswith("memory:")
        """Whether a verb of the ledger may wait for storage."""
        self.sync = Runtime(self.ledger, clock, None, self.orphans)
        self._shared = self.sync
        if url.startswith("sqlite:"):
            over = {name: self._options[name] for name in ("clock", "hold_ttl_s", "on_expiry")}
            self._shared = Runtime(self.ledger, clock, AsyncLedger.over(self.ledger, **over), self.orphans)
        self._is_shared = not self.blocks or self._shared is not self.sync
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()

    @property
    def journal(self) -> Journal | None:
        """Where lines beside money are kept; ``None`` on a memory ledger, which ends with the process anyway."""
        return self.ledger.journal if self.blocks else None

    def of_loop(self) -> Runtime:
        """The runtime of the running event loop."""
        if self._is_shared:
            return self._shared
        loop = asyncio.get_running_loop()
        with self._lock:
            runtime = self._by_loop.get(loop)
            if runtime is None:
                aledger = AsyncLedger.open(self._url, **self._options)
                runtime = self._by_loop[loop] = Runtime(self.ledger, self.sync.clock, aledger, self.orphans)
            return runtime

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        runtime = self._shared if self._is_shared else self._by_loop.pop(asyncio.get_running_loop(), None)
        if runtime is not None and runtime.aledger is not None:
            await runtime.aledger.aclose()
