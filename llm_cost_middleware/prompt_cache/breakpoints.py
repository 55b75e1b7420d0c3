"""Cache marks on the wire: a plan rendered on copies of a provider-shaped body, and foreign marks taken off.

Nothing that the caller owns is changed. Only the containers on the way to a mark are copied; everything else is shared.
A mark whose place does not exist in the body, or cannot bear one there, is left out: a plan never makes a request fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_cost_middleware.prompt_cache.layout import BlockRef
from llm_cost_middleware.prompt_cache.plan import CachePlan

_SYSTEM_ROLES = frozenset({"system", "developer"})
_TOOL_ROLES = frozenset({"tool", "function"})
_MARKABLE = frozenset(
    {"text", "image", "document", "search_result", "tool_use", "tool_result"}
    | {"input_text", "image_url", "input_image", "file", "input_file", "input_audio"}
)
"""Types of content blocks that take a mark."""
_FOREIGN: Mapping[str, tuple[frozenset[str], str]] = {
    # The top-level keys, and the key on blocks, that a provider refuses.
    "anthropic": (
        frozenset({"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"}),
        "prompt_cache_breakpoint",
    ),
    "openai": (frozenset({"cache_control"}), "cache_control"),
}
_NESTED = ("content", "output", "tool_calls")
"""Where blocks hold further blocks."""

_Write = Callable[[dict[str, Any], str], None]


def render_anthropic(body: Mapping[str, Any], plan: CachePlan) -> dict[str, Any]:
    """The body of a request to ``messages`` with the plan's marks.

    Args:
        body: JSON-shaped keyword arguments; they are not changed.
        plan: Made for this request and a model of Anthropic.
    """
    out = dict(body)
    for position, ttl in plan.marks:
        if position.section == "tools":
            _mark_tool(out, position, ttl)
        elif position.section == "system":
            _mark_content(out, "system", position.block, "text", _cache_control, ttl)
        else:
            _mark_message(out, "messages", position.message, position, "text", _cache_control, ttl)
    return out


def render_openai_chat(body: Mapping[str, Any], plan: CachePlan, *, for_provider: str) -> dict[str, Any]:
    """The body of a request in the shape of OpenAI's chat completions, with the plan's marks.

    Args:
        body: JSON-shaped keyword arguments; they are not changed.
        plan: Made for this request and a model of ``for_provider``.
        for_provider: ``openai``; or ``anthropic``, for hosts such as LiteLLM that send this shape on to Claude and
            understand ``cache_control`` in it.
    """
    out = dict(body)
    systems = _leading(body.get("messages") or ())
    claude = for_provider == "anthropic"
    for position, ttl in plan.marks:
        if position.section != "tools":
            at = position.message + (systems if position.section == "messages" else 0)
            _mark_message(out, "messages", at, position, "text", _cache_control if claude else _breakpoint, ttl)
        elif claude:
            _mark_tool(out, position, ttl)
    return out if claude else _with_options(out, plan)


def render_openai_responses(body: Mapping[str, Any], plan: CachePlan) -> dict[str, Any]:
    """The body of a request to OpenAI's ``responses`` with the plan's marks and options. The body is not changed."""
    out = dict(body)
    given = body.get("input")
    if isinstance(given, str) and plan.marks:
        out["input"] = given = [{"role": "user", "content": given}]
    # Instructions count as the first system message, and cannot bear a mark.
    instructed = 1 if body.get("instructions") else 0
    systems = _leading(given) if isinstance(given, list | tuple) else 0
    for position, ttl in plan.marks:
        if position.section != "tools":
            at = position.message + (systems if position.section == "messages" else -instructed)
            if at >= 0:
                _mark_message(out, "input", at, position, "input_text", _breakpoint, ttl)
    return _with_options(out, plan)


def strip_foreign_marks(body: Mapping[str, Any], provider: str) -> dict[str, Any]:
    """The body without cache keys that ``provider`` refuses. Arguments and schemas of tools are the caller's data.

    Args:
        body: JSON-shaped keyword arguments, in the shape of either provider; they are not changed.
        provider: The provider it goes to.
    """
    top, key = _FOREIGN[provider]
    out = {name: value for name, value in body.items() if name not in top}
    for section in ("tools", "system", "messages", "input"):
        value = out.get(section)
        if isinstance(value, list | tuple):
            out[section] = _stripped(value, key)
    return out


def _stripped(blocks: Sequence[Any], key: str) -> Sequence[Any]:
    fresh = [_strip(block, key) for block in blocks]
    return blocks if all(new is old for new, old in zip(fresh, blocks, strict=True)) else fresh


def _strip(block: Any, key: str) -> Any:
    if not isinstance(block, Mapping):
        return block
    out = block
    if key in block:
        out = {name: value for name, value in block.items() if name != key}
    for name in _NESTED:
        inner = block.get(name)
        if isinstance(inner, list | tuple):
            fresh = _stripped(inner, key)
            if fresh is not inner:
                out = {**out, name: fresh}
    function = block.get("function")
    if isinstance(function, Mapping) and key in function:
        out = {**out, "function": {name: value for name, value in function.items() if name != key}}
    return out


def _with_options(out: dict[str, Any], plan: CachePlan) -> dict[str, Any]:
    if plan.cache_key is not None:
        out.setdefault("prompt_cache_key", plan.cache_key)
    if plan.retention is not None:
        out.setdefault("prompt_cache_retention", plan.retention)
    if plan.explicit:
        out.setdefault("prompt_cache_options", {"mode": "explicit"})
    return out


def _leading(messages: Sequence[Any]) -> int:
    """How many messages at the start are the system's."""
    count = 0
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in _SYSTEM_ROLES:
            break
        count += 1
    return count


