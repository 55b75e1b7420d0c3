"""Streams in the caller's hands. The hold lives as long as the stream; every way of leaving it settles, once.

A stream that is dropped without being closed is noticed by its finaliser. A finaliser may run anywhere, under any
lock, so it only queues the stream; the pipeline settles what is queued on its next activity, and when it closes.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from math import inf
from threading import Lock
from types import TracebackType
from typing import Any, Self

from llm_cost_middleware.errors import LedgerError
from llm_cost_middleware.lifecycle.commands import Deliver, Extend, Opened, StreamEnd, World

LATE = "the call has reached its deadline (retry.stream_deadline_s) in the middle of its stream"
_LINKS = 8  # an exception chain is followed this far


class Delivery:
    """The state of a stream that is being consumed: how to end it, and whether it has ended."""

    __slots__ = ("_command", "_due", "_ending", "_renew_at", "_resume", "world")

    def __init__(self, command: Deliver, world: World, resume: Callable[[StreamEnd], Any]) -> None:
        self._command, self._resume, self.world = command, resume, world
        self._ending = Lock()
        held = command.reservation_id is not None
        self._renew_at = world.clock.monotonic() + command.lease_s / 2 if held else inf
        self._due = min(self._renew_at, command.deadline)

    @property
    def opened(self) -> Opened:
        """The stream, its iterator and its first chunk."""
        return self._command.opened

    def end(self, error: BaseException | None) -> None:
        """Settle the stream; the second time, nothing."""
        if (end := self.told(error)) is not None:
            self._resume(end)

    def told(self, error: BaseException | None) -> StreamEnd | None:
        """How it ended; ``None`` to everybody but the first who asks, in whatever thread."""
        return StreamEnd(self.opened.stream.reading(), error) if self._ending.acquire(blocking=False) else None

    def renewal(self) -> Extend | None:
        """The command that renews the lease, when half of it has passed. It may fail: then the stream settles late.

        Raises:
            TimeoutError: The call's deadline has passed, and the answer has not been told to its end.
        """
        now = self.world.clock.monotonic()
        if now < self._due:
            return None
        command = self._command
        if now >= command.deadline:
            if not self.opened.stream.reading().complete:
                raise TimeoutError(LATE)
            self._due = inf  # paid for, and as good as delivered
        if now < self._renew_at or command.reservation_id is None:
            return None
        self._renew_at = now + command.lease_s / 2
        self._due = min(self._renew_at, command.deadline)
        return Extend(command.reservation_id, command.lease_s)

    def left(self) -> float:
        """Seconds to the deadline."""
        return self._command.deadline - self.world.clock.monotonic()

    def abandon(self) -> None:
        """Called by the finaliser: leave the rest to the pipeline."""
        if not self._ending.locked():
            self.world.abandoned.append(partial(self.end, GeneratorExit()))


def is_closing(error: BaseException) -> bool:
    """Whether a coroutine or generator is being closed, by whatever name its inner layers let that through."""
    link: BaseException | None = error
    for _ in range(_LINKS):
        if link is None or isinstance(link, GeneratorExit):
            break
        link = link.__cause__ or link.__context__
    return isinstance(link, GeneratorExit)


def _wake(stream: weakref.ref[AsyncGovernedStream]) -> None:
    if (waiting := stream()) is not None:  # not even a clock keeps a stream that was dropped
        waiting.wake()


class GovernedStream(Iterator[Any]):
    """The chunks of a synchronous stream."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._finalizer = weakref.finalize(self, delivery.abandon)
        self._finalizer.atexit = False  # nobody is left to settle it then but its lease
        self._iterator = delivery.opened.chunks()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            if (renewal := self._delivery.renewal()) is not None:
                with suppress(LedgerError):
                    renewal.run(self._delivery.world)
            return next(self._iterator)
        except StopIteration:
            self._end(None)
            raise
        except BaseException as error:
            if isinstance(error, TimeoutError):  # perhaps the deadline's: then the connection is still open
                with suppress(Exception):
                    self._delivery.opened.stream.close()
            self._end(error)
            raise

    def close(self) -> None:
        """Walk away: close the connection and settle. Safe to call twice."""
        try:
            self._delivery.opened.stream.close()
        finally:
            self._end(GeneratorExit())

    def _end(self, error: BaseException | None) -> None:
        self._finalizer.detach()
        self._delivery.end(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncGovernedStream(AsyncIterator[Any]):
    """The chunks of an asynchronous stream."""

    def __init__(self, delivery: Delivery, resume: Callable[[StreamEnd], Awaitable[Any]]) -> None:
        self._delivery, self._resume = delivery, resume
        self._finalizer = weakref.finalize(self, delivery.abandon)
        self._finalizer.atexit = False
        self._iterator = delivery.opened.achunks()
        self._waiting: asyncio.Task[Any] | None = None
        self._cancelled_before: int | None = None
        self._alarm: asyncio.TimerHandle | None = None
        if (left := delivery.left()) < inf:
            self._alarm = asyncio.get_running_loop().call_later(left, _wake, weakref.ref(self))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            if (renewal := self._delivery.renewal()) is not None:
                with suppress(LedgerError):
                    await renewal.arun(self._delivery.world)
            self._waiting = asyncio.current_task()
            try:
                return await anext(self._iterator)
            except asyncio.CancelledError as error:
                if self._is_woken():  # by the deadline; whoever else cancelled the task meanwhile comes first
                    raise TimeoutError(LATE) from error
                raise
            finally:
                self._waiting = None
        except StopAsyncIteration:
            await self._end(None)
            raise
        except BaseException as error:
            if isinstance(error, TimeoutError):
                with suppress(Exception):
                    await self._delivery.opened.stream.aclose()
            if not is_closing(error):  # else this coroutine may not await any more: that is for the finaliser
                await self._end(error)
            raise

    def wake(self) -> None:
        """The deadline has passed: whoever waits for a chunk, waits no longer."""
        if self._waiting is not None and not self._delivery.opened.stream.reading().complete:
            self._cancelled_before = self._waiting.cancelling()
            self._waiting.cancel()

    def _is_woken(self) -> bool:
        """Whether the deadline alone cancelled the waiting task; takes that back, as ``asyncio.timeout`` does."""
        before, self._cancelled_before = self._cancelled_before, None
        return before is not None and self._waiting is not None and self._waiting.uncancel() <= before

    async def aclose(self) -> None:
        """Walk away: close the connection and settle. Safe to call twice."""
        try:
            with suppress(RuntimeError):  # the iterator is being awaited elsewhere: the connection goes first
                await self._iterator.aclose()
            await self._delivery.opened.stream.aclose()
        finally:
            await self._end(GeneratorExit())

    async def _end(self, error: BaseException | None) -> None:
        self._finalizer.detach()
        if self._alarm is not None:
            self._alarm.cancel()
        if (end := self._delivery.told(error)) is not None:
            await self._resume(end)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
