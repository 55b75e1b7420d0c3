"""Writes the answers of ``/v1/chat/completions``: JSON and server-sent events."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llm_cost_middleware.simulator.answers import Stop
from llm_cost_middleware.simulator.reading import Frame, Reply, pieces, share
from llm_cost_middleware.simulator.refusals import openai_error

STOPS: Mapping[Stop, str] = {
    "end": "stop",
    "length": "length",
    "tools": "tool_calls",
    "stop_sequence": "stop",
    "refusal": "content_filter",
}
TIER_NAMES = {"standard": "default", "batch": "default"}
DONE = b"data: [DONE]\n\n"


def completion(out: Reply) -> dict[str, Any]:
    """Return the JSON body."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": out.answer.text or (None if out.answer.tool_calls else ""),
        "refusal": None,
        "annotations": [],
    }
    choices = []
    for index in range(out.reading.request.n):
        calls = _calls(out)
        choices.append(
            {
                "index": index,
                "message": message | ({"tool_calls": calls} if calls else {}),
                "logprobs": None,
                "finish_reason": STOPS[out.answer.stop or "end"],
            }
        )
    body = _envelope(out, "chat.completion") | {"choices": choices}
    if out.usage:
        body["usage"] = usage(out)
    return body | {"service_tier": _tier(out), "system_fingerprint": None}


def _calls(out: Reply) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id or out.ids.new("call_", 24),
            "type": "function",
            "function": {"name": call.name, "arguments": call.json()},
        }
        for call in out.answer.tool_calls
    ]


def _tier(out: Reply) -> str:
    return TIER_NAMES.get(out.reading.tier, out.reading.tier)


def _envelope(out: Reply, kind: str) -> dict[str, Any]:
    return {"id": out.answer_id, "object": kind, "created": int(out.now), "model": out.reading.model.id}


def usage(out: Reply) -> dict[str, Any]:
    """Tokens as chat completions report them: cached ones are part of the prompt."""
    tokens = out.tokens
    details = {"cached_tokens": tokens.read, "audio_tokens": 0}
    if out.reading.model.cache == "breakpoints":
        details["cache_write_tokens"] = tokens.write
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.prompt + tokens.output,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def frames(out: Reply, chunk: int) -> Iterator[Frame]:
    """Yield the events of a stream: choices one after the other, then the usage where it was asked for."""
    wanted = bool(out.reading.extra["usage"])
    head = _envelope(out, "chat.completion.chunk") | {"service_tier": _tier(out), "system_fingerprint": None}
    total, reasoning = out.tokens.output, out.tokens.reasoning
    count = out.reading.request.n
    calls = [_calls(out) for _ in range(count)]
    whole = count * (len(out.answer.text) + sum(len(call["function"]["arguments"]) for call in calls[0]))
    done = 0

    def produced() -> int:
        return reasoning + share(total - reasoning, done, whole)

    def event(index: int, delta: Mapping[str, Any], finish: str | None = None) -> Frame:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        data = head | {"choices": [choice]} | ({"usage": None} if wanted else {})
        return Frame(_data(data), produced())

    for index in range(count):
        opening = None if calls[index] and not out.answer.text else ""
        yield event(index, {"role": "assistant", "content": opening, "refusal": None})
        for piece in pieces(out.answer.text, chunk):
            done += len(piece)
            yield event(index, {"content": piece})
        for number, call in enumerate(calls[index]):
            arguments = call["function"]["arguments"]
            opened = call | {"function": {"name": call["function"]["name"], "arguments": ""}}
            yield event(index, {"tool_calls": [{"index": number, **opened}]})
            for piece in pieces(arguments, chunk):
                done += len(piece)
                yield event(index, {"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
        yield event(index, {}, STOPS[out.answer.stop or "end"])
    if wanted and out.usage:
        yield Frame(_data(head | {"choices": [], "usage": usage(out)}), total)
    yield Frame(DONE, total)


def _data(body: Mapping[str, Any]) -> bytes:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode("utf-8", "surrogatepass")


def error_frame(kind: str, text: str | None) -> bytes:
    """Return an error inside a stream."""
    error = openai_error(500).body["error"]
    return _data({"error": error | {key: value for key, value in (("type", kind), ("message", text)) if value}})
