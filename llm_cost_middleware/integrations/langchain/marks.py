"""Cache marks on LangChain's messages: placed on copies where the plan says so, removed where they are foreign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from llm_cost_middleware.cache_marks import CacheFields, add_options, without_keys
from llm_cost_middleware.providers import foreign_block_keys, get_provider
from llm_cost_middleware.request import CacheDirectives

_CLIENT_TOOL_KEYS = frozenset({"function", "input_schema", "name"})
"""A tool that has one of these is the caller's own, in the words of either provider."""


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
    for (section, index, block), ttl in plan.marks:
        if section == "tools":
            arguments["tools"] = _mark_tool(arguments["tools"], block, fields, ttl)
        else:
            at = where[section][index]
            placed[at] = _marked(placed[at], block, fields, ttl)
    return placed


def _marked(message: Any, block: int, fields: CacheFields, ttl: str) -> Any:
    content, mark = message.content, {fields.block: fields.mark(ttl)}
    if type(content) is str:
        return message.model_copy(update={"content": [{"type": "text", "text": content, **mark}]})
    blocks = list(content)
    if message.type == "tool":  # one part in the neutral request: the mark is hoisted from the last block
        block = len(blocks) - 1
    own = blocks[block]
    blocks[block] = {"type": "text", "text": own, **mark} if isinstance(own, str) else {**own, **mark}
    return message.model_copy(update={"content": blocks})


def _mark_tool(tools: Sequence[Any], index: int, fields: CacheFields, ttl: str) -> list[Any]:
    marked = [*tools]
    # the neutral request counts the tools that a provider runs apart
    client_tools = (at for at, tool in enumerate(tools) if not _CLIENT_TOOL_KEYS.isdisjoint(tool))
    at = next(islice(client_tools, index, None))
    marked[at] = {**marked[at], fields.block: fields.mark(ttl)}
    return marked
