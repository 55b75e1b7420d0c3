"""The thread of a process that ships while calls go on."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from weakref import WeakMethod

from llm_cost_middleware.budget.leases.desk import Desk
from llm_cost_middleware.budget.leases.shipping import Shipping
from llm_cost_middleware.errors import LedgerError
from llm_cost_middleware.fork import ForkSafeLock

_log = logging.getLogger(__name__)
_LEAST_S = 0.05
"""Between two ticks, however much a block is missed."""
_TIGHT_S = 0.2
"""Between two ticks while blocks end, as near the end of a budget."""
_LINGER = 60
"""Ticks without a call or a block after which the thread ends."""


class Keeper:
    """Ships every ``interval_s`` seconds, and at once where a block is missed. The first call starts the thread."""

    _lock = ForkSafeLock()

    def __init__(self, shipping: Shipping, desk: Desk, interval_s: float) -> None:
        self._shipping, self._desk, self._interval_s = shipping, desk, interval_s
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closed = False

    def hurry(self) -> None:
        """A block is missing or too small."""
        self._wake.set()
        self.ensure()

    def ensure(self) -> None:
        """There is something to be shipped: at the next tick, by a thread that runs."""
        if self._thread is None and not self._closed:
            self._start()

    def close(self) -> None:
        """Hand everything back, as far as the storage can be reached, and end the thread."""
        self._closed = self._desk.closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=30)
        empty = False
        try:
            self._shipping.drain()
            empty = not self._desk.ending and not self._desk.due
        except LedgerError as error:
            _log.warning("what is not shipped is kept for the next process: %s", error)
        journal, self._desk.journal = self._desk.journal, None
        if journal is not None:
            try:
                journal.close(empty=empty)
            except OSError as error:
                _log.warning("the journal of leases was not closed: %s", error)

    def forget(self) -> None:
        """After a fork: the thread is the parent's."""
        self._thread, self._wake = None, threading.Event()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="llm-cost-leases", daemon=True)
                self._thread.start()
                atexit.register(_close, WeakMethod(self.close))

    def _run(self) -> None:
        idle = 0
        while not self._closed and idle < _LINGER:
            self._wake.wait(min(self._interval_s, _TIGHT_S) if self._desk.tight else self._interval_s)
            self._wake.clear()
            began = time.monotonic()
            try:
                if not self._desk.closed:
                    self._shipping.tick()
            except LedgerError as error:
                _log.warning("leases wait for the ledger: %s", error)
                time.sleep(min(self._interval_s, 1.0))
            except Exception:  # noqa: BLE001 - a storage of somebody's own fails in words of its own; the next tick may not
                _log.exception("leases could not be shipped")
                time.sleep(min(self._interval_s, 1.0))
            idle = 0 if self._desk.busy or self._shipping.has_notes else idle + 1
            time.sleep(max(_LEAST_S - (time.monotonic() - began), 0.0))
        self._thread = None
        if self._desk.busy or self._shipping.has_notes:  # since the last look: whoever left it saw this thread
            self.ensure()


def _close(close: WeakMethod[Callable[[], None]]) -> None:
    method = close()
    if method is not None:
        method()
