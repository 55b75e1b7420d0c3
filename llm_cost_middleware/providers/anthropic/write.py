"""An attempt written into a request body for one of Anthropic's models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.cache_marks import (
    CacheFields,
    is_tool_result,
    mark_content,
    mark_message,
    mark_tool,
    message_index,
    own_child,
)
from llm_cost_middleware.request import Attempt, BlockRef, CacheDirectives, Endpoint
from llm_cost_middleware.wire import apply_changes, ask_for_usage, output_cap_field


def _cache_control(ttl: str) -> dict[str, str]:
    return {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}


CACHE_FIELDS = CacheFields(
    block="cache_control",
    mark=_cache_control,
    request=frozenset({"cache_control"}),
    options=lambda _: {},
)


def write_request(body: Mapping[str, Any], attempt: Attempt, endpoint: Endpoint) -> dict[str, Any]:
    """A copy of a body with the attempt's model, output cap and cache marks.

    Args:
        body: JSON-shaped keyword arguments; they are not changed.
        attempt: For a model of Anthropic.
        endpoint: The shape of ``body``: the provider's own ``messages``; or one of OpenAI's, from hosts such as LiteLLM
            that send it on to Claude.
    """
    out = dict(body)
    if attempt.cache_plan is not None:
        write_marks(out, attempt.cache_plan, endpoint)
    out["model"] = attempt.target.model
    apply_changes(out, attempt.changes)
    out.update(attempt.fields)
    if attempt.max_tokens is not None:
        out[output_cap_field(out, endpoint, chat="max_tokens")] = attempt.max_tokens
    if not attempt.bare:
        ask_for_usage(out, endpoint)
    return out


def write_marks(out: dict[str, Any], directives: CacheDirectives, endpoint: Endpoint) -> None:
    """Write the breakpoints into a copy of a body."""
    if endpoint == "responses":
        return  # no host carries cache_control through this shape
    for position, ttl in directives.marks:
        if position.section == "tools":
            mark_tool(out, position.block, CACHE_FIELDS, ttl)
        elif endpoint == "chat.completions":
            _mark_chat(out, position, ttl)
        elif position.section == "system":
            mark_content(out, "system", position.block, CACHE_FIELDS, ttl)
        else:
            mark_message(out, "messages", position.message, position.block, CACHE_FIELDS, ttl)


def _mark_chat(out: dict[str, Any], position: BlockRef, ttl: str) -> None:
    messages = out.get("messages") or ()
    at = message_index(messages, position)
    message = messages[at] if at < len(messages) else None
    if isinstance(message, Mapping) and is_tool_result(message):
        # LiteLLM moves a mark on the message to the tool_result block that it makes of it, and leaves its content
        own_child(own_child(out, "messages"), at)[CACHE_FIELDS.block] = CACHE_FIELDS.mark(ttl)
    else:
        mark_message(out, "messages", at, position.block, CACHE_FIELDS, ttl)


def write_prompt(system: str, text: str) -> dict[str, Any]:
    """A body of ``messages``."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    return {"system": [{"type": "text", "text": system}], **body} if system else body
