"""Requests of Converse as the Messages of the model behind it, and an attempt written into one.

Bedrock translates Converse into the model's own form, so that is what counts, what is cached and what is capped; and
what is known of Messages need not be known twice. A ``cachePoint`` stands behind what it caches, where Messages mark
the block itself. Shapes: the service model ``bedrock-runtime/2023-09-30`` of botocore.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm_cost_middleware.providers import anthropic
from llm_cost_middleware.request import Attempt, CallRequest

_CONFIG = {"maxTokens": "max_tokens", "temperature": "temperature", "topP": "top_p", "stopSequences": "stop_sequences"}
_WRITTEN = {own: name for name, own in _CONFIG.items()}
_POINT = "cachePoint"
_TIERS = ("default", "standard")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def read_converse(body: Mapping[str, Any], *, stream: bool) -> CallRequest:
    """A request of Converse to the neutral view. The body is not changed, nor kept. Never raises."""
    request = anthropic.PROVIDER.read_request(to_messages(body), "messages")
    stored = bool(body.get("promptVariables")) or ":prompt/" in str(body.get("modelId"))
    params = dict(request.params)
    for name, field, key in (("service_tier", "serviceTier", "type"), ("speed", "performanceConfig", "latency")):
        value = body[field].get(key) if isinstance(body.get(field), Mapping) else None
        if isinstance(value, str) and value not in _TIERS:
            params[name] = value
    return request._replace(
        provider="bedrock", stream=stream, params=params,
        has_server_side_context=request.has_server_side_context or stored,
    )  # fmt: skip


def to_messages(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of Messages that a request of Converse stands for; containers of both are shared where they can be.

    What is not understood is carried as it is, so that it is counted.
    """
    own: dict[str, Any] = dict(_mapping(body.get("additionalModelRequestFields")))
    given, caps = _mapping(body.get("inferenceConfig")), _caps(body)
    own |= {_CONFIG.get(name, name): value for name, value in given.items() if value is not None}
    if caps:
        own["max_tokens"] = max(caps)  # which of two would win is Bedrock's to say
    own["model"] = str(body.get("modelId") or "")
    if body.get("system"):
        own["system"] = _blocks(body["system"])
    own["messages"] = [
        {"role": message.get("role"), "content": _blocks(message.get("content"))}
        if isinstance(message, Mapping)
        else message
        for message in _list(body.get("messages"))
    ]
    config = _mapping(body.get("toolConfig"))
    if config.get("tools"):
        own["tools"] = _blocks(config["tools"])
    if config.get("toolChoice"):
        own["tool_choice"] = _choice(config["toolChoice"])
    if body.get("outputConfig"):
        own["output_config"] = {"format": body["outputConfig"], **_mapping(own.get("output_config"))}
    return own


def _caps(body: Mapping[str, Any]) -> list[int]:
    """The output caps of a request, which may stand in two places."""
    more = _mapping(body.get("additionalModelRequestFields")).get("max_tokens")
    own = _mapping(body.get("inferenceConfig")).get("maxTokens")
    return [cap for cap in (more, own) if type(cap) is int]


def _choice(choice: Any) -> Any:
    kind, detail = next(iter(_mapping(choice).items()), ("auto", {}))
    return {"type": kind, **_mapping(detail)}


def _blocks(content: Any) -> list[Any]:
    made: list[Any] = []
    for block in _list(content):
        if isinstance(block, Mapping) and _POINT in block:
            if made and isinstance(made[-1], Mapping):
                ttl = _mapping(block[_POINT]).get("ttl") or "5m"
                made[-1] = {**made[-1], "cache_control": {"type": "ephemeral", "ttl": ttl}}
            continue
        made.append(_block(block))
    return made


def _block(block: Any) -> Any:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    kind, value = next(iter(_mapping(block).items()), ("", None))
    match kind:
        case "text":
            return {"type": "text", "text": str(value)}
        case "toolSpec":
            spec = _mapping(value)
            schema = _mapping(spec.get("inputSchema")).get("json")
            return {**{name: held for name, held in spec.items() if name != "inputSchema"}, "input_schema": schema}
        case "toolUse":
            use = _mapping(value)
            return {"type": "tool_use", "id": use.get("toolUseId"), "name": use.get("name"), "input": use.get("input")}
        case "toolResult":
            parts = [_result(part) for part in _list(_mapping(value).get("content"))]
            return {"type": "tool_result", "tool_use_id": _mapping(value).get("toolUseId"), "content": parts}
        case "image" | "document":
            return _medium(kind, _mapping(value))
        case "reasoningContent":
            thought = _mapping(_mapping(value).get("reasoningText"))
            signature = thought.get("signature") or _mapping(value).get("redactedContent") or ""
            hidden = signature if isinstance(signature, str) else "x" * len(signature)
            return {"type": "thinking", "thinking": thought.get("text") or "", "signature": hidden}
        case _:
            return {"type": kind or "other", "value": value}


