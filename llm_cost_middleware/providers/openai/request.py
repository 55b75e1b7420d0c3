"""Request bodies of OpenAI, of both its APIs, to the neutral view."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from llm_cost_middleware.providers.openai.embeddings import read_embedding
from llm_cost_middleware.request import EMPTY, CallRequest, Endpoint, Message, Part, Role, ServerTool, Tool, as_written
from llm_cost_middleware.turns import read_plain
from llm_cost_middleware.wire import ByValue, definition_text, fingerprint

_PARAMS = (
    "service_tier",
    "reasoning_effort",
    "reasoning",
    "tool_choice",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "cache_control",
    "modalities",
    "background",
    "truncation",
)
_IS_PARAM = frozenset(_PARAMS)
_STORED = ("previous_response_id", "conversation", "prompt")
_CLIENT_SIDE = ("apply_patch", "local_shell", "computer_use_preview", "computer")
_ROLES: Mapping[Any, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_SPEAKERS = {name: role for name, role in _ROLES.items() if role != "tool"}
_PROMPT = frozenset({"messages", "input", "instructions", "tools", "model", "stream", "stream_options"})
"""What a host writes itself; the rest are settings."""
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def read_request(body: Mapping[str, Any], endpoint: str = "chat.completions") -> CallRequest:
    """A request body, as sent to ``endpoint``, to the neutral view. The body is not changed, nor kept.

    Args:
        body: The JSON object of the request.
        endpoint: ``chat.completions``, ``responses`` (a path such as ``chat/completions`` does as well) or
            ``embeddings``.
    """
    if endpoint == "embeddings":
        return read_embedding(body)
    get = body.get
    view = _PromptView()
    responses = endpoint.startswith("responses")
    messages: Sequence[Message]
    named: Endpoint = "responses" if responses else "chat.completions"
    if responses:
        messages = view.items(body)
    else:
        given = get("messages") or ()
        plain = read_plain(given, _SPEAKERS)
        messages = view.chat(given) if plain is None else plain
    definitions = get("tools") or get("functions")
    tools, server_tools, held = _read_tools(definitions) if definitions else ((), (), 0)
    params = {} if _IS_PARAM.isdisjoint(body) else {name: body[name] for name in _PARAMS if name in body}
    if held:
        params["provider_tools"] = held
    prediction = get("prediction")
    if prediction:
        params["prediction_bytes"] = len(_encode(prediction).encode())
    model = str(get("model") or "")
    if get("web_search_options") is not None or "-search-" in model:
        server_tools += (ServerTool("web_search", 1),)
    limit = get("max_output_tokens") if responses else get("max_completion_tokens", get("max_tokens"))
    choices = get("n")
    return as_written(
        "openai", model, messages, tools, named,
        limit if type(limit) is int and limit >= 0 else None,
        choices if type(choices) is int and choices > 1 else 1,
        _schema(body, responses=responses), server_tools, params,
        {} if _PROMPT.issuperset(body) else {name: body[name] for name in body if name not in _PROMPT},
        stream=bool(get("stream")),
        stored=view.stored or (responses and any(get(name) is not None for name in _STORED)),
    )  # fmt: skip


def _schema(body: Mapping[str, Any], *, responses: bool) -> str:
    if responses:
        text = body.get("text")
        form = text.get("format") if isinstance(text, Mapping) else None
    else:
        form = body.get("response_format")
    return _encode(form) if form else ""


def _tools(definitions: Sequence[Any]) -> tuple[tuple[Tool, ...], tuple[ServerTool, ...], int]:
    """Client tools, server tools, and how many client tools have a definition that only the provider holds."""
    tools: list[Tool] = []
    server_tools: list[ServerTool] = []
    held = 0
    for place, tool in enumerate(definitions):
        if type(tool) is not dict and not isinstance(tool, Mapping):
            continue
        kind = tool.get("type")
        if kind in _CLIENT_SIDE:
            held += 1
        elif kind not in _OWN:
            server_tools.append(ServerTool(str(kind), cache_ttl=_mark(tool), place=place))
            continue
        inner = tool.get("function") or tool.get("custom")
        named = inner if isinstance(inner, Mapping) else tool
        deferred = bool(tool.get("defer_loading") or named.get("defer_loading"))
        mark = _mark(tool) or _mark(named)
        tools.append(Tool(str(named.get("name") or ""), definition_text(_unmarked(tool, inner)), mark, place, deferred))
    return tuple(tools), tuple(server_tools), held


_read_tools = ByValue(_tools)
_ROLE_AND_TEXT = 2
"""Fields of a message that is nothing but a role and a text."""
_OWN = (None, "function", "custom", "namespace")  # compared: an odd kind need not be hashable


def _unmarked(tool: Mapping[str, Any], inner: Any) -> Mapping[str, Any]:
    """The definition as the model reads it: without a cache mark, which may stand on either level."""
    if isinstance(inner, Mapping) and "cache_control" in inner:
        tool = {**tool, "function": {name: value for name, value in inner.items() if name != "cache_control"}}
    return {name: value for name, value in tool.items() if name != "cache_control"} if "cache_control" in tool else tool


def _mark(block: Mapping[str, Any]) -> str | None:
    """A breakpoint of the prompt cache (GPT-5.6 and later), whose entries live thirty minutes; or Claude's mark.

    LiteLLM takes Claude's in this shape as well, on blocks, tools and whole messages.
    """
    if block.get("prompt_cache_breakpoint"):
        return "30m"
    control = block.get("cache_control")
    return str(control.get("ttl") or "5m") if isinstance(control, Mapping) else None


class _PromptView:
    """Messages and items to parts; remembers whether one points to content that the request does not carry."""

    __slots__ = ("stored",)

    def __init__(self) -> None:
        self.stored = False

    def chat(self, messages: Sequence[Any]) -> tuple[Message, ...]:
        out: list[Message] = []
        add, speaker = out.append, _SPEAKERS.get
        for message in messages:
            if type(message) is dict and len(message) == _ROLE_AND_TEXT:
                text = message.get("content")
                try:
                    role = speaker(message.get("role"))
                except TypeError:  # a list, say: the provider says what it thinks of that
                    role = None
                if type(text) is str and role is not None:  # of a long conversation nearly all
                    add(Message(role, (Part("text", text),)))
                    continue
            add(self._chat_message(message))
        return tuple(out)

    def _chat_message(self, message: Any) -> Message:
        if not isinstance(message, Mapping):
            return Message("user", (Part("text", str(message)),))
        get = message.get
        role = _role(get("role"))
        content = get("content")
        mark = _mark(message) if "cache_control" in message else None
        parts: tuple[Part, ...]
        if role == "tool":
            parts = (self._result(content, mark),)
            mark = None
        else:
            parts = self.parts(content)
        calls = get("tool_calls") or get("function_call")
        if calls:
            parts += tuple(self._call(call) for call in ((calls,) if isinstance(calls, Mapping) else calls))
        for name in ("name", "refusal"):
            if get(name):
                parts += (Part("text", str(get(name))),)
        if mark and parts:
            parts = (*parts[:-1], replace(parts[-1], cache_ttl=parts[-1].cache_ttl or mark))
        if get("audio"):
            self.stored = True  # an earlier audio answer, by its id
        return Message(role, parts)

    def _call(self, call: Any) -> Part:
        inner = call.get("function") or call.get("custom") or call if isinstance(call, Mapping) else call
        if not isinstance(inner, Mapping):
            return Part("tool_use", str(inner))
        arguments = inner.get("arguments", inner.get("input"))
        text = arguments if isinstance(arguments, str) else _encode(arguments)
        return Part("tool_use", f"{inner.get('name')} {text}", _mark(call))

    def _result(self, content: Any, mark: str | None = None) -> Part:
        if content is None or isinstance(content, str):
            return Part("tool_result", content or "", mark)
        parts = self.parts(content)
        text = "\n".join(part.text for part in parts if part.text)
        inner = tuple(part.cache_ttl for part in parts if part.cache_ttl)
        return Part("tool_result", text, mark, EMPTY, tuple(part for part in parts if part.kind != "text"), inner)

    def items(self, body: Mapping[str, Any]) -> tuple[Message, ...]:
        out: list[Message] = []
        instructions = body.get("instructions")
        if instructions:
            out.append(Message("system", self.parts(instructions)))
        given = body.get("input")
        if isinstance(given, str):
            out.append(Message("user", (Part("text", given),)))
        elif isinstance(given, list | tuple):
            out.extend(self._item(item) for item in given)
        return tuple(out)

    def _item(self, item: Any) -> Message:
        if not isinstance(item, Mapping):
            return Message("user", (Part("text", str(item)),))
        get = item.get
        kind = get("type")
        if kind is None or kind == "message":
            return Message(_role(get("role")), self.parts(get("content")))
        if kind in ("function_call", "custom_tool_call"):
            return Message("assistant", (self._call(item),))
        if kind in ("function_call_output", "custom_tool_call_output"):
            return Message("tool", (self._result(get("output")),))
        if kind == "item_reference" or (kind in _BY_ID and not get("encrypted_content")):
            self.stored = True
        role: Role = "assistant" if not str(kind).endswith("_output") else "tool"
        return Message(role, (Part("thinking" if kind == "reasoning" else "other", _encode(item)),))

    def parts(self, content: Any) -> tuple[Part, ...]:
        if isinstance(content, str):
            return (Part("text", content),)
        if not isinstance(content, list | tuple):
            content = () if content is None else (content,)
        return tuple(self._part(block) for block in content)

    def _part(self, block: Any) -> Part:
        if type(block) is not dict and not isinstance(block, Mapping):
            return Part("text", str(block))
        get = block.get
        kind, mark = get("type"), _mark(block)
        if kind in _TEXT:
            return Part("text", str(get("text") or get("refusal") or ""), mark)
        if kind in ("image_url", "input_image"):
            return self._image(block, mark)
        if kind in ("file", "input_file"):
            inner = get("file")
            return self._file(inner if isinstance(inner, Mapping) else block, mark)
        if kind == "input_audio":
            audio = get("input_audio")
            data = audio.get("data") if isinstance(audio, Mapping) else None
            return Part("audio", "", mark, _carried(data))
        return Part("other", _encode(block), mark)

    def _image(self, block: Mapping[str, Any], mark: str | None) -> Part:
        image = block.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else image
        level = image.get("detail") if isinstance(image, Mapping) else block.get("detail")
        detail: dict[str, Any] = {"detail": level} if level else {}
        if isinstance(url, str) and url.startswith("data:"):
            detail |= _carried(url.partition(",")[2])
        elif url:
            detail["url"] = True
        return Part("image", "", mark, detail)  # an image by its id costs what an image costs

    def _file(self, block: Mapping[str, Any], mark: str | None) -> Part:
        data = block.get("file_data")
        if isinstance(data, str):
            return Part("document", str(block.get("filename") or ""), mark, _carried(data.rpartition(",")[2]))
        self.stored = self.stored or bool(block.get("file_id"))
        return Part("document", "", mark, {"url": True})


def _role(named: Any) -> Role:
    try:
        return _ROLES.get(named, "user")
    except TypeError:
        return "user"


def _carried(data: Any) -> dict[str, Any]:
    return {"bytes": len(data) * 3 // 4, "digest": fingerprint(data)} if isinstance(data, str) else {}


_TEXT = ("text", "input_text", "output_text", "refusal", "summary_text")
_BY_ID = ("reasoning", "image_generation_call", "compaction")