def _mark_tool(out: dict[str, Any], position: BlockRef, ttl: str) -> None:
    tools = out.get("tools") or ()
    if position.block < len(tools) and isinstance(tools[position.block], Mapping):
        _cache_control(_own(_own(out, "tools"), position.block), ttl)


def _mark_message(
    out: dict[str, Any], section: str, at: int, position: BlockRef, text_type: str, write: _Write, ttl: str
) -> None:
    messages = out.get(section) or ()
    if not (at < len(messages) and isinstance(messages[at], Mapping)):
        return
    message = messages[at]
    key = "output" if "output" in message and "content" not in message else "content"
    result = key == "output" or message.get("role") in _TOOL_ROLES
    if result and write is _cache_control and isinstance(message.get(key), str):
        _cache_control(_own(_own(out, section), at), ttl)  # LiteLLM moves it to the tool_result block
        return
    block = -1 if result else position.block  # a tool's result is one block, whatever it holds
    _mark_content(_own(_own(out, section), at), key, block, text_type, write, ttl)


def _mark_content(holder: dict[str, Any], key: str, block: int, text_type: str, write: _Write, ttl: str) -> None:
    content = holder.get(key)
    if isinstance(content, str):
        if content.strip() and block <= 0:
            fresh = {"type": text_type, "text": content}
            write(fresh, ttl)
            holder[key] = [fresh]
    elif isinstance(content, list | tuple) and content and block < len(content):
        found = content[block]
        if isinstance(found, Mapping) and found.get("type") in _MARKABLE and found.get("text") != "":
            write(_own(_own(holder, key), block), ttl)


def _cache_control(block: dict[str, Any], ttl: str) -> None:
    block["cache_control"] = {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}


def _breakpoint(block: dict[str, Any], ttl: str) -> None:
    del ttl  # it is the request's: prompt_cache_options
    block["prompt_cache_breakpoint"] = {"mode": "explicit"}


def _own(holder: Any, key: Any) -> Any:
    """Replace a child of ``holder`` by a shallow copy, and return the copy."""
    child = holder[key]
    holder[key] = copy = dict(child) if isinstance(child, Mapping) else list(child)
    return copy
