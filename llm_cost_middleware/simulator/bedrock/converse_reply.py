"""Answers of Converse: JSON and events."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llm_cost_middleware.simulator.anthropic import reply as messages
from llm_cost_middleware.simulator.reading import Frame, Reply, pieces, share

from . import eventstream

_METRICS = {"latencyMs": 500}


def reply(out: Reply) -> dict[str, Any]:
    """Return the JSON body."""
    message = messages.message(out)
    body: dict[str, Any] = {
        "metrics": _METRICS,
        "output": {"message": {"role": "assistant", "content": [_block(block) for block in message["content"]]}},
        "stopReason": message["stop_reason"],
    }
    return body | ({"usage": usage(out)} if out.usage else {})


def usage(out: Reply) -> dict[str, Any]:
    """Return the counts: the input without what the cache had or took, and the writes by their lifetime."""
    tokens = out.tokens
    written = tokens.write + tokens.write_1h
    split = [
        {"ttl": ttl, "inputTokens": count} for ttl, count in (("1h", tokens.write_1h), ("5m", tokens.write)) if count
    ]
    return {
        "inputTokens": tokens.input,
        "outputTokens": tokens.output,
        "totalTokens": tokens.prompt + tokens.output,
        "cacheReadInputTokens": tokens.read,
        "cacheWriteInputTokens": written,
    } | ({"cacheDetails": split} if split else {})


def _block(block: Mapping[str, Any]) -> dict[str, Any]:
    match block["type"]:
        case "text":
            return {"text": block["text"]}
        case "thinking":
            text = {"text": block["thinking"], "signature": block["signature"]}
            return {"reasoningContent": {"reasoningText": text}}
        case _:
            return {"toolUse": {"toolUseId": block["id"], "name": block["name"], "input": block["input"]}}


def frames(out: Reply, size: int) -> Iterator[Frame]:
    """Yield the events of a stream; the usage stands in the last one, and nowhere else."""
    message = messages.message(out)
    total = out.tokens.output
    first = min(1, total)
    yield Frame(eventstream.event("messageStart", {"role": "assistant"}), first)
    content = message["content"]
    whole = sum(len(_spoken(block)) for block in content)
    done = 0
    for at, block in enumerate(content):
        if block["type"] == "tool_use":
            start = {"toolUse": {"toolUseId": block["id"], "name": block["name"]}}
            data = {"contentBlockIndex": at, "start": start}
            yield Frame(eventstream.event("contentBlockStart", data), max(first, share(total, done, whole)))
        for piece in pieces(_spoken(block), size):
            done += len(piece)
            data = {"contentBlockIndex": at, "delta": _delta(block["type"], piece)}
            yield Frame(eventstream.event("contentBlockDelta", data), max(first, share(total, done, whole)))
        if block["type"] == "thinking":
            delta = {"reasoningContent": {"signature": block["signature"]}}
            data = {"contentBlockIndex": at, "delta": delta}
            yield Frame(eventstream.event("contentBlockDelta", data), max(first, share(total, done, whole)))
        data = {"contentBlockIndex": at}
        yield Frame(eventstream.event("contentBlockStop", data), max(first, share(total, done, whole)))
    yield Frame(eventstream.event("messageStop", {"stopReason": message["stop_reason"]}), total)
    metadata: dict[str, Any] = {"metrics": _METRICS} | ({"usage": usage(out)} if out.usage else {})
    yield Frame(eventstream.event("metadata", metadata), total)


def _spoken(block: Mapping[str, Any]) -> str:
    if block["type"] == "tool_use":
        return json.dumps(block["input"], ensure_ascii=False)
    return str(block[block["type"]])


def _delta(kind: str, piece: str) -> dict[str, Any]:
    match kind:
        case "text":
            return {"text": piece}
        case "thinking":
            return {"reasoningContent": {"text": piece}}
        case _:
            return {"toolUse": {"input": piece}}
