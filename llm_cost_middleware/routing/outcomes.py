"""Outcomes that are seen without asking: what an answer shows of itself, and a question that comes back.

They are signs of failure only. That none was seen is no proof that an answer was good.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.request import AnswerContent, CallRequest
from llm_cost_middleware.routing.schemas import asks_for_json, fits, satisfies, unwrap

TRUNCATED, PARSE_FAILED, SCHEMA_VIOLATED = "truncated", "parse_failed", "schema_violated"
ESCALATED, USER_RETRY = "escalated", "user_retry"

AUTOMATIC = dict.fromkeys((PARSE_FAILED, SCHEMA_VIOLATED, TRUNCATED, ESCALATED, USER_RETRY), 0.0)
"""Their names, and the quality that each stands for."""

MEANING = {
    PARSE_FAILED: "the answer could not be parsed as what it was asked for",
    SCHEMA_VIOLATED: "a tool call in the answer does not fit the tool's schema",
    TRUNCATED: "the answer was cut off by its output cap",
    ESCALATED: "the answer was not accepted, and a stronger model was asked",
    USER_RETRY: "the same person asked the same again within ten minutes",
}
"""What each says, in words."""

SOON_S = 600.0
"""A question that comes back later than this is a new one."""
_SENTENCE = 16
"""Characters from which a message is taken to be the same question wherever it stands in a conversation: "go on" and
"yes" are said over and over and mean something else each time."""


def failures(request: CallRequest, said: AnswerContent) -> tuple[str, ...]:
    """What an answer's content shows: tool calls that do not fit their tools, text that does not fit its schema."""
    if said.tool_calls:
        return () if calls_fit(request, said) else (SCHEMA_VIOLATED,)
    if asks_for_json(request.output_schema) and not satisfies(request.output_schema, said.text):
        return (PARSE_FAILED,)
    return ()


def calls_fit(request: CallRequest, said: AnswerContent) -> bool:
    """Whether every tool call names a tool of the request and fits its schema, where the request carries it."""
    tools = {tool.name: tool.text for tool in request.tools}
    return all(_call_fits(tools, name, arguments) for name, arguments in said.tool_calls)


def _call_fits(tools: Mapping[str, str], name: str, arguments: Any) -> bool:
    definition = tools.get(name)
    if definition is None:
        return not tools  # the request carries no tools: they stand in a stored prompt
    try:
        value = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
        rules = unwrap(json.loads(definition))
    except ValueError:
        return False
    if not isinstance(rules, Mapping) or "name" in rules:  # a tool whose definition only the provider holds
        return True
    return isinstance(value, Mapping) and fits(rules, value)


def question(request: CallRequest, site: str) -> int | None:
    """What a person asks, as a number that the same question gives again in this process and nothing can be read from.

    ``None`` where nobody says who asks (neither ``conversation`` nor ``user``: two people may ask the same thing),
    where the request does not end in a message of that person (an agent at work), or where a model is forced (the
    application repairs an answer by itself).
    """
    context = request.context
    asker = context.conversation or next((scope for scope in context.scopes if scope.startswith("user:")), None)
    if asker is None or context.forced_model or not request.messages:
        return None
    role, parts = request.messages[-1]
    if role != "user" or any(part.kind == "tool_result" for part in parts):
        return None
    asked = tuple((part.kind, part.text, part.media.get("digest")) for part in parts)
    size = sum(len(part.text) for part in parts)
    return hash((asker, site, asked, len(request.messages) if size < _SENTENCE else None))


class Repeats:
    """Remembers which questions were answered lately, to notice one that comes back. Its owner holds the lock.

    Args:
        keep: How many questions are remembered; the oldest are forgotten.
    """

    def __init__(self, keep: int = 4_096) -> None:
        self._keep = keep
        self._answered: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def earlier(self, key: int, began: float) -> str | None:
        """The call that had answered this question lately when another began at ``began`` (seconds, monotonic)."""
        call_id, at = self._answered.get(key, ("", 0.0))
        return call_id if call_id and at <= began < at + SOON_S else None

    def answered(self, key: int, call_id: str, at: float) -> None:
        """A call answered a question, in full."""
        self._answered[key] = call_id, at
        self._answered.move_to_end(key)
        if len(self._answered) > self._keep:
            self._answered.popitem(last=False)
