"""Request bodies of Anthropic to the neutral view."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llm_cost_middleware.request import EMPTY, CallRequest, Message, Part, Role, ServerTool, Tool, as_written
from llm_cost_middleware.turns import read_plain
from llm_cost_middleware.wire import ByValue, definition_text, fingerprint, picture_size

_PARAMS = (
    "service_tier",
    "speed",
    "inference_geo",
    "thinking",
    "tool_choice",
    "cache_control",
    "context_management",
    "output_config",
    "container",
)
_IS_PARAM = frozenset(_PARAMS)
_SERVER_TOOLS = ("web_search", "web_fetch", "code_execution", "tool_search_tool", "advisor", "mcp_toolset")
_PROMPT = frozenset({"messages", "system", "tools", "model", "stream"})
"""What a host writes itself; the rest are settings."""
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def read_request(body: Mapping[str, Any], endpoint: str = "messages") -> CallRequest:
    """A request body, as sent to ``endpoint``, to the neutral view. The body is not changed, nor kept.

    Raises:
        Nothing: what is not understood is carried as JSON text, so that it is counted.
    """
    del endpoint  # one shape for all of them: messages, count_tokens
    get = body.get
    view = _MessagesView()
    given, system = get("messages") or (), get("system")
    plain = read_plain(given, _ROLES, system)
    messages = view.messages(given, system) if plain is None else plain
    definitions = get("tools")
    tools, server_tools, held = _read_tools(definitions) if definitions else ((), (), 0)
    params = {} if _IS_PARAM.isdisjoint(body) else {name: body[name] for name in _PARAMS if name in body}
    if held:
        params["provider_tools"] = held
    if view.cites:
        params["citations"] = True
    servers = get("mcp_servers")
    if servers:
        server_tools += tuple(ServerTool("mcp") for _ in servers)
    limit = get("max_tokens")
    return as_written(
        "anthropic", str(get("model") or ""), messages, tools, "messages",
        limit if type(limit) is int and limit >= 0 else None, 1, _schema(body), server_tools, params,
        {} if _PROMPT.issuperset(body) else {name: body[name] for name in body if name not in _PROMPT},
        stream=bool(get("stream")),
        stored=view.stored or type(get("container")) is str or _continues(get("thread")),
    )  # fmt: skip


def _continues(thread: Any) -> bool:
    """Whether the server keeps the earlier turns (tool runners of the SDK ask for that)."""
    return isinstance(thread, Mapping) and thread.get("type") != "create"


_ROLES: Mapping[Any, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


def _schema(body: Mapping[str, Any]) -> str:
    config = body.get("output_config")
    form = body.get("output_format") or (config.get("format") if isinstance(config, Mapping) else None)
    return _encode(form) if form else ""


def _mark(block: Mapping[str, Any]) -> str | None:
    control = block.get("cache_control")
    return str(control.get("ttl") or "5m") if isinstance(control, Mapping) else None


def _tools(definitions: Sequence[Any]) -> tuple[tuple[Tool, ...], tuple[ServerTool, ...], int]:
    """Client tools, server tools, and how many client tools have a definition that only the provider holds."""
    tools: list[Tool] = []
    server_tools: list[ServerTool] = []
    held = 0
    for place, tool in enumerate(definitions):
        if type(tool) is not dict and not isinstance(tool, Mapping):
            continue
        kind = tool.get("type")
        if type(kind) is str and kind.startswith(_SERVER_TOOLS):
            uses = tool.get("max_uses")
            server_tools.append(ServerTool(kind, uses if type(uses) is int else None, _mark(tool), place))
            continue
        held += kind not in _OWN
        plain = {name: value for name, value in tool.items() if name != "cache_control"}
        deferred = bool(tool.get("defer_loading"))
        tools.append(Tool(str(tool.get("name") or ""), definition_text(plain), _mark(tool), place, deferred))
    return tuple(tools), tuple(server_tools), held


_read_tools = ByValue(_tools)
_OWN = (None, "custom")  # compared: an odd kind need not be hashable


class _MessagesView:
    """Blocks to parts; remembers whether one points to content that the request does not carry, or asks to be cited."""

    __slots__ = ("cites", "stored")

    def __init__(self) -> None:
        self.stored = self.cites = False

    def messages(self, given: Iterable[Any], system: Any) -> tuple[Message, ...]:
        messages = [Message("system", self.parts(system))] if system else []
        for message in given:
            if type(message) is not dict and not isinstance(message, Mapping):  # an abstract class is slow to ask
                messages.append(Message("user", (Part("text", str(message)),)))
                continue
            try:
                known = _ROLES.get(message.get("role"), "user")
            except TypeError:  # a list, say: the provider says what it thinks of that
                known = "user"
            messages.append(Message(known, self.parts(message.get("content"))))
        return tuple(messages)

    def parts(self, content: Any) -> tuple[Part, ...]:
        if isinstance(content, str):
            return (Part("text", content),)
        if not isinstance(content, list | tuple):
            content = () if content is None else (content,)
        return tuple(self._part(block) for block in content)

    def _part(self, block: Any) -> Part:
        if type(block) is not dict and not isinstance(block, Mapping):
            return Part("text", str(block))
        kind, mark = block.get("type"), _mark(block)
        if kind == "text":
            extra = block.get("citations")
            return Part("text", f"{block.get('text')}{_encode(extra) if extra else ''}", mark)
        if kind == "tool_use":
            return Part("tool_use", f"{block.get('name')} {_encode(block.get('input'))}", mark)
        if kind == "tool_result":
            return self._result(block, mark)
        if kind == "image":
            return Part("image", "", mark, self._picture(block.get("source")))
        if kind in ("document", "search_result"):
            citations = block.get("citations")
            self.cites |= isinstance(citations, Mapping) and bool(citations.get("enabled"))
        if kind == "document":
            return self._document(block, mark)
        if kind == "thinking":
            signature = block.get("signature")
            detail = {"bytes": len(signature)} if isinstance(signature, str) else EMPTY
            return Part("thinking", str(block.get("thinking") or ""), mark, detail)
        if kind == "container_upload":
            self.stored = True
        return Part("other", _encode({name: value for name, value in block.items() if name != "cache_control"}), mark)

    def _result(self, block: Mapping[str, Any], mark: str | None) -> Part:
        content = block.get("content")
        if content is None or isinstance(content, str):
            return Part("tool_result", content or "", mark)
        parts = self.parts(content)
        text = "\n".join(part.text for part in parts if part.text)
        inner = tuple(part.cache_ttl for part in parts if part.cache_ttl)
        return Part("tool_result", text, mark, EMPTY, tuple(part for part in parts if part.kind != "text"), inner)

    def _document(self, block: Mapping[str, Any], mark: str | None) -> Part:
        source = block.get("source")
        head = f"{block.get('title') or ''}{block.get('context') or ''}"
        if isinstance(source, Mapping):
            if source.get("type") == "text":
                return Part("document", f"{head}{source.get('data') or ''}", mark, {"text": True})
            if source.get("type") == "content":
                parts = self.parts(source.get("content"))
                text = head + "\n".join(part.text for part in parts)
                inner = tuple(part.cache_ttl for part in parts if part.cache_ttl)
                return Part("document", text, mark, {"text": True}, tuple(p for p in parts if p.kind != "text"), inner)
        return Part("document", head, mark, self._source(source))

    def _picture(self, source: Any) -> Mapping[str, Any]:
        data = source.get("data") if isinstance(source, Mapping) else None
        size = picture_size(data) if isinstance(data, str) else None
        detail = self._source(source)
        return detail if size is None else {**detail, "width": size[0], "height": size[1]}

    def _source(self, source: Any) -> Mapping[str, Any]:
        if not isinstance(source, Mapping):
            return EMPTY
        data = source.get("data")
        if isinstance(data, str):
            return {"bytes": len(data) * 3 // 4, "digest": fingerprint(data)}
        if source.get("type") == "file":
            self.stored = True
        return {"url": True}
