"""Streams in the caller's hands. The hold lives as long as the stream; every way of leaving it settles, once.

A stream that is dropped without being closed is noticed by its finaliser. A finaliser may run anywhere, under any
lock, so it only queues the stream; the pipeline settles what is queued on its next activity, and when it closes.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from math import inf
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from llm_cost_middleware.errors import LedgerError
from llm_cost_middleware.event_loops import other_loop, within
from llm_cost_middleware.lifecycle.commands import Extend, HandOffStream, LedgerCommand, OpenedStream, StreamEnd

if TYPE_CHECKING:
    from llm_cost_middleware.budget.ledger import Ledger
    from llm_cost_middleware.clock import Clock

STREAM_DEADLINE_MESSAGE = "the call has reached its deadline (retry.stream_deadline_s) in the middle of its stream"
_LINKS = 8  # an exception chain is followed this far


class StreamSettlement:
    """The end of a stream that is being consumed: when it is due, how to settle it, and whether that was done."""

    __slots__ = ("_command", "_ending", "_orphaned", "_renew_at", "_resume", "due", "hold", "now")

    def __init__(
        self,
        command: HandOffStream,
        clock: Clock,
        orphaned: deque[Callable[[], None]],
        resume: Callable[[StreamEnd], object],
    ) -> None:
        self._command, self._orphaned, self._resume = command, orphaned, resume
        # What is looked at before each chunk, in place: ``due_command`` is for when one of them says so.
        self.now, self.hold = clock.monotonic, command.hold
        self._ending = Lock()
        held = command.reservation_id is not None
        self._renew_at = self.now() + command.hold_ttl_s / 2 if held else inf
        self.due = min(self._renew_at, command.deadline)

    @property
    def call_id(self) -> str:
        """The call whose answer the stream is."""
        return self._command.call_id

    @property
    def opened(self) -> OpenedStream:
        """The stream, its iterator and its first chunk."""
        return self._command.opened

    def end(self, error: BaseException | None) -> None:
        """Settle the stream; the second time, nothing."""
        if (end := self.claim_end(error)) is not None:
            self._resume(end)

    def claim_end(self, error: BaseException | None) -> StreamEnd | None:
        """How the stream ended, for the first who asks; ``None`` for everybody else, in whatever thread."""
        return StreamEnd(self.opened.stream.reading(), error) if self._ending.acquire(blocking=False) else None

    def due_command(self) -> LedgerCommand | None:
        """The command that renews the reservation, once half of its lifetime has passed; or one that reduces it.

        It may fail: then the stream settles late, or holds more than it needs.

        Raises:
            TimeoutError: The call's deadline has passed, and the answer is not complete.
        """
        now, command = self.now(), self._command
        if command.hold is not None and command.hold.wanted:
            return command.hold.by_stream(self.opened.stream.reading())
        if now < self.due:
            return None
        if now >= command.deadline:
            if not self.opened.stream.reading().complete:
                raise TimeoutError(STREAM_DEADLINE_MESSAGE)
            self.due = inf  # the usage is complete, so the call is paid for: do not time it out
        if now < self._renew_at or command.reservation_id is None:
            return None
        # Half of the time is left for a renewal that fails and is tried again.
        self._renew_at = now + command.hold_ttl_s / 2
        self.due = min(self._renew_at, command.deadline)
        return Extend(command.reservation_id, command.hold_ttl_s)

    def seconds_left(self) -> float:
        """Seconds to the deadline."""
        return self._command.deadline - self.now()

    def enqueue_orphan(self) -> None:
        """Called by the finaliser, which may run under any lock: leave the rest to the pipeline."""
        if not self._ending.locked():
            self._orphaned.append(partial(self.end, GeneratorExit()))


def is_generator_close(error: BaseException) -> bool:
    """Whether a coroutine or generator is being closed, by whatever name its inner layers let that through."""
    link: BaseException | None = error
    for _ in range(_LINKS):
        if link is None or isinstance(link, GeneratorExit):
            break
        link = link.__cause__ or link.__context__
    return isinstance(link, GeneratorExit)


def _on_deadline(stream: weakref.ref[AsyncGovernedStream]) -> None:
    if (waiting := stream()) is not None:  # the timer holds only a weak reference: a dropped stream can be collected
        waiting.cancel_pending_read()


class GovernedStream(Iterator[Any]):
    """The chunks of a synchronous stream."""

    def __init__(self, settlement: StreamSettlement, ledger: Ledger) -> None:
        self._settlement, self._ledger = settlement, ledger
        self._finalizer = weakref.finalize(self, settlement.enqueue_orphan)
        self._finalizer.atexit = False  # at exit nobody can settle it any more: it expires
        self._iterator = settlement.opened.chunks()

    @property
    def call_id(self) -> str:
        """The call whose answer the stream is."""
        return self._settlement.call_id

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            end = self._settlement
            looks = end.now() >= end.due or (end.hold is not None and end.hold.wanted)
            if looks and (due := end.due_command()) is not None:
                with suppress(LedgerError):
                    due.apply(self._ledger)
            return next(self._iterator)
        except StopIteration:
            self._iterator = iter(())
            self._end(None)
            raise
        except BaseException as error:
            self._iterator = iter(())  # whatever the host's would do next: it has ended
            if isinstance(error, TimeoutError):  # perhaps the deadline's: then the connection is still open
                with suppress(Exception):
                    self._settlement.opened.stream.close()
            self._end(error)
            raise

    def close(self) -> None:
        """Walk away: close the connection and settle. Safe to call twice."""
        try:
            self._settlement.opened.stream.close()
        finally:
            self._end(GeneratorExit())

    def _end(self, error: BaseException | None) -> None:
        self._finalizer.detach()
        self._settlement.end(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Ended:
    """An asynchronous iterator that has come to its end."""

    async def __anext__(self) -> Any:
        raise StopAsyncIteration


_ended = _Ended()


class _Timed:
    """The rest of a stream on trio, each of whose waits ends at the deadline, unless the answer is complete."""

    def __init__(self, rest: Any, settlement: StreamSettlement) -> None:
        self._rest, self._settlement = rest, settlement

    async def __anext__(self) -> Any:
        end = self._settlement
        left = inf if end.opened.stream.reading().complete else end.seconds_left()
        try:
            return await within(left, self._rest.__anext__())
        except TimeoutError as error:
            if end.seconds_left() > 0:
                raise  # the host's own
            raise TimeoutError(STREAM_DEADLINE_MESSAGE) from error


class AsyncGovernedStream(AsyncIterator[Any]):
    """The chunks of an asynchronous stream."""

    def __init__(
        self,
        settlement: StreamSettlement,
        resume: Callable[[StreamEnd], Awaitable[object]],
        run: Callable[[LedgerCommand], Awaitable[object]],
    ) -> None:
        self._settlement, self._resume, self._run = settlement, resume, run
        self._finalizer = weakref.finalize(self, settlement.enqueue_orphan)
        self._finalizer.atexit = False
        self._first, self._rest = settlement.opened.first, settlement.opened.rest
        self._waiting: asyncio.Task[Any] | None = None
        self._cancelled_before: int | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        if (left := settlement.seconds_left()) < inf and other_loop() is not None:
            self._rest = _Timed(self._rest, settlement)
        elif left < inf:
            self._loop = asyncio.get_running_loop()
            self._alarm = self._loop.call_later(left, _on_deadline, weakref.ref(self))

    @property
    def call_id(self) -> str:
        """The call whose answer the stream is."""
        return self._settlement.call_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            end = self._settlement
            looks = end.now() >= end.due or (end.hold is not None and end.hold.wanted)
            if looks and (due := end.due_command()) is not None:
                with suppress(LedgerError):
                    await self._run(due)
            if self._first:
                (chunk,), self._first = self._first, ()
                return chunk
            if self._loop is not None:  # only an alarm asks; the loop is given, for to look for it costs a system call
                self._waiting = asyncio.current_task(self._loop)
            try:
                return await self._rest.__anext__()
            except asyncio.CancelledError as error:
                if (
                    self._is_own_cancellation()
                ):  # by the deadline; whoever else cancelled the task meanwhile comes first
                    raise TimeoutError(STREAM_DEADLINE_MESSAGE) from error
                raise
            finally:
                self._waiting = None
        except StopAsyncIteration:
            self._rest = _ended
            await self._end(None)
            raise
        except BaseException as error:
            self._rest = _ended  # whatever the host's would do next
            if isinstance(error, TimeoutError):
                with suppress(Exception):
                    await self._settlement.opened.stream.aclose()
            if not is_generator_close(error):  # else this coroutine may not await any more: that is for the finaliser
                await self._end(error)
            raise

    def cancel_pending_read(self) -> None:
        """The deadline has passed: end the wait for the next chunk."""
        if self._waiting is not None and not self._settlement.opened.stream.reading().complete:
            self._cancelled_before = self._waiting.cancelling()
            self._waiting.cancel()

    def _is_own_cancellation(self) -> bool:
        """Whether the deadline alone cancelled the waiting task; takes that back, as ``asyncio.timeout`` does."""
        before, self._cancelled_before = self._cancelled_before, None
        return before is not None and self._waiting is not None and self._waiting.uncancel() <= before

    async def aclose(self) -> None:
        """Walk away: close the connection and settle. Safe to call twice."""
        self._first, self._rest = (), _ended
        try:
            await self._settlement.opened.stream.aclose()
        finally:
            await self._end(GeneratorExit())

    async def _end(self, error: BaseException | None) -> None:
        self._finalizer.detach()
        if self._alarm is not None:
            self._alarm.cancel()
        if (end := self._settlement.claim_end(error)) is not None:
            await self._resume(end)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
