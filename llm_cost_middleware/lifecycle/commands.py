"""What the life of a call asks of the outside world, one class a command. Each knows how to be run, sync and async.

A command that has begun to move money is finished even when the caller is cancelled meanwhile; the cancellation is
delivered afterwards.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import Attempt, CallResult, CallStream

if TYPE_CHECKING:
    from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
    from llm_cost_middleware.clock import Clock
    from llm_cost_middleware.provider import UsageReading


@dataclass(slots=True)
class World:
    """What a driver needs to run commands."""

    ledger: Ledger
    clock: Clock
    send: Callable[[Attempt], Any]
    """Sends an attempt: returns a ``CallResult`` or a ``CallStream``; a coroutine function for the async driver."""
    aledger: AsyncLedger | None = None
    """``None``: the ledger never blocks (memory), so the async driver calls ``ledger`` directly."""
    abandoned: deque[Callable[[], None]] = field(default_factory=deque)
    """How to settle what was dropped unfinished; the pipeline does on its next activity."""


class Opened(NamedTuple):
    """A stream whose first chunk has arrived: from here on nothing is retried."""

    stream: CallStream
    rest: Any
    """The iterator behind the first chunk, sync or async."""
    first: tuple[Any, ...]
    """The first chunk; empty where the stream had none."""

    def chunks(self) -> Iterator[Any]:
        """All chunks."""
        yield from self.first
        yield from self.rest

    async def achunks(self) -> AsyncGenerator[Any, None]:
        """All chunks."""
        for chunk in self.first:
            yield chunk
        async for chunk in self.rest:
            yield chunk


class Send(NamedTuple):
    """Send one attempt and wait for the answer, or for the first chunk of a stream."""

    attempt: Attempt

    def run(self, world: World) -> CallResult | Opened:
        """Send it."""
        answer: CallResult | CallStream = world.send(self.attempt)
        if isinstance(answer, CallResult):
            return answer
        rest: Iterator[Any] = iter(answer)
        try:
            return Opened(answer, rest, tuple(islice(rest, 1)))
        except BaseException:
            with suppress(Exception):  # what went wrong matters more than what closing it says
                answer.close()
            raise

    async def arun(self, world: World) -> CallResult | Opened:
        """Send it."""
        answer: CallResult | CallStream = await world.send(self.attempt)
        if isinstance(answer, CallResult):
            return answer
        rest: AsyncIterator[Any] = aiter(answer)
        try:
            return Opened(answer, rest, (await anext(rest),))
        except StopAsyncIteration:
            return Opened(answer, rest, ())
        except BaseException:
            with suppress(Exception):
                await answer.aclose()
            raise


class Sleep(NamedTuple):
    """Wait."""

    seconds: float

    def run(self, world: World) -> None:
        """Block the thread."""
        world.clock.sleep(self.seconds)

    async def arun(self, world: World) -> None:
        """Suspend the task."""
        await world.clock.asleep(self.seconds)


class Compute(NamedTuple):
    """Run a slow pure function; on an event loop, in a thread."""

    function: Callable[[], Any]

    def run(self, world: World) -> Any:
        """Run it here."""
        del world
        return self.function()

    async def arun(self, world: World) -> Any:
        """Run it in a worker thread."""
        del world
        return await asyncio.to_thread(self.function)


class Note(NamedTuple):
    """Write something down beside the money; on an event loop in a thread where the storage may block."""

    function: Callable[[], None]

    def run(self, world: World) -> None:
        """Write it here."""
        del world
        self.function()

    async def arun(self, world: World) -> None:
        """Write it without blocking the loop."""
        if world.aledger is None:
            self.function()
        else:
            await asyncio.to_thread(self.function)


class _LedgerCommand:
    """A verb of the ledger with its arguments. Not frozen: made for every call and dropped at once."""

    __slots__ = ()

    def call(self, ledger: Any) -> Any:
        """The verb on either face of the ledger."""
        raise NotImplementedError

    def run(self, world: World) -> Any:
        """Run the verb."""
        return self.call(world.ledger)

    async def arun(self, world: World) -> Any:
        """Run the verb to its end, cancelled or not."""
        if world.aledger is None:
            return self.call(world.ledger)
        return await _finish(self.call(world.aledger))


@dataclass(slots=True)
class Reserve(_LedgerCommand):
    """Set money aside. Raises ``BudgetExceededError``."""

    reservation_id: str
    amount: NanoUSD
    scopes: tuple[str, ...]
    ttl: float
    memo: bytes = b""

    def call(self, ledger: Any) -> Any:
        """``reserve``."""
        return ledger.reserve(self.amount, self.scopes, id=self.reservation_id, ttl=self.ttl, memo=self.memo)


@dataclass(slots=True)
class Settle(_LedgerCommand):
    """Book what an attempt cost."""

    reservation_id: str
    amount: NanoUSD
    status: str
    memo: bytes = b""

    def call(self, ledger: Any) -> Any:
        """``settle``."""
        return ledger.settle(self.reservation_id, self.amount, memo=self.memo, status=self.status)


@dataclass(slots=True)
class Void(_LedgerCommand):
    """Give a reservation back: the attempt was certainly not billed."""

    reservation_id: str
    memo: bytes = b""

    def call(self, ledger: Any) -> Any:
        """``void``."""
        return ledger.void(self.reservation_id, memo=self.memo)


@dataclass(slots=True)
class Book(_LedgerCommand):
    """Book money that was spent without a reservation."""

    reservation_id: str
    amount: NanoUSD
    scopes: tuple[str, ...]
    status: str
    memo: bytes = b""

    def call(self, ledger: Any) -> Any:
        """``book``."""
        return ledger.book(self.amount, self.scopes, id=self.reservation_id, memo=self.memo, status=self.status)


@dataclass(slots=True)
class Available(_LedgerCommand):
    """Ask for the least that is available over some scopes; ``None``: unlimited."""

    scopes: tuple[str, ...]

    def call(self, ledger: Any) -> Any:
        """``available``."""
        return ledger.available(self.scopes)


@dataclass(slots=True)
class Look(_LedgerCommand):
    """Ask for the least that is left over some scopes, as money and as a share; ``None``: unlimited."""

    scopes: tuple[str, ...]

    def call(self, ledger: Any) -> Any:
        """``headroom``."""
        return ledger.headroom(self.scopes)


@dataclass(slots=True)
class Extend(_LedgerCommand):
    """Renew the lease of a reservation whose stream is still running."""

    reservation_id: str
    ttl: float

    def call(self, ledger: Any) -> Any:
        """``extend``."""
        return ledger.extend(self.reservation_id, self.ttl)


class StreamEnd(NamedTuple):
    """How a stream was left, and what it said of its usage until then."""

    reading: UsageReading
    error: BaseException | None = None
    """What ended it; ``GeneratorExit`` where the caller walked away, ``None`` where it ran out."""


class Deliver(NamedTuple):
    """Hand an opened stream to the caller. The answer to this command is a ``StreamEnd``."""

    opened: Opened
    reservation_id: str | None
    lease_s: float
    deadline: float = inf
    """Monotonic seconds at which the call has lasted long enough."""


Command = Send | Sleep | Compute | Note | Reserve | Settle | Void | Book | Available | Look | Extend


async def _finish(awaitable: Awaitable[Any]) -> Any:
    task = asyncio.ensure_future(awaitable)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:
            if not task.done():
                raise
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # retrieved: the cancellation takes precedence
        raise cancelled
    return task.result()
