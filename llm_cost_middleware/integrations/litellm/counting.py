"""Counts of a call's input with the key of the deployment that serves it, where that is Anthropic's own API."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

import litellm

from llm_cost_middleware.host import account_of
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import Endpoint, ModelRef

_FROM_ENVIRONMENT = "os.environ/"
_CHOICES = {"required": "any", "none": "none"}  # "auto" is what a request without one says


class DeploymentCounter:
    """An ``InputCounter`` over the SDK, with a deployment's key and address.

    Args:
        endpoint: The shape of ``arguments``.
        arguments: The keyword arguments of the call.
        access: The parameters of a deployment that serves a model; ``None`` where it may be of another.
    """

    __slots__ = ("_access", "_arguments", "_endpoint")

    def __init__(
        self,
        endpoint: Endpoint,
        arguments: Mapping[str, Any],
        access: Callable[[ModelRef], Mapping[str, Any] | None],
    ) -> None:
        self._endpoint, self._arguments, self._access = endpoint, arguments, access

    def account(self, target: ModelRef) -> str:
        """A digest of the deployment's key and address."""
        return account_of(*_key_and_address(self._access(target)))

    def counts(self, target: ModelRef) -> bool:
        """Whether the call and the deployment's key can be read."""
        if not get_provider(target.provider).count_fields:
            return False
        return bool(_key_and_address(self._access(target))[0]) and self._body(target) is not None

    def prepare(self) -> None:
        """Import the SDK, which LiteLLM does without."""
        import_module("anthropic")

    def count(self, target: ModelRef, timeout_s: float) -> int:
        """Ask."""
        body = self._body(target)
        assert body is not None  # noqa: S101 - ``counts`` has said so
        messages = _client(*_key_and_address(self._access(target))).messages
        return int(messages.count_tokens(model=target.model, timeout=timeout_s, **body).input_tokens)

    async def acount(self, target: ModelRef, timeout_s: float) -> int:
        """Ask in a thread: an asynchronous client belongs to one event loop, and a router serves any."""
        return await asyncio.to_thread(self.count, target, timeout_s)

    def _body(self, target: ModelRef) -> dict[str, Any] | None:
        """What to count, in Anthropic's shape; ``None`` for a conversation that only LiteLLM can translate."""
        fields = get_provider(target.provider).count_fields
        if self._endpoint == "messages":
            return {name: self._arguments[name] for name in fields if self._arguments.get(name) is not None}
        return _translated(self._arguments) if self._endpoint == "chat.completions" else None


def _translated(arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """A chat of text, tool calls and their results, in Anthropic's shape; ``None`` for anything else."""
    system: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for message in arguments.get("messages") or ():
        role, blocks = _turn(message)
        if role == "system":
            system += blocks
        elif not blocks:
            return None
        elif messages and messages[-1]["role"] == role:  # results of calls that were made together answer together
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": role, "content": blocks})
    if not messages or arguments.get("functions") or arguments.get("response_format"):
        return None
    tools = [tool.get("function") for tool in arguments.get("tools") or ()]
    if any(not isinstance(tool, Mapping) for tool in tools):
        return None
    body: dict[str, Any] = {"messages": messages}
    if system:
        body["system"] = system
    if tools:
        body["tools"] = [_tool(tool) for tool in tools]
        if (choice := _choice(arguments.get("tool_choice"))) is not None:
            body["tool_choice"] = choice
    return body


def _turn(message: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The role and the blocks of a message; none where it cannot be translated."""
    role, blocks = message.get("role"), _text(message.get("content"))
    calls = [_call(call) for call in message.get("tool_calls") or ()]
    if blocks is None or message.get("function_call") or None in calls:
        return "", []
    if role == "tool":
        return "user", [{"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": blocks}]
    if role == "assistant":
        return role, [*blocks, *(call for call in calls if call is not None)]
    known = {"system": "system", "developer": "system", "user": "user"}.get(str(role), "")
    return known, blocks if known else []


def _text(content: Any) -> list[dict[str, Any]] | None:
    """The blocks of a text; ``None`` where there is more than text."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
    if any(part.get("type") != "text" for part in parts):
        return None
    return [{"type": "text", "text": part["text"]} for part in parts if part["text"]]


def _call(call: Mapping[str, Any]) -> dict[str, Any] | None:
    """A tool call that the model made; ``None`` for one that is no function's, or whose arguments cannot be read."""
    function = call.get("function")
    if not isinstance(function, Mapping):
        return None
    try:
        given = json.loads(function.get("arguments") or "{}")
    except ValueError:
        return None
    if not isinstance(given, dict):
        return None
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given}


def _choice(choice: Any) -> dict[str, Any] | None:
    if isinstance(choice, Mapping):
        return {"type": "tool", "name": (choice.get("function") or {}).get("name")}
    return {"type": kind} if (kind := _CHOICES.get(choice)) is not None else None


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    schema = tool.get("parameters") or {"type": "object", "properties": {}}
    described = {"description": tool["description"]} if tool.get("description") else {}
    return {"name": tool["name"], **described, "input_schema": json.loads(json.dumps(schema))}


def _key_and_address(params: Mapping[str, Any] | None) -> tuple[str, str]:
    """Of a deployment, as LiteLLM would find them; the key is empty where it is not found."""
    if params is None:
        return "", ""
    key = (
        _read(params.get("api_key")) or litellm.anthropic_key or litellm.api_key or os.environ.get("ANTHROPIC_API_KEY")
    )
    base = _read(params.get("api_base") or params.get("base_url")) or litellm.api_base
    base = base or os.environ.get("ANTHROPIC_API_BASE") or os.environ.get("ANTHROPIC_BASE_URL") or ""
    return str(key or ""), str(base).rstrip("/").removesuffix("/v1/messages").removesuffix("/v1")


def _read(value: Any) -> str | None:
    if isinstance(value, str) and value.startswith(_FROM_ENVIRONMENT):
        return os.environ.get(value.removeprefix(_FROM_ENVIRONMENT))
    return value if isinstance(value, str) else None


@lru_cache(maxsize=64)
def _client(key: str, address: str) -> Any:
    """A client that does not retry. Its connections are shared by all threads."""
    import anthropic

    return anthropic.Anthropic(api_key=key, base_url=address or None, max_retries=0)
