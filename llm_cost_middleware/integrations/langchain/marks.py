"""Cache marks on LangChain's messages: placed on copies where the plan says so, removed where they are foreign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_cost_middleware.cache_marks import CacheFields, add_options, mark_tool, without_keys
from llm_cost_middleware.providers import foreign_block_keys, get_provider
from llm_cost_middleware.request import CacheDirectives


def strip_marks(items: Sequence[Any], provider: str) -> list[Any]:
    """Messages or tools without the marks of other providers; unchanged where they carry none."""
    foreign = foreign_block_keys(provider)
    # Plain text bears no mark, and most messages are that.
    return [item if type(getattr(item, "content", None)) is str else _strip(item, foreign) for item in items]


def _strip(item: Any, foreign: frozenset[str]) -> Any:
    content = getattr(item, "content", None)
    if isinstance(item, Mapping):  # a tool
        return without_keys(item, foreign)
    if type(content) is not list:
        return item
    bare = [without_keys(block, foreign) if isinstance(block, Mapping) else block for block in content]
    if all(new is old for new, old in zip(bare, content, strict=True)):
        return item
    return item.model_copy(update={"content": bare})


def place_marks(plan: CacheDirectives, provider: str, messages: list[Any], arguments: dict[str, Any]) -> list[Any]:
    """Copies of ``messages`` and of the tools among ``arguments`` with the marks of ``plan``.

    Args:
        plan: Positions as in the neutral request: system messages and all others counted apart.
        provider: Whose marks.
        messages: The messages to send.
        arguments: The arguments to send; changed (they are a copy of the caller's).
    """
    fields = get_provider(provider).cache_fields
    add_options(arguments, fields, plan)
    if not plan.marks:
        return messages
    placed = list(messages)
    where = {
        "system": [at for at, message in enumerate(messages) if message.type == "system"],
        "messages": [at for at, message in enumerate(messages) if message.type != "system"],
    }
    for position, ttl in plan.marks:
        if position.section == "tools":
            mark_tool(arguments, position.block, fields, ttl)
        else:
            at = where[position.section][position.message]
            placed[at] = _marked(placed[at], position.block, fields, ttl)
    return placed


def _marked(message: Any, block: int, fields: CacheFields, ttl: str) -> Any:
    content, mark = message.content, {fields.block: fields.mark(ttl)}
    if message.type == "tool":
        if fields.block == "cache_control":
            return _marked_result(message, mark)
        block = max(len(content) - 1, 0)  # one part in the neutral request; OpenAI marks its last part of content
    if type(content) is str:
        return message.model_copy(update={"content": [{"type": "text", "text": content, **mark}]})
    if block >= len(content):  # the plan was made for another shape of the message
        return message
    blocks = list(content)
    own = blocks[block]
    blocks[block] = {"type": "text", "text": own, **mark} if isinstance(own, str) else {**own, **mark}
    return message.model_copy(update={"content": blocks})


def _marked_result(message: Any, mark: Mapping[str, Any]) -> Any:
    """A tool message whose mark leaves its content as it is."""
    content = message.content
    if content == []:  # some releases of LangChain drop such a message, and some send it
        return message
    if type(content) is list and all(
        isinstance(part, Mapping) and part.get("type") == "tool_result" for part in content
    ):
        return message.model_copy(update={"content": [*content[:-1], {**content[-1], **mark}]})
    # What LangChain itself makes of a tool message, so that only the mark is added; a list of such blocks it takes as
    # it is. A mark on a block of the content is lifted to the result as well, but a text would become a list for it,
    # and the next turn, which sends the text again, would not find what was written.
    result = {
        "type": "tool_result",
        "content": content,
        "tool_use_id": message.tool_call_id,
        "is_error": message.status == "error",
        **mark,
    }
    return message.model_copy(update={"content": [result]})
