"""LangChain's messages and call arguments to the neutral request. Nothing of the caller's is changed or kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage

from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import (
    EMPTY,
    CallContext,
    CallRequest,
    Endpoint,
    Message,
    ModelRef,
    Part,
    PartKind,
    Role,
)
from llm_cost_middleware.wire import OUTPUT_CAP_FIELDS, fingerprint

_ROLES: Mapping[str, Role] = {
    "system": "system", "developer": "system", "human": "user", "user": "user", "ai": "assistant",
    "assistant": "assistant", "tool": "tool", "function": "tool",
    "AIMessageChunk": "assistant", "HumanMessageChunk": "user", "SystemMessageChunk": "system",
    "ToolMessageChunk": "tool",
}  # fmt: skip
_TEXTS = frozenset({"text", "output_text", "input_text"})
_CALLS = frozenset({"tool_use", "tool_call", "tool_call_chunk", "function_call", "invalid_tool_call"})
_MEDIA: Mapping[str, PartKind] = {
    "image": "image", "image_url": "image", "input_image": "image", "video": "other",
    "document": "document", "file": "document", "input_file": "document", "text-plain": "document",
    "audio": "audio", "input_audio": "audio",
}  # fmt: skip
_THOUGHTS: Mapping[str, str] = {"thinking": "thinking", "reasoning": "reasoning", "redacted_thinking": "data"}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


class SourceModel(NamedTuple):
    """The settings of a guarded model, read once: they decide how its calls are to be understood."""

    provider: str
    model: str
    endpoint: Endpoint
    body: Mapping[str, Any]
    """Its own settings as a request body, without messages."""
    plain: CallRequest
    """The request of a call without arguments; only messages, context and stream are missing."""
    max_tokens: int | None
    """The output cap that its user set. A cap that LangChain filled in from a profile counts as none."""
    connection: str = ""
    """As ``CallRequest.connection``."""
    bare: bool = False
    """As ``CallRequest.bare``."""
    endpoint_at: Callable[[ModelRef], Endpoint | None] | None = None
    """Where LangChain calls each model that may take the call."""
    effort: str | None = None
    """The reasoning effort that its settings ask for."""
    read_name: Callable[[CallRequest], CallRequest] | None = None
    """Puts what the name in a request stands for in its place, where that is a deployment's."""


_CAP_FIELD: Mapping[Endpoint, str] = {
    "messages": "max_tokens", "chat.completions": "max_completion_tokens", "responses": "max_output_tokens",
}  # fmt: skip


def make_source(
    provider: str,
    model: str,
    endpoint: Endpoint,
    body: Mapping[str, Any],
    max_tokens: int | None,
    endpoint_at: Callable[[ModelRef], Endpoint | None] | None = None,
    read_name: Callable[[CallRequest], CallRequest] | None = None,
) -> SourceModel:
    """Read a model's settings once."""
    if max_tokens is not None and max_tokens < 0:  # no count: it goes as a setting, for the provider to refuse
        body, max_tokens = {**body, _CAP_FIELD[endpoint]: max_tokens}, None
    source = SourceModel(
        provider, model, endpoint, body, _EMPTY_REQUEST, max_tokens, endpoint_at=endpoint_at, read_name=read_name
    )
    return source._replace(plain=_read_arguments(source, {}))


def read_call(
    source: SourceModel,
    messages: Sequence[BaseMessage],
    arguments: Mapping[str, Any],
    *,
    context: CallContext,
    stream: bool,
    pinned: bool = False,
) -> CallRequest:
    """The neutral view of one call of a chat model.

    Args:
        source: The model's own settings.
        messages: LangChain messages, system messages anywhere among them.
        arguments: The keyword arguments of the call, bound ones included.
        context: The attributes of the call.
        stream: Whether the answer is streamed.
        pinned: Never route this model; a ``model`` among the arguments pins the call as well.
    """
    plain = _read_arguments(source, arguments) if arguments else source.plain
    return CallRequest(
        plain.provider, plain.model, read_messages(messages), plain.tools, plain.endpoint, plain.max_tokens,
        plain.choice_count, stream, plain.output_schema, plain.server_tools, plain.has_server_side_context,
        plain.params, context,
        pinned or bool(arguments.get("model")),
        source.connection,
        settings=plain.settings, bare=source.bare, endpoint_at=source.endpoint_at,
        asides=int(bool(messages) and ASIDE in messages[-1].additional_kwargs),
    )  # fmt: skip


def _read_arguments(source: SourceModel, arguments: Mapping[str, Any]) -> CallRequest:
    given = {name: value for name, value in arguments.items() if name not in NOT_SENT}
    body = {**source.body, **given, "messages": ()}
    schema = body.pop("response_format", None)
    if source.provider == "anthropic":
        own, asked = (each.get("output_config") for each in (source.body, given))
        if isinstance(own, Mapping) and isinstance(asked, Mapping):  # ChatAnthropic lays the one over the other
            body["output_config"] = {**own, **asked}
        _as_anthropic_says(body)
    request = get_provider(source.provider).read_request(body, source.endpoint)
    if schema:
        name = "output_format" if source.provider == "anthropic" else "response_format"
        request = request._replace(settings={**request.settings, name: schema})
    cap = next((cap for name in OUTPUT_CAP_FIELDS if type(cap := body.get(name)) is int and cap >= 0), None)
    if cap is None and all(given.get(name) is None for name in OUTPUT_CAP_FIELDS):  # else it is the call's, and odd
        cap = source.max_tokens
    request = request._replace(max_tokens=cap, provider=source.provider)  # a platform is asked in its maker's form
    if source.read_name is not None:
        request = source.read_name(request)
    return request._replace(output_schema=schema_text(schema)) if schema else request


