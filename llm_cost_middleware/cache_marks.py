"""Cache marks in request bodies: written on copies, and taken off where they are foreign.

A provider declares its fields as ``CacheFields``; the functions here know the shapes of bodies and no provider. Nothing
that the caller owns is changed: only the containers on the way to a mark are copied, everything else is shared. A mark
whose place does not exist in the body, or cannot bear one there, is left out, so that a plan never makes a request
fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_cost_middleware.request import BlockRef, CacheDirectives

_SYSTEM_ROLES = frozenset({"system", "developer"})
_RESULT_ROLES = frozenset({"tool", "function"})
_MARKABLE = frozenset(
    {"text", "image", "document", "search_result", "tool_use", "tool_result"}
    | {"input_text", "image_url", "input_image", "file", "input_file", "input_audio"}
)
"""Types of content blocks that take a mark."""
_NESTED = ("content", "output", "tool_calls")
"""Where blocks hold further blocks."""


@dataclass(frozen=True, slots=True)
class CacheFields:
    """The fields of a request by which a provider's prompt cache is steered."""

    block: str
    """The key that marks a content block."""
    mark: Callable[[str], Mapping[str, Any]]
    """Makes the value of that key for a TTL."""
    request: frozenset[str]
    """Fields of the request itself."""
    options: Callable[[CacheDirectives], Mapping[str, Any]]
    """Makes the fields of the request that directives ask for. Those that the caller set win."""


def mark_tool(out: dict[str, Any], index: int, fields: CacheFields, ttl: str) -> None:
    """Mark a tool of a body; never a deferred one, which no provider takes a mark on."""
    tools = out.get("tools") or ()
    if index < len(tools) and isinstance(tools[index], Mapping) and not is_deferred(tools[index]):
        own_child(own_child(out, "tools"), index)[fields.block] = fields.mark(ttl)


def is_deferred(tool: Mapping[str, Any]) -> bool:
    """Whether a definition, in the words of either provider, is kept out of the prompt until a search finds it."""
    function = tool.get("function")
    return bool(tool.get("defer_loading") or (isinstance(function, Mapping) and function.get("defer_loading")))


def mark_message(
    out: dict[str, Any],
    section: str,
    at: int,
    block: int,
    fields: CacheFields,
    ttl: str,
    *,
    text_type: str = "text",
) -> None:
    """Mark a block of a message, or of an item of the Responses API.

    Args:
        out: The body; changed.
        section: Its list of messages: ``messages`` or ``input``.
        at: The message's index in that list.
        block: The block's index in the message.
        fields: Whose mark.
        ttl: Of the mark.
        text_type: The type of the block that a plain text becomes.
    """
    messages = out.get(section) or ()
    # a plan made for another shape of the conversation must not fail the request
    if not (at < len(messages) and isinstance(messages[at], Mapping)):
        return
    message = messages[at]
    key = "output" if "output" in message and "content" not in message else "content"
    if key == "output" or is_tool_result(message):
        block = -1  # a tool's result is one block of the neutral request, whatever it holds
    mark_content(own_child(own_child(out, section), at), key, block, fields, ttl, text_type=text_type)


def mark_content(
    holder: dict[str, Any], key: str, block: int, fields: CacheFields, ttl: str, *, text_type: str = "text"
) -> None:
    """Mark a block of the content under ``key``; a plain text becomes a block first."""
    content = holder.get(key)
    if isinstance(content, str):
        if content.strip() and block <= 0:  # providers refuse a mark on blank text
            holder[key] = [{"type": text_type, "text": content, fields.block: fields.mark(ttl)}]
    elif isinstance(content, list | tuple) and content and block < len(content):
        found = content[block]
        # providers refuse a mark on an empty text and on thinking
        if isinstance(found, Mapping) and found.get("type") in _MARKABLE and found.get("text") != "":
            own_child(own_child(holder, key), block)[fields.block] = fields.mark(ttl)


def add_options(out: dict[str, Any], fields: CacheFields, directives: CacheDirectives) -> None:
    """Add the fields of the request that directives ask for; those that are there stay."""
    for name, value in fields.options(directives).items():
        out.setdefault(name, value)


def message_index(messages: Any, position: BlockRef) -> int:
    """The index of a position in one list that begins with the system messages, as OpenAI's bodies have it."""
    return position.message + (count_system_messages(messages) if position.section == "messages" else 0)


def count_system_messages(messages: Any) -> int:
    """How many messages at the start are the system's."""
    count = 0
    for message in messages if isinstance(messages, list | tuple) else ():
        if not isinstance(message, Mapping) or message.get("role") not in _SYSTEM_ROLES:
            break
        count += 1
    return count


def is_tool_result(message: Mapping[str, Any]) -> bool:
    """Whether a chat message is the result of a tool."""
    return message.get("role") in _RESULT_ROLES


def strip_cache_fields(body: Mapping[str, Any], foreign: Iterable[CacheFields]) -> dict[str, Any]:
    """The body without the given cache fields. Arguments and schemas of tools are the caller's data, and stay.

    Args:
        body: JSON-shaped keyword arguments, in the shape of any provider; they are not changed.
        foreign: The fields that the receiver would refuse.
    """
    # only blocks and their containers are searched: a key of that name in a tool's schema means something else
    top: frozenset[str] = frozenset().union(*(fields.request for fields in foreign))
    keys = frozenset(fields.block for fields in foreign)
    out = {name: value for name, value in body.items() if name not in top}
    for section in ("tools", "system", "messages", "input"):
        value = out.get(section)
        if isinstance(value, list | tuple):
            out[section] = _strip_all(value, keys)
    return out


def _strip_all(blocks: Sequence[Any], keys: frozenset[str]) -> Sequence[Any]:
    fresh = [_strip(block, keys) for block in blocks]
    return blocks if all(new is old for new, old in zip(fresh, blocks, strict=True)) else fresh


def _strip(block: Any, keys: frozenset[str]) -> Any:
    if not isinstance(block, Mapping):
        return block
    out = without_keys(block, keys)
    for name in _NESTED:
        inner = block.get(name)
        if isinstance(inner, list | tuple):
            fresh = _strip_all(inner, keys)
            if fresh is not inner:
                out = {**out, name: fresh}
    function = block.get("function")
    if isinstance(function, Mapping) and (bare := without_keys(function, keys)) is not function:
        out = {**out, "function": bare}
    return out


def without_keys(mapping: Mapping[str, Any], keys: frozenset[str]) -> Mapping[str, Any]:
    """A copy without the keys; the mapping itself where it has none of them."""
    if keys.isdisjoint(mapping):
        return mapping
    return {name: value for name, value in mapping.items() if name not in keys}


def own_child(holder: Any, key: Any) -> Any:
    """Replace a child of ``holder`` by a shallow copy, and return the copy."""
    child = holder[key]
    holder[key] = copy = dict(child) if isinstance(child, Mapping) else list(child)
    return copy
