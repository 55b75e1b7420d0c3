"""What of an attempt goes into the memo of its row beside its price."""

from __future__ import annotations

import logging

from llm_cost_middleware.capabilities.efforts import states_thinking
from llm_cost_middleware.lifecycle.state import ReservedAttempt, RoutedCall
from llm_cost_middleware.metering.call_facts import (
    CUT,
    FAILED,
    LEARNED_CAP,
    NO_FACTS,
    OWN_CAP,
    OWN_EFFORT,
    SEEN,
    STREAM,
    CallFacts,
    tools_of,
    tools_used,
)
from llm_cost_middleware.request import AnswerContent
from llm_cost_middleware.routing.signals import REFUSED, TRUNCATED
from llm_cost_middleware.usage import CUT_OFF, DECLINED, UsageReport

_log = logging.getLogger(__name__)
SHOWS = {**dict.fromkeys(CUT_OFF, (TRUNCATED,)), **dict.fromkeys(DECLINED, (REFUSED,))}
"""The signals of a failure that the end of an answer is, by its name."""


def facts_of(
    call: RoutedCall,
    reserved: ReservedAttempt,
    reading: UsageReport | None,
    content: AnswerContent | None,
    failure: str,
) -> CallFacts:
    """The facts of an attempt that is about to be booked.

    Args:
        call: Its call.
        reserved: The attempt.
        reading: What its answer reports.
        content: What its answer says, where that was read.
        failure: Why it failed, where it did.
    """
    try:
        request, quote = call.request, reserved.quote
        flags = (
            (0 if quote.injected else OWN_CAP)
            | (CUT if reading is not None and reading.finish_reason in CUT_OFF else 0)
            | (STREAM if request.stream else 0)
            | (SEEN if content is not None else 0)
            | (OWN_EFFORT if request.settings and states_thinking(request.settings) else 0)
            | (LEARNED_CAP if quote.learned else 0)
            | (FAILED if failure else 0)
        )
        tools = tools_of(request) if request.tools else ()
        used, decision = tools_used(request, content) if tools else (), call.decision
        cap, chars = reserved.attempt.max_tokens or 0, decision.features.total_chars
        return CallFacts(decision.site, cap, flags, chars, tools, used, failure)
    except Exception as error:  # noqa: BLE001 - a booking is never lost for what is only told beside it
        _log.warning("what is told of a call beside its price was left out: %s", type(error).__qualname__)
        return NO_FACTS
