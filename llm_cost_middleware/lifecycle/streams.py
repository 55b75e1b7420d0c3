"""Streams in the caller's hands. The hold lives as long as the stream; every way of leaving it settles, once.

A stream that is dropped without being closed is noticed by its finaliser. A finaliser may run anywhere, under any
lock, so it only queues the stream; the pipeline settles what is queued on its next activity, and when it closes.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Any, Self

from llm_cost_middleware.errors import LedgerError
from llm_cost_middleware.lifecycle.commands import Deliver, Extend, Opened, StreamEnd, World

_LINKS = 8  # an exception chain is followed this far


class Delivery:
    """The state of a stream that is being consumed: how to end it, and whether it has ended."""

    __slots__ = ("_command", "_ending", "_renew_at", "_resume", "world")

    def __init__(self, command: Deliver, world: World, resume: Callable[[StreamEnd], Any]) -> None:
        self._command, self._resume, self.world = command, resume, world
        self._ending = Lock()
        self._renew_at = world.clock.monotonic() + command.lease_s / 2

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
        """The command that renews the lease, when half of it has passed. It may fail: then the stream settles late."""
        now = self.world.clock.monotonic()
        if now < self._renew_at or self._command.reservation_id is None:
            return None
        self._renew_at = now + self._command.lease_s / 2
        return Extend(self._command.reservation_id, self._command.lease_s)

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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            if (renewal := self._delivery.renewal()) is not None:
                with suppress(LedgerError):
                    await renewal.arun(self._delivery.world)
            return await anext(self._iterator)
        except StopAsyncIteration:
            await self._end(None)
            raise
        except BaseException as error:
            if not is_closing(error):  # else this coroutine may not await any more: that is for the finaliser
                await self._end(error)
            raise

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
        if (end := self._delivery.told(error)) is not None:
            await self._resume(end)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
