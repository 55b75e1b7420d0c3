"""Calls that somebody else sends: their money is set aside before, and booked after, by hand."""

from __future__ import annotations

from contextlib import suppress

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.lifecycle.call import life
from llm_cost_middleware.lifecycle.commands import Deliver, Send, World
from llm_cost_middleware.lifecycle.drivers import Life, drive
from llm_cost_middleware.lifecycle.engine import Engine
from llm_cost_middleware.provider import UsageReading
from llm_cost_middleware.request import Attempt, CallRequest, CallResult


class Held:
    """A call whose money is set aside. End it once, with ``settle`` or ``fail``; otherwise its lease does."""

    __slots__ = ("_life", "_world", "attempt")

    def __init__(self, steps: Life, world: World, attempt: Attempt) -> None:
        self._life, self._world, self.attempt = steps, world, attempt

    def settle(self, reading: UsageReading) -> None:
        """Book what it cost; where the reading does not say, what was set aside."""
        drive(self._life, self._world, value=CallResult(None, reading))

    def fail(self, error: BaseException) -> None:
        """Give the money back where the error shows that nothing was billed; else book it."""
        if isinstance(error, GeneratorExit):  # a stream that was left: the life itself must not be closed by it
            self.settle(UsageReading())
            return
        with suppress(BaseException):  # the error itself comes back: it is the caller's to raise
            drive(self._life, self._world, error=error)


def hold(engine: Engine, ledger: Ledger, clock: Clock, request: CallRequest) -> Held:
    """Set aside what ``request`` may cost at the very model it names. Raises as a call does."""
    pinned = request._replace(pinned=True, context=request.context._replace(force_model=None))
    call = engine.begin(pinned, None)
    call.fixed = True
    engine.route(call, None)
    world = World(ledger, clock, _never)
    steps = life(engine, pinned, prepared=call)
    command = next(steps)
    while not isinstance(command, Send):
        assert not isinstance(command, Deliver)  # noqa: S101 - nothing was sent that could be delivered
        try:
            value = command.run(world)
        except BaseException as error:  # noqa: BLE001 - the life of the call decides
            command = steps.throw(error)
        else:
            command = steps.send(value)
    return Held(steps, world, command.attempt)


def _never(attempt: Attempt) -> CallResult:
    raise RuntimeError(f"{attempt.target} is sent by somebody else")
