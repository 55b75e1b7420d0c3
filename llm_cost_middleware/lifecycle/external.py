"""Calls that the caller sends: their money is set aside before, and booked after, by hand."""

from __future__ import annotations

from contextlib import suppress

from msgspec.structs import replace

from llm_cost_middleware.lifecycle.drivers import Flow, Runtime, adrive, drive
from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.lifecycle.runtimes import RuntimePool
from llm_cost_middleware.request import Attempt, CallRequest, CallResult, InputCounter
from llm_cost_middleware.usage import UsageReport


class ExternalCall:
    """A call whose money is set aside. End it once, with ``settle`` or ``fail``; otherwise its reservation expires."""

    __slots__ = ("_flow", "_runtime", "attempt")

    def __init__(self, flow: Flow, runtime: Runtime, attempt: Attempt) -> None:
        self._flow, self._runtime, self.attempt = flow, runtime, attempt

    def settle(self, reading: UsageReport) -> None:
        """Book the cost; where the usage is not reported, the amount that was set aside."""
        drive(self._flow, self._runtime, None, value=CallResult(None, reading))

    def fail(self, error: BaseException) -> None:
        """Give the money back where the error shows that nothing was billed; else book it."""
        if isinstance(error, GeneratorExit):  # a stream that was left: it would close the flow before it has settled
            self.settle(UsageReport())
            return
        with suppress(BaseException):  # the error itself comes back: it is the caller's to raise
            drive(self._flow, self._runtime, None, error=error)


def authorize(
    flow: CallFlow, runtime: Runtime, request: CallRequest, counter: InputCounter | None = None
) -> ExternalCall:
    """Set aside what ``request`` may cost at the very model it names. Raises as a call does."""
    steps = _start(flow, request, counter, takes_cap=False)
    return _held(steps, runtime, drive(steps, runtime, None))


async def aauthorize(
    flow: CallFlow, runtimes: RuntimePool, request: CallRequest, counter: InputCounter | None = None
) -> ExternalCall:
    """``authorize`` on an event loop, for callers who send the attempt's output cap.

    The call is ended by the blocking ledger, as the other form's is.
    """
    steps = _start(flow, request, counter, takes_cap=True)
    return _held(steps, runtimes.sync, await adrive(steps, runtimes.of_loop(), None))


def _start(flow: CallFlow, request: CallRequest, counter: InputCounter | None, *, takes_cap: bool) -> Flow:
    pinned = request._replace(model_pinned=True, context=request.context._replace(forced_model=None))
    routed = flow.route(flow.attributed(pinned), None, sent_externally=True)
    call = replace(routed, takes_cap=takes_cap)
    flow.stages.route.keep_for_one_run(call)
    return flow.start(pinned, prepared=call, counter=counter)


def _held(steps: Flow, runtime: Runtime, attempt: object) -> ExternalCall:
    # The money is set aside when the first attempt is about to leave.
    assert isinstance(attempt, Attempt)  # noqa: S101 - nothing was sent that could have been answered
    return ExternalCall(steps, runtime, attempt)
