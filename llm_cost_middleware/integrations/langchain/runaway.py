"""Signs that an agent runs away, read from the messages of its state: nothing is kept, so a resume changes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from llm_cost_middleware.call_ids import BOOKED_KEY
from llm_cost_middleware.errors import ConfigurationError

OnRunaway = Literal["warn", "end"] | None
_GROWTH = 4
"""How many times as dear a step must be as the first of a series in which each is dearer than the one before."""
_SERIES = 2
"""How many times as many steps as repeats such a series has: an agent's context grows, and that is no fault."""


def read_on_runaway(value: object, repeats: object) -> tuple[OnRunaway, int]:
    """Check what was given. Raises ``ConfigurationError``."""
    if value not in {None, "warn", "end"}:
        raise ConfigurationError(f"must be 'warn', 'end' or None, not {value!r}", key="on_runaway")
    if type(repeats) is not int or repeats < 2:  # noqa: PLR2004 - one call repeats nothing
        raise ConfigurationError(f"must be a whole number from 2 on, not {repeats!r}", key="repeats")
    return value, repeats


def sign_of_runaway(messages: Sequence[BaseMessage], repeats: int) -> str | None:
    """Say what is suspicious about the steps since the last message of a human, if anything.

    Args:
        messages: Those of the state.
        repeats: How often the same tools may be called with the same arguments, one step after the other, before it is.
    """
    steps: list[AIMessage] = []
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        if isinstance(message, AIMessage):
            steps.append(message)
    last = [_calls(step) for step in steps[:repeats]]
    if len(last) == repeats and last[0] and len(set(last)) == 1:
        names = ", ".join(sorted({call["name"] for call in steps[0].tool_calls}))
        return f"the same call of {names} {repeats} times in a row"
    costs = [_cost(step) for step in reversed(steps[: repeats * _SERIES])]
    known = [cost for cost in costs if cost is not None]
    growing = len(known) == repeats * _SERIES and all(before < after for before, after in pairwise(known))
    if growing and known[-1] >= known[0] * _GROWTH:
        return f"each of the last {len(known)} steps cost more than the one before, {_GROWTH} times the first at last"
    return None


def _calls(step: AIMessage) -> tuple[str, ...]:
    """The calls of a step, without their ids: those are new every time."""
    asked = ([call["name"], call["args"]] for call in step.tool_calls)
    return tuple(sorted(json.dumps(one, sort_keys=True, default=str) for one in asked))


def _cost(step: AIMessage) -> Decimal | None:
    stamp: Any = step.response_metadata.get(BOOKED_KEY)
    cost = stamp.get("cost") if isinstance(stamp, dict) else None
    return Decimal(cost) if isinstance(cost, str) else None
