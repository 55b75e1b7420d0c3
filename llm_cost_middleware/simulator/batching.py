"""A batch on its way, the same for both providers: worked off in waves, cancelled, or expired after a day.

Rules, with their sources:

- A batch is processed within 24 hours; what is not answered by then expires, and what was answered is returned and
  billed (OpenAI, Batch API FAQ "What happens if the API doesn't complete my request"; Anthropic, "Batch processing":
  batches expire after 24 hours, and expired requests are not billed).
- A batch can be cancelled while it is processed; what was answered by then is returned and billed (``batches.cancel``
  of both SDKs: "cancelling for up to 10 minutes"; "may contain partial results").
- Everything costs half (both price lists). Prompt caches work as far as they may: requests are processed at the same
  time, in any order, so hits are "best effort", 30 to 98 % (Anthropic, "Using prompt caching with Message Batches").
  Here a wave does not read what the same wave writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .engine import ServedRequest, ServingEngine
from .pace import BatchPace
from .reading import Dialect
from .refusals import Refusal

WINDOW_S = 86_400.0
"""Both: "which is 24 hours after creation" (``MessageBatch.expires_at``), ``completion_window="24h"``."""
_WAVES = 4
Ending = Literal["answered", "errored", "canceled", "expired"]


@dataclass(slots=True)
class Item:
    """One request of a batch, and what became of it."""

    custom_id: str
    params: Mapping[str, Any]
    ending: Ending | None = None
    reply: Any = None
    status: int = 0


class BatchJob:
    """The requests of one batch. Nothing happens by itself: whoever looks moves it to the present.

    Args:
        engine: Answers and bills.
        dialect: The endpoint.
        items: The requests.
        headers: Of the request that created it.
        key: The API key.
        pace: As at its creation.
    """

    def __init__(
        self, engine: ServingEngine, dialect: Dialect, items: list[Item], headers: Mapping[str, str], key: str,
        pace: BatchPace,
    ) -> None:  # fmt: skip
        self._engine, self._dialect, self._headers, self._key, self._pace = engine, dialect, headers, key, pace
        self.items = items
        self.created_at = engine.clock.now()
        self.ended_at: float | None = None
        self.cancelled_at: float | None = None
        most = len(items) - round(len(items) * pace.stuck)
        size = max(-(-most // _WAVES), 1)
        self._waves = [items[at : min(at + size, most)] for at in range(0, most, size)]
        self._done = 0
        self.advance()

    @property
    def expired(self) -> bool:
        """Whether it ended with requests that had no turn."""
        return any(item.ending == "expired" for item in self.items)

    def count(self, *endings: Ending | None) -> int:
        """How many requests have ended so."""
        return sum(item.ending in endings for item in self.items)

    def advance(self) -> None:
        """Move it to the present."""
        now, waves = self._engine.clock.now(), len(self._waves)
        end = self.created_at + WINDOW_S
        while self.ended_at is None and self._done < waves:
            due = self.created_at + self._pace.delay_s * (self._done + 1) / waves
            if due > min(now, end) or (self.cancelled_at is not None and due > self.cancelled_at):
                break
            self._run(self._waves[self._done], due)
            self._done += 1
        if self.ended_at is not None:
            return
        if all(item.ending for item in self.items):
            self._end(self.created_at + self._pace.delay_s)
        elif self.cancelled_at is not None:
            self._end(self.cancelled_at, "canceled")
        elif now >= end:
            self._end(end, "expired")

    def cancel(self) -> bool:
        """Cancel it; return whether it was still on its way."""
        self.advance()
        if self.ended_at is not None or self.cancelled_at is not None:
            return False
        self.cancelled_at = self._engine.clock.now()
        return True

    def _end(self, at: float, rest: Ending | None = None) -> None:
        self.ended_at = at
        for item in self.items:
            item.ending = item.ending or rest

    def _run(self, wave: list[Item], at: float) -> None:
        begun: list[tuple[Item, ServedRequest]] = []
        for item in wave:
            try:
                reading = self._engine.read(self._dialect, item.params, self._headers, 0)
                begun.append((item, self._engine.begin(self._dialect, reading, self._key, tier="batch", at=at)))
            except Refusal as refusal:
                item.ending, item.reply, item.status = "errored", refusal.body, refusal.status
        for item, served in begun:
            self._engine.started(served)
            item.ending, item.reply, item.status = "answered", self._dialect.reply(served.out), 200
            served.close("complete")


def page(rows: list[dict[str, Any]], after: str | None, limit: str | None) -> tuple[list[dict[str, Any]], bool]:
    """Return a page of a list, the newest first, and whether more follow."""
    newest = rows[::-1]
    if after:
        newest = newest[next((at + 1 for at, row in enumerate(newest) if row["id"] == after), len(newest)) :]
    size = min(max(int(limit or 20), 1), 100)
    return newest[:size], len(newest) > size
