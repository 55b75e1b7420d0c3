"""Two drivers for one generator: they run its commands and hand back the results.

They throw into it and never close it: a life that holds money must have the last word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from typing import Any

from llm_cost_middleware.lifecycle.commands import Command, Deliver, Send, StreamEnd, World
from llm_cost_middleware.lifecycle.streams import AsyncGovernedStream, Delivery, GovernedStream, is_closing

Life = Generator[Command | Deliver, Any, Any]


def drive(life: Life, world: World, *, value: Any = None, error: BaseException | None = None) -> Any:
    """Run a call to its end; a stream, to the point where it is handed to the caller."""
    while True:
        try:
            command = life.send(value) if error is None else life.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            value = error = None  # a frame of its own traceback must not keep an error
        if isinstance(command, Deliver):
            return GovernedStream(Delivery(command, world, lambda end: drive(life, world, value=end)))
        try:
            value = command.run(world)
        except BaseException as raised:  # noqa: BLE001 - the life of the call decides, KeyboardInterrupt included
            error = raised


async def adrive(life: Life, world: World, *, value: Any = None) -> Any:
    """The same on an event loop."""
    error: BaseException | None = None
    while True:
        try:
            command = life.send(value) if error is None else life.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            value = error = None
        if isinstance(command, Deliver):

            async def resume(end: StreamEnd) -> Any:
                return await adrive(life, world, value=end)

            # a finaliser may not await: an abandoned stream is settled by the synchronous driver
            delivery = Delivery(command, world, lambda end: drive(life, world, value=end))
            return AsyncGovernedStream(delivery, resume)
        try:
            value = await command.arun(world)
        except BaseException as raised:
            if isinstance(raised, GeneratorExit) or (isinstance(command, Send) and is_closing(raised)):
                # this coroutine may not await any more, and nobody knows under whose locks it is being closed
                world.abandoned.append(partial(_cancel, life, world))
                raise
            error = raised


def _cancel(life: Life, world: World) -> None:
    with suppress(asyncio.CancelledError):
        drive(life, world, error=asyncio.CancelledError())
