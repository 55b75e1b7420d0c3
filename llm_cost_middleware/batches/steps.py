"""What the work on batches asks for, and the two drivers that do it: the work itself is written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextvars import copy_context
from typing import Any, NamedTuple, TypeVar

from llm_cost_middleware.clock import Clock
from llm_cost_middleware.event_loops import at_once, in_thread

T = TypeVar("T")


class Ask(NamedTuple):
    """One request of a client, blocking or not; an awaitable is awaited."""

    request: Callable[[], Any]


class AskAll(NamedTuple):
    """A request of a client for something that is iterated over: a list of it."""

    request: Callable[[], Any]
    enough: Callable[[Any], bool] | None = None
    """Whether what follows an element is not needed."""


class Work(NamedTuple):
    """Something that may block: the ledger, or counting."""

    do: Callable[[], Any]


class Wait(NamedTuple):
    """Let time pass."""

    seconds: float


class SendEach(NamedTuple):
    """Ordinary calls for the requests at these places: a list of what the host's ``send`` returns or raises."""

    places: Sequence[int]
    patience_s: float | None = None
    """Seconds that they can wait; ``None``: not at all."""


Step = Ask | AskAll | Work | Wait | SendEach
Steps = Generator[Step, Any, T]
Send = Callable[[int, float | None], Any]
"""Makes an ordinary call for the request at a place, which can wait so many seconds."""


def run(steps: Steps[T], clock: Clock, send: Send | None = None) -> T:
    """Do the steps, blocking."""
    outcome: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = steps.send(outcome) if error is None else steps.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        outcome, error = None, None
        try:
            outcome = _do(step, clock, send)
        except BaseException as raised:  # noqa: BLE001 - the steps decide what it means
            error = raised


async def arun(steps: Steps[T], clock: Clock, send: Send | None = None, *, width: int = 8) -> T:
    """Do the steps on an event loop."""
    outcome: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = steps.send(outcome) if error is None else steps.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        outcome, error = None, None
        try:
            outcome = await _ado(step, clock, send, width)
        except BaseException as raised:  # noqa: BLE001 - the steps decide what it means
            error = raised


def _do(step: Step, clock: Clock, send: Send | None) -> Any:
    if isinstance(step, Ask):
        return step.request()
    if isinstance(step, AskAll):
        found = []
        for one in step.request():
            found.append(one)
            if step.enough is not None and step.enough(one):
                break
        return found
    if isinstance(step, Work):
        return step.do()
    if isinstance(step, Wait):
        return clock.sleep(step.seconds)
    assert send is not None  # noqa: S101 - whoever asks for calls has said how they are made
    results: list[Any] = []
    for place in step.places:
        try:
            results.append(send(place, step.patience_s))
        except Exception as error:  # noqa: BLE001 - of this request alone
            results.append(error)
    return results


async def _ado(step: Step, clock: Clock, send: Send | None, width: int) -> Any:
    if isinstance(step, Ask):
        asked = step.request()
        return await asked if inspect.isawaitable(asked) else asked
    if isinstance(step, AskAll):
        return await _listed(step)
    if isinstance(step, Work):
        return await in_thread(copy_context().run, step.do)
    if isinstance(step, Wait):
        return await clock.asleep(step.seconds)
    assert send is not None  # noqa: S101 - as above
    make, pending = send, iter(enumerate(step.places))  # one iterator for all workers: each is taken once
    results: list[Any] = [None] * len(step.places)

    async def work() -> None:
        for at, place in pending:
            try:
                results[at] = await make(place, step.patience_s)
            except Exception as error:  # noqa: BLE001 - of this request alone
                results[at] = error

    await at_once(max(width, 1), work)
    return results


async def _listed(step: AskAll) -> list[Any]:
    asked = step.request()
    if not hasattr(asked, "__aiter__"):
        asked = await asked
    found: list[Any] = []
    async for one in asked:
        found.append(one)
        if step.enough is not None and step.enough(one):
            break
    return found
