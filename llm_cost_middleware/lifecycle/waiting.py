"""Calls that wait for money that calls in flight hold: first come, first served, for each scope that refused one.

A call that ends in this process wakes the first in line at once. Calls of other processes are not heard of: the first
in line looks again every quarter of a second. Fairness is within a process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from llm_cost_middleware.event_loops import LoopEvent
from llm_cost_middleware.fork import ForkSafeLock

POLL_S = 0.25
"""How long the first in line waits before it looks again, unless it is woken."""
_SMOOTHING = 0.2


class Ticket:
    """The place of one call in a line. Waited on by one thread or one task."""

    __slots__ = ("_asleep", "_event", "_line", "scope")

    def __init__(self, line: WaitingCalls, scope: str) -> None:
        self._line, self.scope = line, scope
        self._event = threading.Event()
        self._asleep: LoopEvent | None = None

    def wake(self) -> None:
        """Let it look again. From any thread."""
        self._event.set()
        if (asleep := self._asleep) is not None:
            asleep.set()

    def wait(self, seconds: float) -> bool:
        """Block the calling thread until it is woken. Returns whether it was."""
        woken = self._event.wait(seconds)
        self._event.clear()
        return woken

    async def await_(self, seconds: float) -> bool:
        """Suspend the calling task until it is woken; one that is cancelled leaves the line."""
        event = self._asleep = LoopEvent()
        try:
            if not self._event.is_set():  # set between the last look and now
                await event.wait(seconds)
        except TimeoutError:
            return self._event.is_set()
        except BaseException:  # a task that is being closed may not run the flow to its end: the next must not wait
            self._line.leave(self)
            raise
        else:
            return True
        finally:
            self._asleep = None
            self._event.clear()


class WaitingCalls:
    """The lines of a pipeline. Safe to share between threads and event loops."""

    _lock = ForkSafeLock()

    def __init__(self) -> None:
        self._lines: dict[str, deque[Ticket]] = {}
        self._held_s: float | None = None

    @property
    def held_s(self) -> float | None:
        """How long a call holds its money, lately and on average; ``None`` before the first has ended."""
        return self._held_s

    @property
    def busy(self) -> bool:
        """Whether any call waits."""
        return bool(self._lines)

    def line_of(self, scopes: Iterable[str]) -> str | None:
        """The scope whose line a call of these scopes has to join: it must not overtake."""
        if not self._lines:
            return None
        with self._lock:
            return next((scope for scope in scopes if scope in self._lines), None)

    def join(self, scope: str) -> Ticket:
        """A place at the end of a line."""
        ticket = Ticket(self, scope)
        with self._lock:
            self._lines.setdefault(scope, deque()).append(ticket)
        return ticket

    def ahead_of(self, ticket: Ticket) -> int:
        """How many stand before it."""
        with self._lock:
            line = self._lines.get(ticket.scope, ())
            return next((at for at, other in enumerate(line) if other is ticket), 0)

    def leave(self, ticket: Ticket) -> None:
        """Give up a place; the next in line is woken. Again: nothing."""
        with self._lock:
            line = self._lines.get(ticket.scope)
            if line is None or ticket not in line:
                return
            line.remove(ticket)
            following = line[0] if line else None
            if following is None:
                del self._lines[ticket.scope]
        if following is not None:
            following.wake()

    def released(self, held_s: float) -> None:
        """A call has ended and its money was booked or given back: whoever is first in a line looks again."""
        before = self._held_s
        self._held_s = held_s if before is None else before + _SMOOTHING * (held_s - before)
        if not self._lines:
            return
        with self._lock:
            first = [line[0] for line in self._lines.values()]
        for ticket in first:
            ticket.wake()
