"""Cache marks on LangChain's messages: placed on copies where the plan says so, removed where they are foreign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_cost_middleware.prompt_cache.plan import CachePlan

_OWN = {"anthropic": "cache_control", "openai": "prompt_cache_breakpoint"}
_FOREIGN = {"anthropic": "prompt_cache_breakpoint", "openai": "cache_control"}


def strip_marks(items: Sequence[Any], provider: str) -> list[Any]:
    """Messages or tools without the marks of the other provider. What bears none is passed on as it is."""
    foreign = _FOREIGN[provider]
    return [_strip(item, foreign) for item in items]


def _strip(item: Any, foreign: str) -> Any:
    content = getattr(item, "content", None)
    if type(content) is str:  # most messages
        return item
    if isinstance(item, Mapping):  # a tool
        return {name: value for name, value in item.items() if name != foreign} if foreign in item else item
    if type(content) is not list or not any(isinstance(block, Mapping) and foreign in block for block in content):
        return item
    bare = [
        {name: value for name, value in block.items() if name != foreign} if isinstance(block, Mapping) else block
        for block in content
    ]
    return item.model_copy(update={"content": bare})


def place_marks(plan: CachePlan, provider: str, messages: list[Any], arguments: dict[str, Any]) -> list[Any]:
    """Copies of ``messages`` and of the tools among ``arguments`` with the marks of ``plan``.

    Args:
        plan: Positions as in the neutral request: system messages and all others counted apart.
        provider: Whose marks.
        messages: The messages to send.
        arguments: The arguments to send; changed (they are a copy of the caller's).
    """
    if provider == "openai":
        for name, value in (("prompt_cache_key", plan.cache_key), ("prompt_cache_retention", plan.retention)):
            if value and name not in arguments:
                arguments[name] = value
        if plan.explicit:
            arguments.setdefault("prompt_cache_options", {"mode": "explicit"})
    if not plan.marks:
        return messages
    placed = list(messages)
    where = {
        "system": [at for at, message in enumerate(messages) if message.type == "system"],
        "messages": [at for at, message in enumerate(messages) if message.type != "system"],
    }
    for (section, index, block), ttl in plan.marks:
        mark = _mark(provider, ttl)
        if section == "tools":
            tools = list(arguments["tools"])
            at = _client_tools(tools)[index]
            tools[at] = {**tools[at], _OWN[provider]: mark}
            arguments["tools"] = tools
        else:
            at = where[section][index]
            placed[at] = _marked(placed[at], block, _OWN[provider], mark)
    return placed


def _mark(provider: str, ttl: str) -> dict[str, str]:
    if provider == "openai":
        return {"mode": "explicit"}
    return {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}


def _marked(message: Any, block: int, name: str, mark: Mapping[str, str]) -> Any:
    content = message.content
    if type(content) is str:
        return message.model_copy(update={"content": [{"type": "text", "text": content, name: mark}]})
    blocks = list(content)
    if message.type == "tool":  # one part in the neutral request: the mark is hoisted from the last block
        block = len(blocks) - 1
    own = blocks[block]
    blocks[block] = {"type": "text", "text": own, name: mark} if isinstance(own, str) else {**own, name: mark}
    return message.model_copy(update={"content": blocks})


def _client_tools(tools: Sequence[Any]) -> list[int]:
    """Places of the caller's own tools: the neutral request counts the provider's apart."""
    return [at for at, tool in enumerate(tools) if "function" in tool or "input_schema" in tool or "name" in tool]
