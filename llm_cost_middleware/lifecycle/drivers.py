"""The two drivers of a call's flow: they run its commands and send the results back in.

They throw into the generator but never close it: it must be able to resolve its reservation.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.event_loops import in_thread, within
from llm_cost_middleware.lifecycle.commands import (
    AwaitMoney,
    Command,
    CountInput,
    HandOffStream,
    LedgerCommand,
    OpenedStream,
    RunInThread,
    Send,
    Sleep,
    StreamEnd,
    WriteLog,
)
from llm_cost_middleware.lifecycle.orphans import LoopCalls
from llm_cost_middleware.lifecycle.state import CallOutcome
from llm_cost_middleware.lifecycle.streams import (
    AsyncGovernedStream,
    GovernedStream,
    StreamSettlement,
    is_generator_close,
)
from llm_cost_middleware.request import Attempt, CallResult, CallStream

if TYPE_CHECKING:
    from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
    from llm_cost_middleware.clock import Clock

Flow = Generator[Command, Any, CallOutcome]
"""The flow of one call: yields commands, is sent their results, returns the outcome."""
SendAttempt = Callable[[Attempt], "CallResult | CallStream"]
AsyncSendAttempt = Callable[[Attempt], Awaitable["CallResult | CallStream"]]
_Errand = Sleep | RunInThread | CountInput | AwaitMoney | WriteLog


@dataclass(slots=True)
class Runtime:
    """The outside world of a driver: one a pipeline, or on an event loop with its own ledger one a loop."""

    ledger: Ledger
    clock: Clock
    aledger: AsyncLedger | None = None
    """``None``: the ledger never blocks (memory), so the async driver calls ``ledger`` directly."""
    orphaned: deque[Callable[[], None]] = field(default_factory=deque)
    """How to settle what was dropped unfinished; the pipeline does on its next activity."""
    loop_calls: LoopCalls = field(default_factory=LoopCalls)
    """The calls under way by event loop: one that is closed under them never resumes them."""


@overload
def drive(
    flow: Flow, runtime: Runtime, send: SendAttempt, *, value: object = None, error: BaseException | None = None
) -> CallOutcome | GovernedStream: ...
@overload
def drive(
    flow: Flow, runtime: Runtime, send: None, *, value: object = None, error: BaseException | None = None
) -> CallOutcome | GovernedStream | Attempt: ...
def drive(
    flow: Flow, runtime: Runtime, send: SendAttempt | None, *, value: object = None, error: BaseException | None = None
) -> CallOutcome | GovernedStream | Attempt:
    """Run a call to its end; a stream, to the point where it is handed to the caller.

    Without ``send``, stop at the next attempt and return it: the caller sends it and drives on with its answer.
    """
    while True:
        try:
            command = flow.send(value) if error is None else flow.throw(error)
        except StopIteration as stop:
            outcome: CallOutcome = stop.value
            return outcome
        finally:
            value = error = None  # the traceback of an error holds this frame: no cycle of references
        try:
            # Half of all commands, so it is asked first.
            if isinstance(command, LedgerCommand):
                value = command.apply(runtime.ledger)
            elif isinstance(command, Send):
                if send is None:
                    return command.attempt
                value = _send(send, command.attempt)
            elif isinstance(command, HandOffStream):
                end = partial(_resume, flow, runtime)
                return GovernedStream(StreamSettlement(command, runtime.clock, runtime.orphaned, end), runtime.ledger)
            else:
                value = _run(command, runtime)
        except BaseException as raised:  # noqa: BLE001 - the flow decides, KeyboardInterrupt included
            error = raised


@overload
async def adrive(
    flow: Flow, runtime: Runtime, send: AsyncSendAttempt, *, value: Any = None
) -> CallOutcome | AsyncGovernedStream: ...
@overload
async def adrive(
    flow: Flow, runtime: Runtime, send: None, *, value: Any = None
) -> CallOutcome | AsyncGovernedStream | Attempt: ...
async def adrive(
    flow: Flow, runtime: Runtime, send: AsyncSendAttempt | None, *, value: Any = None
) -> CallOutcome | AsyncGovernedStream | Attempt:
    """Run a call on an event loop, as ``drive`` does."""
    loop = running_loop(blocks=runtime.aledger is not None)
    if loop is None:
        return await _adrive(flow, runtime, send, value)
    runtime.loop_calls.enter(loop, id(flow), partial(_cancel, flow, runtime))
    try:
        return await _adrive(flow, runtime, send, value)
    finally:
        runtime.loop_calls.leave(loop, id(flow))


def running_loop(*, blocks: bool) -> asyncio.AbstractEventLoop | None:
    """Return asyncio's loop; ``None`` under another library's (trio), where a ledger in memory needs none.

    Raises:
        ConfigurationError: The ledger ``blocks``: its verbs run in asyncio's threads and connections.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        if not blocks:
            return None
        why = "needs asyncio, and this event loop is another library's (trio?): run calls in threads, or use memory://"
        raise ConfigurationError(why, key="ledger.url") from None


