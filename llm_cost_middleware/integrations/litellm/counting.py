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
    """A chat of plain text, with or without tools, in Anthropic's shape."""
    system: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for message in arguments.get("messages") or ():
        role, content = message.get("role"), message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
        if message.get("tool_calls") or not parts or any(part.get("type") != "text" for part in parts):
            return None
        plain = [{"type": "text", "text": part["text"]} for part in parts]
        if role in ("system", "developer"):
            system += plain
        elif role in ("user", "assistant"):
            messages.append({"role": role, "content": plain})
        else:
            return None
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
    return body


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