def _result(part: Any) -> Any:
    kind, value = next(iter(_mapping(part).items()), ("", None))
    return {"type": "text", "text": _encode(value)} if kind == "json" else _block(part)


def _medium(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    source = _mapping(value.get("source"))
    held: dict[str, Any] = {"type": kind, "title": value.get("name") if kind == "document" else None}
    data = source.get("bytes")
    if isinstance(data, bytes | bytearray):
        held["source"] = {"type": "base64", "data": base64.b64encode(data).decode()}
    elif isinstance(data, str):
        held["source"] = {"type": "base64", "data": data}
    elif isinstance(source.get("text"), str):
        held["source"] = {"type": "text", "data": source["text"]}
    elif source.get("content"):
        held["source"] = {"type": "content", "content": _blocks(source["content"])}
    else:  # in a bucket of the caller's: its size is not in the request
        held["source"] = {"type": "file"}
    if value.get("context"):
        held["context"] = value["context"]
    if _mapping(value.get("citations")).get("enabled"):
        held["citations"] = {"enabled": True}
    return held


def write_converse(body: Mapping[str, Any], attempt: Attempt, model_id: str) -> dict[str, Any]:
    """A copy of a request of Converse with an attempt's model, output cap, changes and cache points.

    Args:
        body: Keyword arguments of ``converse``; they are not changed.
        attempt: For a Claude model at Bedrock.
        model_id: The id or ARN to call it by.
    """
    out = {**body, "modelId": model_id}
    changes = dict(attempt.changes)
    caps = _caps(body)
    if attempt.max_tokens is not None and not (len(caps) > 1 and attempt.max_tokens == max(caps)):
        changes["max_tokens"] = attempt.max_tokens  # two caps of the caller's stay: Bedrock says what is wrong
    if changes:
        _write_fields(out, changes)
    if attempt.cache_plan is not None and attempt.cache_plan.marks:
        before = to_messages(body)
        _write_points(out, before, anthropic.PROVIDER.write_request(before, attempt, "messages"))
    return out


def _write_fields(out: dict[str, Any], changes: Mapping[str, Any]) -> None:
    config, more = dict(out.get("inferenceConfig") or {}), dict(out.get("additionalModelRequestFields") or {})
    for name, value in changes.items():
        holder, key = (config, _WRITTEN[name]) if name in _WRITTEN else (more, name)
        more.pop(name, None)
        if value is None:
            holder.pop(key, None)
        else:
            holder[key] = value
    for name, held in (("inferenceConfig", config), ("additionalModelRequestFields", more)):
        if held:
            out[name] = held
        else:
            out.pop(name, None)


def _write_points(out: dict[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Insert a cache point behind each block that is marked in ``after`` and was not in ``before``."""
    if out.get("system"):
        out["system"] = _pointed(out["system"], before["system"], after["system"])
    messages = list(out.get("messages") or ())
    for at, (was, now) in enumerate(zip(before["messages"], after["messages"], strict=True)):
        if was is not now:
            messages[at] = {
                **messages[at],
                "content": _pointed(messages[at]["content"], was["content"], now["content"]),
            }
    out["messages"] = messages
    if "tools" in before:
        config = out["toolConfig"]
        out["toolConfig"] = {**config, "tools": _pointed(config["tools"], before["tools"], after["tools"])}


def _pointed(content: Sequence[Any], before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
    made: list[Any] = []
    at = -1
    for block in content:
        made.append(block)
        if isinstance(block, Mapping) and _POINT in block:
            continue
        at += 1
        mark = after[at].get("cache_control") if isinstance(after[at], Mapping) else None
        if mark and not before[at].get("cache_control"):
            ttl = mark.get("ttl")
            made.append({_POINT: {"type": "default", **({"ttl": ttl} if ttl and ttl != "5m" else {})}})
    return made


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
