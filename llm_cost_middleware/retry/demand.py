"""What a circuit breaker measures of a target: how often it is asked, how long it takes, how much is under way."""

from __future__ import annotations

from collections import deque
from math import exp

LATENCY_MEMORY_S = 300.0
IN_FLIGHT_MAX_AGE_S = 60.0  # a call whose end is never told, a dropped stream for one, does not count for ever


class Rate:
    """Events a second over the last ``memory_s`` seconds, as an exponentially weighted count."""

    __slots__ = ("_at", "_count", "_memory_s")

    def __init__(self, memory_s: float) -> None:
        self._count, self._at, self._memory_s = 0.0, 0.0, memory_s

    def add(self, now: float) -> None:
        """Count one event."""
        passed = self._at - now  # as ``_decayed`` has it, in place: twice a call
        self._count = self._count * exp(passed / self._memory_s) + 1.0 if passed < 0.0 else self._count + 1.0
        self._at = now

    def per_second(self, now: float) -> float:
        """The present rate."""
        return self._decayed(now) / self._memory_s

    def of_others(self, now: float) -> float:
        """The present rate without the last event: where that asks for it, it would count twice at a low rate."""
        return max(self._count - 1.0, 0.0) * exp(min(self._at - now, 0.0) / self._memory_s) / self._memory_s

    def _decayed(self, now: float) -> float:
        return self._count * exp(min(self._at - now, 0.0) / self._memory_s)


class TypicalLatency:
    """Seconds from sending to the answer, as a mean that forgets."""

    __slots__ = ("_at", "seconds")

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._at = 0.0

    def add(self, now: float, seconds: float) -> None:
        """Take in one answered call."""
        if self.seconds is None:
            self.seconds = seconds
        else:
            passed = self._at - now
            forgotten = 1.0 - exp(passed / LATENCY_MEMORY_S) if passed < 0.0 else 0.0
            self.seconds += forgotten * (seconds - self.seconds)
        self._at = now


class InFlight:
    """Calls that were admitted and have not ended."""

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began: deque[float] = deque()

    def begin(self, now: float) -> None:
        """Count a call that is sent."""
        self._began.append(now)

    def end(self) -> None:
        """Take one call off: the oldest, as which of them it was makes no difference here."""
        if self._began:
            self._began.popleft()

    def count(self, now: float) -> int:
        """Calls under way."""
        while self._began and self._began[0] <= now - IN_FLIGHT_MAX_AGE_S:
            self._began.popleft()
        return len(self._began)

    def clear(self) -> None:
        """Forget all of them."""
        self._began.clear()
