"""Quality signals observed without asking: failures that an answer shows, and a question that is repeated.

They are signs of failure only. Their absence does not prove that an answer was good.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping

from llm_cost_middleware.request import AnswerContent, CallRequest
from llm_cost_middleware.routing.schemas import asks_for_json, inner_schema, matches_schema, text_matches_schema

TRUNCATED, PARSE_FAILED, SCHEMA_VIOLATED, REFUSED = "truncated", "parse_failed", "schema_violated", "refused"
ESCALATED, USER_RETRY = "escalated", "user_retry"

VISIBLE_FAILURES = (PARSE_FAILED, SCHEMA_VIOLATED, TRUNCATED, REFUSED)
"""Signals that an answer shows by itself."""

SIGNAL_SCORES = dict.fromkeys((*VISIBLE_FAILURES, ESCALATED, USER_RETRY), 0.0)
"""Quality score of each signal."""

SIGNAL_TEXT = {
    PARSE_FAILED: "the answer could not be parsed as what it was asked for",
    SCHEMA_VIOLATED: "a tool call in the answer does not fit the tool's schema, or one that was demanded is missing",
    TRUNCATED: "the answer was cut off by its output cap",
    REFUSED: "the model declined, as the provider says of the answer",
    ESCALATED: "the answer was not accepted, and a stronger model was asked",
    USER_RETRY: "the same person asked the same again within ten minutes",
}
"""Explanation of each signal."""

# Seconds after which the same question counts as a new one: time to read an answer and to try again. A guess.
REPEAT_WINDOW_S = 600.0
# Characters from which a message counts as the same question wherever it stands in a conversation: "go on" and "yes"
# are repeated and mean something else each time.
_SENTENCE = 16


def failure_signals(request: CallRequest, content: AnswerContent) -> tuple[str, ...]:
    """Return the failures that an answer shows: tool calls that do not fit or are missing, text without its schema.

    Of refusals only those count that the provider reports as such: what a text says of itself is not read.
    """
    if content.refused:
        return (REFUSED,)
    if content.tool_calls or demanded_tools(request) is not None:
        return () if tool_calls_match(request, content) else (SCHEMA_VIOLATED,)
    if asks_for_json(request.output_schema) and not text_matches_schema(request.output_schema, content.text):
        return (PARSE_FAILED,)
    return ()


def tool_calls_match(request: CallRequest, content: AnswerContent) -> bool:
    """Return whether every call matches its tool where the request has it, and the demanded ones are there."""
    demanded = demanded_tools(request)
    if demanded is not None:
        called = {name for name, _ in content.tool_calls}
        if not called or not called <= (demanded or called):
            return False
    tools = {tool.name: tool.text for tool in request.tools}
    return all(_call_matches(tools, name, arguments) for name, arguments in content.tool_calls)


def demanded_tools(request: CallRequest) -> frozenset[str] | None:
    """Return the tools of which a request demands a call; empty for any; ``None`` where words are an answer, too.

    OpenAI's ``required`` and named functions (guide to function calling), Anthropic's ``any`` and ``tool`` (guide to
    tool use). What a tool that the provider runs does is not seen, so a demand of one is none here.
    """
    choice = request.params.get("tool_choice")
    if not request.tools:
        return None
    if isinstance(choice, str):
        choice = {"type": choice}
    if not isinstance(choice, Mapping):
        return None
    kind = choice.get("type")
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools") if isinstance(choice.get("allowed_tools"), Mapping) else choice
        if not isinstance(allowed, Mapping) or allowed.get("mode") != "required":
            return None
        names = [_tool_name(tool) for tool in allowed.get("tools") or ()]
        return None if None in names else frozenset(name for name in names if name is not None)
    if kind in ("required", "any"):
        return None if request.server_tools else frozenset()
    name = _tool_name(choice) if kind in ("function", "tool", "custom") else None
    return frozenset((name,)) if name in {tool.name for tool in request.tools} and name is not None else None


def _tool_name(choice: object) -> str | None:
    """The name in a choice of either API: flat, or under the kind of tool."""
    if not isinstance(choice, Mapping):
        return None
    inner = choice.get(str(choice.get("type")))
    name = inner.get("name") if isinstance(inner, Mapping) else choice.get("name")
    return name if isinstance(name, str) else None


def _call_matches(tools: Mapping[str, str], name: str, arguments: object) -> bool:
    definition = tools.get(name)
    if definition is None:
        return not tools  # the request carries no tools: they stand in a stored prompt
    try:
        value = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
        rules = inner_schema(json.loads(definition))
    except ValueError:
        return False
    if not isinstance(rules, Mapping) or "name" in rules:  # a tool whose definition only the provider holds
        return True
    return isinstance(value, Mapping) and matches_schema(rules, value)


def question_key(request: CallRequest, site: str) -> int | None:
    """Return a hash of a person's question, equal for the same question in this process.

    ``None`` where the person is unknown (neither ``conversation`` nor ``user``: two people may ask the same thing),
    where the request does not end in a message of theirs (an agent at work), or where a model is forced (the
    application repairs an answer itself).
    """
    context = request.context
    asker = context.conversation or next((scope for scope in context.scopes if scope.startswith("user:")), None)
    if asker is None or context.forced_model or not request.messages:
        return None
    last = request.messages[-1]
    parts = last.parts
    if last.role != "user" or any(part.kind == "tool_result" for part in parts):
        return None
    asked = tuple((part.kind, part.text, part.media.get("digest")) for part in parts)
    size = sum(len(part.text) for part in parts)
    return hash((asker, site, asked, len(request.messages) if size < _SENTENCE else None))


class RepeatDetector:
    """Detector of questions that are repeated soon after an answer. Its owner holds the lock.

    Args:
        keep: Number of questions remembered; the oldest are dropped.
    """

    def __init__(self, keep: int = 4_096) -> None:
        self._keep = keep
        self._answered: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def earlier(self, key: int, began: float) -> str | None:
        """Return the call that answered this question in the window before ``began`` (monotonic seconds)."""
        call_id, at = self._answered.get(key, ("", 0.0))
        return call_id if call_id and at <= began < at + REPEAT_WINDOW_S else None

    def answered(self, key: int, call_id: str, at: float) -> None:
        """Record that a call answered a question in full."""
        self._answered[key] = call_id, at
        self._answered.move_to_end(key)
        if len(self._answered) > self._keep:
            self._answered.popitem(last=False)
