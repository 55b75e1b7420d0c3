"""Work ahead of a first call on an event loop, in a thread of its own.

Not in the loop's default executor: its workers may all wait for that very call, and a loop that is ending has shut it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial

from llm_cost_middleware.capabilities import read_table as read_capabilities
from llm_cost_middleware.event_loops import make_way, other_loop, result_of
from llm_cost_middleware.lifecycle.drivers import running_loop
from llm_cost_middleware.limits import read_table as read_limits
from llm_cost_middleware.platform import PLATFORMS, find_platform
from llm_cost_middleware.pricing.genai import installed_version
from llm_cost_middleware.pricing.overlay import packaged
from llm_cost_middleware.providers import NAMES, get_provider

_PATIENCE_S = 5.0
_threads: set[threading.Thread] = set()


def _let_end() -> None:
    """Wait for those at work before a fork: in the child, what they were importing would stay locked for ever."""
    for thread in tuple(_threads):
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join(_PATIENCE_S)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_let_end)


def load_tables() -> None:
    """Load what calls look up, a millisecond or two at a time: an event loop gets its turn between two pieces."""
    by_provider = get_provider, read_limits, read_capabilities
    pieces: list[Callable[[], object]] = [partial(load, name) for load in by_provider for name in NAMES]
    pieces += [partial(find_platform, name) for name in PLATFORMS]
    pieces += packaged, installed_version
    for piece in pieces:
        make_way()
        with suppress(Exception):  # a provider of one's own that cannot be loaded: its first call says so
            piece()
    make_way()


class WarmUp:
    """Does a piece of work once for all that wait for it, on whichever loops. Nothing of it fails them."""

    def __init__(self) -> None:
        self._under_way: tuple[int, Future[None]] | None = None

    async def wait(self, work: Callable[[], None]) -> None:
        """Wait until the work is done: by a thread that began before, or by one that begins now.

        Args:
            work: What to do. Its errors are nobody's; a caller who is cancelled leaves it running.
        """
        try:
            done = self.begin(work)
        except RuntimeError:  # no more threads: the call does the work itself, where it needs it
            return
        loop = running_loop(blocks=False)
        if loop is None:
            if other_loop() is not None:
                await result_of(done)
            return
        woken = loop.create_future()

        def tell(_: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits there
                loop.call_soon_threadsafe(wake)

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        done.add_done_callback(tell)
        await woken

    def begin(self, work: Callable[[], None]) -> Future[None]:
        """Begin the work in a thread, unless one is at it or has done it.

        Raises:
            RuntimeError: There are no more threads.
        """
        process = os.getpid()
        if self._under_way is not None and self._under_way[0] == process:  # a fork leaves the thread behind
            return self._under_way[1]
        done: Future[None] = Future()
        context = copy_context()

        def run() -> None:
            try:
                with suppress(Exception):
                    context.run(work)
            finally:
                _threads.discard(thread)
                done.set_result(None)

        thread = threading.Thread(target=run, name="llm-cost-warm-up", daemon=True)
        _threads.add(thread)  # first: it may have ended by the next line
        try:
            thread.start()
        except RuntimeError:
            _threads.discard(thread)
            raise
        self._under_way = process, done
        return done
