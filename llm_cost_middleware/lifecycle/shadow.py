"""Shadow calls: a share of calls is also answered by a model of another tier, to learn which need the stronger one.

The caller gets the answer that he would have got; of the other one only stays whether it says the same. It is a call of
its own: reserved within the same budgets and one more (``SHADOW_SCOPE``), booked, and given up without a retry where
money is short or the model fails. The caller waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.lifecycle.commands import Send
from llm_cost_middleware.lifecycle.reserving import Reserving, Steps
from llm_cost_middleware.lifecycle.settling import Settling
from llm_cost_middleware.lifecycle.stages import Stages
from llm_cost_middleware.lifecycle.state import CallReport, RoutedCall
from llm_cost_middleware.request import CallResult, FixedRetries
from llm_cost_middleware.routing.agreement import answers_agree

SHADOW_SCOPE = "purpose:shadow"
"""Scope of every shadow call, beside those of the call that it belongs to: a budget on it limits them all."""


class Shadows:
    """Asks the other model, where the policy's share and the budgets allow it.

    Args:
        stages: What a call consults.
        reserving: Sets money aside.
        settling: Books.
        new_id: Makes call ids.
    """

    def __init__(self, stages: Stages, reserving: Reserving, settling: Settling, new_id: Callable[[], str]) -> None:
        self._stages, self._reserving, self._settling, self._new_id = stages, reserving, settling, new_id

    def compare(self, call: RoutedCall, report: CallReport, answer: CallResult) -> Steps[None]:
        """Ask the other model what ``answer`` was given to, and note whether the two say the same."""
        route = self._stages.route
        if report.escalated or answer.reading.pending or not route.shadows(call.decision.site):
            return
        target = route.shadow_target(call)
        said = answer.content if target is not None else None
        if target is None or said is None:
            return
        context = call.request.context
        request = call.request._replace(
            context=context._replace(scopes=(*context.scopes, SHADOW_SCOPE)), retry_terms=FixedRetries(1)
        )
        # without candidates: nobody takes its place where money is short or it fails
        decision = call.decision._replace(target=target, candidates=())
        shadow = replace(call, id=self._new_id(), request=request, decision=decision, target=target)
        own = CallReport(report.counter)
        own.is_decided = True  # what the log says of it stands with the call that it belongs to
        try:
            reserved = yield from self._reserving.admit_and_reserve(shadow, own, target, 1)
        except LLMCostError:
            return
        try:
            other = yield Send(reserved.attempt)
        except BaseException as error:
            reserved = self._reserving.holds.closed(reserved)
            yield from self._settling.after_failure(shadow, own, reserved, error, 0)
            if not isinstance(error, Exception):
                raise
            return
        if not isinstance(other, CallResult):
            raise TypeError("the answer of a call that is no stream is a stream")
        reserved = self._reserving.holds.closed(reserved)
        posting = self._stages.price.posting(reserved, other.reading)
        self._stages.health.succeeded(shadow, reserved, 0)
        yield from self._settling.post(shadow, own, reserved, posting, stands=False)
        if (content := other.content) is not None:
            agree = answers_agree(said, content, field=route.answer_field(call.decision.site))
            report.shadow = target, float(agree)
