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
from llm_cost_middleware.usage import UsageReport

_log = logging.getLogger(__name__)


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
        return _facts(call, reserved, reading, content, failure)
    except Exception as error:  # noqa: BLE001 - a booking is never lost for what is only told beside it
        _log.warning("what is told of a call beside its price was left out: %s", type(error).__qualname__)
        return NO_FACTS


def _facts(
    call: RoutedCall,
    reserved: ReservedAttempt,
    reading: UsageReport | None,
    content: AnswerContent | None,
    failure: str,
) -> CallFacts:
    request = call.request
    flags = (
        (not reserved.quote.injected) * OWN_CAP
        | (reading is not None and reading.truncated) * CUT
        | request.stream * STREAM
        | (content is not None) * SEEN
        | states_thinking(request.settings) * OWN_EFFORT
        | reserved.quote.learned * LEARNED_CAP
        | bool(failure) * FAILED
    )
    tools = tools_of(request) if request.tools else ()
    return CallFacts(
        call.decision.site,
        reserved.attempt.max_tokens or 0,
        flags,
        call.decision.features.total_chars,
        tools,
        tools_used(request, content) if tools else (),
        failure,
    )
