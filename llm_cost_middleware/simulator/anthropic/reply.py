"""Writes the answers of ``/v1/messages``: JSON and server-sent events."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llm_cost_middleware.simulator.answers import Stop
from llm_cost_middleware.simulator.bill import Tokens
from llm_cost_middleware.simulator.reading import Frame, Ids, Reply, pieces, share
from llm_cost_middleware.simulator.refusals import anthropic_error

_STOPS: Mapping[Stop, str] = {
    "end": "end_turn",
    "length": "max_tokens",
    "tools": "tool_use",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
}


def message(out: Reply) -> dict[str, Any]:
    """Return the JSON body."""
    body = _envelope(out)
    body |= {"content": _content(out), "stop_reason": _STOPS[out.answer.stop or "end"], "stop_details": None}
    if out.usage:
        body["usage"] = _usage(out)
    return body


def _envelope(out: Reply) -> dict[str, Any]:
    return {
        "model": out.reading.model.id,
        "id": out.answer_id,
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _content(out: Reply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    answer = out.answer
    if answer.thinking:
        blocks.append({"type": "thinking", "thinking": answer.thinking, "signature": _signature(out.ids)})
    if answer.text:
        blocks.append({"type": "text", "text": answer.text})
    blocks += [
        {
            "type": "tool_use",
            "id": call.id or out.ids.new("toolu_01"),
            "name": call.name,
            "input": dict(call.arguments),
            "caller": {"type": "direct"},
        }
        for call in answer.tool_calls
    ]
    return blocks


def _signature(ids: Ids) -> str:
    return ids.new("Eq", 40) + "=="


def _usage(out: Reply, output: int | None = None) -> dict[str, Any]:
    tokens: Tokens = out.tokens
    tier = "batch" if out.reading.tier == "batch" else "standard"
    usage: dict[str, Any] = {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.write + tokens.write_1h,
        "cache_read_input_tokens": tokens.read,
        "cache_creation": {"ephemeral_5m_input_tokens": tokens.write, "ephemeral_1h_input_tokens": tokens.write_1h},
        "output_tokens": tokens.output if output is None else output,
        "service_tier": tier,
        "inference_geo": out.reading.geo or ("global" if out.reading.model.geo else "not_available"),
    }
    if tokens.reasoning:
        usage["output_tokens_details"] = {"thinking_tokens": tokens.reasoning}
    if tokens.searches:
        usage["server_tool_use"] = {"web_search_requests": tokens.searches, "web_fetch_requests": 0}
    if out.reading.tier == "fast":
        usage["speed"] = "fast"
    return usage


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    body = json.dumps({"type": name, **data}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {body}\n\n".encode("utf-8", "surrogatepass")


def frames(out: Reply, chunk: int) -> Iterator[Frame]:
    """Yield the events of a stream, in the order in which the provider sends them."""
    total = out.tokens.output
    first = min(1, total)
    start = _envelope(out)
    if out.usage:
        start["usage"] = _usage(out, first)
    yield Frame(_event("message_start", {"message": start}), first)

    content = _content(out)
    texts = [_spoken(block) for block in content]
    whole = sum(map(len, texts))
    done = 0
    for at, (block, text) in enumerate(zip(content, texts, strict=True)):
        yield Frame(
            _event("content_block_start", {"index": at, "content_block": _empty(block)}),
            max(first, share(total, done, whole)),
        )
        if at == 0:
            yield Frame(_event("ping", {}), max(first, share(total, done, whole)))
        for piece in pieces(text, chunk):
            done += len(piece)
            delta = _delta(block["type"], piece)
            yield Frame(
                _event("content_block_delta", {"index": at, "delta": delta}), max(first, share(total, done, whole))
            )
        if block["type"] == "thinking":
            delta = {"type": "signature_delta", "signature": block["signature"]}
            yield Frame(
                _event("content_block_delta", {"index": at, "delta": delta}), max(first, share(total, done, whole))
            )
        yield Frame(_event("content_block_stop", {"index": at}), max(first, share(total, done, whole)))

    delta = {"stop_reason": _STOPS[out.answer.stop or "end"], "stop_sequence": None}
    usage = _usage(out)
    known = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    final = {key: usage[key] for key in (*known, "server_tool_use", "output_tokens_details") if key in usage}
    if out.bare_delta:
        final = {"output_tokens": total}
    last: dict[str, Any] = {"delta": delta}
    if out.usage:
        last["usage"] = final
    yield Frame(_event("message_delta", last), total)
    yield Frame(_event("message_stop", {}), total)


def _spoken(block: Mapping[str, Any]) -> str:
    if block["type"] == "tool_use":
        return json.dumps(block["input"], ensure_ascii=False)
    return str(block[block["type"]])


def _empty(block: Mapping[str, Any]) -> dict[str, Any]:
    match block["type"]:
        case "text":
            return {"type": "text", "text": ""}
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case _:
            return {**block, "input": {}}


def _delta(kind: str, piece: str) -> dict[str, Any]:
    match kind:
        case "text":
            return {"type": "text_delta", "text": piece}
        case "thinking":
            return {"type": "thinking_delta", "thinking": piece}
        case _:
            return {"type": "input_json_delta", "partial_json": piece}


def error_frame(kind: str, text: str | None) -> bytes:
    """Return an error inside a stream: by default the provider is overloaded."""
    error = anthropic_error(529, text, kind=kind or None).body["error"]
    return _event("error", {"error": error})
