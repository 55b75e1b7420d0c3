"""An attempt written into a request body for one of OpenAI's models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.cache_marks import (
    CacheFields,
    add_options,
    count_system_messages,
    mark_message,
    message_index,
)
from llm_cost_middleware.capabilities import find_capabilities
from llm_cost_middleware.providers.openai.embeddings import write_embedding
from llm_cost_middleware.request import Attempt, CacheDirectives, Endpoint
from llm_cost_middleware.wire import apply_changes, ask_for_usage, output_cap_field


def _options(directives: CacheDirectives) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if directives.cache_key is not None:
        options["prompt_cache_key"] = directives.cache_key
    if directives.retention is not None:
        options["prompt_cache_retention"] = directives.retention
    if directives.explicit:
        options["prompt_cache_options"] = {"mode": "explicit"}
    return options


CACHE_FIELDS = CacheFields(
    block="prompt_cache_breakpoint",
    mark=lambda _: {"mode": "explicit"},  # the lifetime is the request's: prompt_cache_options
    request=frozenset({"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"}),
    options=_options,
)


def write_request(body: Mapping[str, Any], attempt: Attempt, endpoint: Endpoint) -> dict[str, Any]:
    """A copy of a body with the attempt's model, output cap and cache marks; a streamed chat also asks for its usage.

    Args:
        body: JSON-shaped keyword arguments; they are not changed.
        attempt: For a model of OpenAI.
        endpoint: The shape of ``body``: the provider's own ``chat.completions``, ``responses`` or ``embeddings``; or
            ``messages``, from hosts such as LiteLLM that send it on to GPT.
    """
    if endpoint == "embeddings":
        return write_embedding(body, attempt)
    out = dict(body)
    if attempt.cache_plan is not None:
        write_marks(out, attempt.cache_plan, endpoint)
    out["model"] = attempt.target.model
    apply_changes(out, attempt.changes)
    out.update(attempt.fields)
    if attempt.max_tokens is not None:
        out[output_cap_field(out, endpoint, chat=_cap_field(attempt))] = attempt.max_tokens
    if not attempt.bare:
        ask_for_usage(out, endpoint)
    return out


def _cap_field(attempt: Attempt) -> str:
    """The field for a chat without one: every model of OpenAI takes the new one, every gateway knows the old one."""
    if not attempt.bare:
        return "max_completion_tokens"
    known = find_capabilities(*attempt.target)
    return "max_tokens" if known is None else known.chat_cap


def write_marks(out: dict[str, Any], directives: CacheDirectives, endpoint: Endpoint) -> None:
    """Write the breakpoints and options into a copy of a body. Tools take no mark here."""
    if endpoint == "messages":
        return  # no host carries OpenAI's fields through this shape
    if endpoint == "responses":
        _mark_items(out, directives)
    else:
        for position, ttl in directives.marks:
            if position.section != "tools":
                at = message_index(out.get("messages"), position)
                mark_message(out, "messages", at, position.block, CACHE_FIELDS, ttl)
    add_options(out, CACHE_FIELDS, directives)  # also without a mark: the key routes to the machine with the cache


def _mark_items(out: dict[str, Any], directives: CacheDirectives) -> None:
    given = out.get("input")
    if isinstance(given, str) and directives.marks:
        out["input"] = given = [{"role": "user", "content": given}]
    # instructions count as the first system message, and cannot bear a mark
    instructed = 1 if out.get("instructions") else 0
    systems = count_system_messages(given)
    for position, ttl in directives.marks:
        if position.section != "tools":
            at = position.message + (systems if position.section == "messages" else -instructed)
            if at >= 0:
                mark_message(out, "input", at, position.block, CACHE_FIELDS, ttl, text_type="input_text")


def write_prompt(system: str, text: str) -> dict[str, Any]:
    """A body of ``chat.completions``."""
    prefix = [{"role": "system", "content": system}] if system else []
    return {"messages": [*prefix, {"role": "user", "content": text}]}