async def _adrive(
    flow: Flow, runtime: Runtime, send: AsyncSendAttempt | None, value: Any
) -> CallOutcome | AsyncGovernedStream | Attempt:
    error: BaseException | None = None
    while True:
        try:
            command = flow.send(value) if error is None else flow.throw(error)
        except StopIteration as stop:
            outcome: CallOutcome = stop.value
            return outcome
        finally:
            value = error = None
        try:
            if isinstance(command, LedgerCommand):
                value = await run_to_end(command, runtime)
            elif isinstance(command, Send):
                if send is None:
                    return command.attempt
                value = await _asend(send, command.attempt)
            elif isinstance(command, HandOffStream):
                # a finaliser may not await: an orphaned stream is settled by the synchronous driver
                end = partial(_resume, flow, runtime)
                settlement = StreamSettlement(command, runtime.clock, runtime.orphaned, end)

                async def aend(end: StreamEnd) -> object:
                    return await adrive(flow, runtime, send, value=end)

                return AsyncGovernedStream(settlement, aend, lambda command: run_to_end(command, runtime))
            else:
                value = await _arun(command, runtime)
        except BaseException as raised:
            if isinstance(raised, GeneratorExit) or (isinstance(command, Send) and is_generator_close(raised)):
                # This coroutine is being closed and may not await; unknown locks may be held: the pipeline settles it.
                runtime.orphaned.append(partial(_cancel, flow, runtime))
                raise
            error = raised


def _resume(flow: Flow, runtime: Runtime, end: StreamEnd) -> object:
    return drive(flow, runtime, None, value=end)  # a stream that has ended is followed by no other attempt


def _cancel(flow: Flow, runtime: Runtime) -> None:
    with suppress(asyncio.CancelledError):
        drive(flow, runtime, None, error=asyncio.CancelledError())


def _run(command: _Errand, runtime: Runtime) -> object:
    if isinstance(command, WriteLog):  # one a call
        return command.function()
    if isinstance(command, Sleep):
        runtime.clock.sleep(command.seconds)
        return None
    if isinstance(command, CountInput):
        return command.counter.count(command.target, command.timeout_s)
    if isinstance(command, AwaitMoney):
        return command.ticket.wait(command.seconds)
    return command.function()


async def _arun(command: _Errand, runtime: Runtime) -> object:
    if isinstance(command, Sleep):
        await runtime.clock.asleep(command.seconds)
        return None
    if isinstance(command, CountInput):
        return await within(command.timeout_s, command.counter.acount(command.target, command.timeout_s))
    if isinstance(command, AwaitMoney):
        return await command.ticket.await_(command.seconds)
    if isinstance(command, WriteLog) and runtime.aledger is None:
        return command.function()  # to memory
    return await in_thread(command.function)


def _send(send: SendAttempt, attempt: Attempt) -> CallResult | OpenedStream:
    answer = send(attempt)
    if isinstance(answer, CallResult):
        return answer
    rest: Iterator[Any] = iter(answer)
    try:
        return OpenedStream(answer, rest, tuple(islice(rest, 1)))
    except BaseException:
        with suppress(Exception):  # an error while closing matters less than the one that is on its way
            answer.close()
        raise


async def _asend(send: AsyncSendAttempt, attempt: Attempt) -> CallResult | OpenedStream:
    answer = await send(attempt)
    if isinstance(answer, CallResult):
        return answer
    rest: AsyncIterator[Any] = aiter(answer)
    try:
        return OpenedStream(answer, rest, (await anext(rest),))
    except StopAsyncIteration:
        return OpenedStream(answer, rest, ())
    except BaseException:
        with suppress(Exception):
            await answer.aclose()
        raise


async def run_to_end(command: LedgerCommand, runtime: Runtime) -> object:
    """Run a verb of the ledger on an event loop to its end, cancelled or not; a cancellation is raised afterwards."""
    if runtime.aledger is None:
        return command.apply(runtime.ledger)
    task: asyncio.Future[object] = asyncio.ensure_future(command.apply(runtime.aledger))  # type: ignore[call-overload]  # a coroutine on this ledger
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
