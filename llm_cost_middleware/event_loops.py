"""What a call needs of the event loop that it runs on: asyncio's, or trio's where the ledger is in memory."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


_A_MOMENT = 1e-5  # seconds; it becomes some 60 µs


def make_way() -> None:
    """Let other threads have their turn now, between two steps of long work in this one.

    Without it, an event loop waits for the interpreter's lock until the switch interval is over, 5 ms each time.
    """
    if threading.active_count() > 1:
        time.sleep(_A_MOMENT)


def other_loop() -> Any | None:
    """Return trio, where its loop runs in this thread. It is not imported: who runs it has done that."""
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    # httpcore imports it wherever it is installed: it may be older than 0.23, or half imported by another thread.
    runs = getattr(getattr(trio, "lowlevel", None), "in_trio_run", None)
    return trio if runs is not None and runs() else None


def current_loop() -> object | None:
    """What stands for the event loop of this thread, to be compared; ``None`` where there is none."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 - documented for frameworks; ``None`` in place of an error
    if loop is None and (trio := other_loop()) is not None:
        token: object = trio.lowlevel.current_trio_token()
        return token
    return loop


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in a thread. A cancellation does not stop it; on trio it is delivered afterwards."""
    trio = other_loop()
    if trio is None:
        return await asyncio.to_thread(function, *args, **kwargs)
    with trio.CancelScope(shield=True):  # asyncio begins it in a cancelled task, too: it may book
        result: T = await trio.to_thread.run_sync(lambda: function(*args, **kwargs))
    return result


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """Wait for something so many seconds.

    Raises:
        TimeoutError: It took longer, and was cancelled.
    """
    trio = other_loop()
    if trio is None:
        return await asyncio.wait_for(awaitable, seconds)
    with trio.move_on_after(max(seconds, 0)) as scope:
        result = await awaitable
    if scope.cancelled_caught:
        raise TimeoutError
    return result


async def result_of(future: Future[T]) -> T:
    """Wait for what a thread works out."""
    trio = other_loop()
    if trio is None:
        return await asyncio.wrap_future(future)
    result: T = await trio.to_thread.run_sync(future.result, abandon_on_cancel=True)
    return result


async def at_once(width: int, work: Callable[[], Awaitable[None]]) -> None:
    """Have so many workers do the same work, and wait for all; the first that fails cancels the others.

    Raises:
        BaseExceptionGroup: What failed.
    """
    trio = other_loop()
    if trio is None:
        async with asyncio.TaskGroup() as group:
            for _ in range(width):
                group.create_task(work())  # type: ignore[arg-type]  # a coroutine function
        return
    async with trio.open_nursery() as nursery:
        for _ in range(width):
            nursery.start_soon(work)


class LoopEvent:
    """An event for one task of the running loop, which any thread may set."""

    __slots__ = ("_event", "_soon")

    def __init__(self) -> None:
        trio = other_loop()
        self._event: Any = asyncio.Event() if trio is None else trio.Event()
        loop: Any = asyncio.get_running_loop() if trio is None else trio.lowlevel.current_trio_token()
        self._soon = loop.call_soon_threadsafe if trio is None else loop.run_sync_soon

    def set(self) -> None:
        """Wake the task. From any thread."""
        with suppress(RuntimeError):  # its loop was closed: nobody waits any more
            self._soon(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Wait until it is set. Raises ``TimeoutError``."""
        await within(seconds, self._event.wait())
