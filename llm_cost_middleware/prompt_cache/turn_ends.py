"""Ends of the turns of a conversation: where a mark of ours can stand, and at what stage a request is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from llm_cost_middleware.contents import Columns
from llm_cost_middleware.request import CallRequest, Message, Part

PromptStage = Literal["first", "first_with_tools", "chat", "agent"]
"""Position of a request in its conversation: a first turn without tools, a first turn with tools, a later turn of a
person, a later turn with tool results."""

_UNMARKABLE = frozenset({"thinking", "other"})
_ANSWERS_MARKED = frozenset({"messages", "chat.completions"})
"""Endpoints at which a mark on the text of an answer stays: LiteLLM hands it on from a chat to Claude."""


def _bears_mark(part: Part) -> bool:
    return bool(part.cache_ttl or part.inner_marks)


def plain_answer(request: CallRequest, turns: Sequence[Message], ends: list[int]) -> int:
    """Return the latest answer, where a mark on it reaches the provider; -1 if there is none."""
    if request.endpoint not in _ANSWERS_MARKED or not ends[1:]:
        return -1
    at, before = ends[-1] - 1, ends[-2]
    if isinstance(turns, Columns):
        while at > before and turns.roles[at] != "assistant":
            at -= 1
        return at if at > before and turns.texts[at].strip() else -1
    while at > before and turns[at].role != "assistant":
        at -= 1
    parts = turns[at].parts if at > before else ()
    if not parts:
        return -1
    for part in parts:
        if part.kind != "text" or _bears_mark(part):
            return -1
    return at if is_markable(parts[-1]) else -1


def is_markable(part: Part) -> bool:
    """Return whether a provider accepts a mark on this block: not on thinking, not on empty text."""
    return part.kind not in _UNMARKABLE and (part.kind != "text" or bool(part.text.strip()))


def last_markable(turns: Sequence[Message], at: int) -> int:
    """Return the last block of a message if a mark of ours can stand on it; -1 if none can."""
    if isinstance(turns, Columns):
        return 0 if turns.texts[at].strip() else -1
    parts = turns[at].parts
    return len(parts) - 1 if parts and not _bears_mark(parts[-1]) and is_markable(parts[-1]) else -1


def stage_of(turns: Sequence[Message], ends: list[int], *, tools: bool) -> PromptStage:
    """Return the stage of a request whose conversation has so far ended at these messages."""
    if len(ends) <= 1:
        return "first_with_tools" if tools else "first"
    if isinstance(turns, Columns):
        return "chat"
    last = turns[ends[-1]]
    return "agent" if last.role == "tool" or "tool_result" in [part.kind for part in last.parts] else "chat"