def _as_anthropic_says(body: dict[str, Any]) -> None:
    """Arguments of ChatAnthropic under the names that they are sent by. Changes ``body``."""
    if stop := body.pop("stop", None):
        body["stop_sequences"] = stop
    effort, other = body.pop("effort", None), body.pop("reasoning_effort", None)
    if effort or other:
        body["output_config"] = {**(body.get("output_config") or {}), "effort": effort or other}


ASIDE = "llm_cost_aside"
"""Among the ``additional_kwargs`` of a message at the end that goes with one request alone."""
NOT_SENT = frozenset(
    {
        "stream", "stream_usage", "timeout", "strict", "ls_structured_output_format", "structured_output_format",
        "llm_cost_route", "extra_headers", "extra_query",
    }
)  # fmt: skip
"""Arguments of a call that are LangChain's own, or the SDK's."""


_EMPTY_REQUEST = CallRequest("", "", ())


def schema_text(schema: Any) -> str:
    """A ``response_format``, a class or a mapping, as JSON text."""
    if isinstance(schema, type):
        describe = getattr(schema, "model_json_schema", None)
        schema = describe() if callable(describe) else str(schema)
    return _encode(schema)


def read_messages(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """LangChain messages to neutral ones, system messages first."""
    system: list[Message] = []
    others: list[Message] = []
    for message in messages:
        role = _ROLES.get(message.type)
        if role is None:  # ChatMessage carries its role as text
            role = _ROLES.get(str(getattr(message, "role", "")), "user")
        content = message.content
        parts: tuple[Part, ...]
        if role == "tool":
            parts = (_result(content),)
        elif type(content) is str:
            parts = (Part("text", content),) if content else ()
        else:
            parts = tuple(part for block in content if (part := _part(block)) is not None)
        if role == "assistant":
            parts += _calls(message)
        (system if role == "system" else others).append(Message(role, parts))
    return (*system, *others)


def _calls(message: Any) -> tuple[Part, ...]:
    calls = message.tool_calls
    broken = message.invalid_tool_calls
    if calls or broken:
        return tuple(Part("tool_use", f"{call['name']} {_encode(call['args'])}") for call in (*calls, *broken))
    old = message.additional_kwargs.get("function_call")
    return (Part("tool_use", _encode(old)),) if old else ()


def _result(content: Any) -> Part:
    if type(content) is str:
        return Part("tool_result", content)
    parts = [part for block in content if (part := _part(block)) is not None]
    text = "\n".join(part.text for part in parts if part.text)
    marks = tuple(part.cache_ttl for part in parts if part.cache_ttl)
    nested = tuple(part for part in parts if part.kind != "text")
    if content and all(isinstance(block, Mapping) and block.get("type") == "tool_result" for block in content):
        return Part("tool_result", text, None, EMPTY, nested, marks)  # several results in one message, as they are
    # LangChain makes one block of it, and lifts the last mark to that
    return Part("tool_result", text, marks[-1] if marks else None, EMPTY, nested)


def _part(block: Any) -> Part | None:
    """One content block of any dialect: Anthropic's, OpenAI's, LangChain's own. ``None``: counted elsewhere."""
    if isinstance(block, str):
        return Part("text", block)
    kind = block.get("type")
    if kind in _CALLS:
        return None  # counted from ``tool_calls``, where every dialect puts it
    mark = _mark(block)
    if kind in _TEXTS:
        return Part("text", str(block.get("text") or ""), mark)
    if kind in _MEDIA:
        return _medium(_MEDIA[kind], block, mark)
    if kind in _THOUGHTS:
        hidden = block.get("signature") or block.get("data") or block.get("encrypted_content")
        detail = {"bytes": len(hidden)} if isinstance(hidden, str) else EMPTY
        return Part("thinking", str(block.get(_THOUGHTS[kind]) or ""), mark, detail)
    return Part("other", _encode({name: value for name, value in block.items() if name != "cache_control"}), mark)


def _medium(kind: PartKind, block: Mapping[str, Any], mark: str | None) -> Part:
    source = block.get("source")
    inner = source if isinstance(source, Mapping) else block
    text = inner.get("data") if inner.get("type") == "text" else block.get("text")
    if isinstance(text, str):
        return Part(kind, text, mark, {"text": True})
    return Part(kind, str(block.get("title") or ""), mark, _detail(block))


def _mark(block: Mapping[str, Any]) -> str | None:
    control = block.get("cache_control")
    if isinstance(control, Mapping):
        return str(control.get("ttl") or "5m")
    return "30m" if block.get("prompt_cache_breakpoint") else None


def _detail(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a bound needs of a block that is not text: its size in bytes, or that it stands behind a URL."""
    inner = next((block[name] for name in _INNER if isinstance(block.get(name), Mapping)), block)
    level = inner.get("detail") or block.get("detail")
    detail: dict[str, Any] = {"detail": level} if level else {}
    data = inner.get("data") or inner.get("base64") or inner.get("file_data")
    if isinstance(data, bytes | bytearray):
        return {**detail, "bytes": len(data)}
    if isinstance(data, str):
        return {**detail, "bytes": len(data) * 3 // 4, "digest": fingerprint(data)}
    url = inner.get("url") or block.get("image_url")
    if isinstance(url, str) and url.startswith("data:"):
        data = url.partition(",")[2]
        return {**detail, "bytes": len(data) * 3 // 4, "digest": fingerprint(data)}
    return {**detail, "url": True}


_INNER = ("image_url", "source", "file", "input_audio", "image")
