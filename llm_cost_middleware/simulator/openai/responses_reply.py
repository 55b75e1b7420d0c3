"""Writes the answers of ``/v1/responses``: the response object, and the events that build it up."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llm_cost_middleware.simulator.reading import Frame, Reply, pieces, share

_SUMMARY = "**Thinking it over**\n\nThe request is simple; I will answer it."
_TIERS = {"standard": "default", "batch": "default"}


def response(out: Reply) -> dict[str, Any]:
    """Return the finished response object."""
    body = out.reading.request.body
    if out.failure is not None:
        return _envelope(out) | {"status": "failed", "error": dict(out.failure)}
    cut = out.answer.stop == "length"
    output = _output(out)
    if cut and output:
        output[-1]["status"] = "incomplete"
    return _envelope(out) | {
        "status": "incomplete" if cut else "completed",
        "completed_at": None if cut else int(out.now),
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": output,
        "service_tier": _TIERS.get(out.reading.tier, out.reading.tier),
        "usage": usage(out) if out.usage else None,
        "background": bool(body.get("background")),
    }


def _envelope(out: Reply) -> dict[str, Any]:
    body = out.reading.request.body
    reasoning = body.get("reasoning") or {}
    text = body.get("text") or {}
    return {
        "id": out.answer_id,
        "object": "response",
        "created_at": int(out.now),
        "status": "in_progress",
        "background": bool(body.get("background")),
        "billing": {"payer": "developer"},
        "completed_at": None,
        "error": None,
        "frequency_penalty": 0.0,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "model": out.reading.model.id,
        "output": [],
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "presence_penalty": 0.0,
        "previous_response_id": body.get("previous_response_id"),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "prompt_cache_retention": body.get("prompt_cache_retention"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": body.get("service_tier") or "auto",
        "store": body.get("store") is not False,
        "temperature": body.get("temperature") if body.get("temperature") is not None else 1.0,
        "text": {"format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity") or "medium"},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_logprobs": 0,
        "top_p": body.get("top_p") if body.get("top_p") is not None else 1.0,
        "truncation": body.get("truncation") or "disabled",
        "usage": None,
        "user": body.get("user"),
        "metadata": body.get("metadata") or {},
    }


def usage(out: Reply) -> dict[str, Any]:
    """Tokens as the Responses API reports them."""
    tokens = out.tokens
    details = {"cached_tokens": tokens.read}
    if out.reading.model.cache == "breakpoints":
        details["cache_write_tokens"] = tokens.write
    return {
        "input_tokens": tokens.prompt,
        "input_tokens_details": details,
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.prompt + tokens.output,
    }


def _output(out: Reply) -> list[dict[str, Any]]:
    body, answer, ids = out.reading.request.body, out.answer, out.ids
    items: list[dict[str, Any]] = []
    wants_summary = bool((body.get("reasoning") or {}).get("summary"))
    if out.reading.model.reasons and (out.tokens.reasoning or answer.thinking):
        summary = answer.thinking or (_SUMMARY if wants_summary else "")
        item: dict[str, Any] = {"id": ids.new("rs_", 50), "type": "reasoning"}
        if "reasoning.encrypted_content" in (body.get("include") or ()):
            item["encrypted_content"] = ids.new("gAAAAAB", 64)
        items.append(item | {"summary": [{"type": "summary_text", "text": summary}] if summary else []})
    if answer.text:
        part: dict[str, Any] = {"type": "output_text", "annotations": [], "logprobs": [], "text": answer.text}
        if answer.stop == "refusal":  # a completed response with a part of its own (guide to structured outputs)
            part = {"type": "refusal", "refusal": answer.text}
        items.append(
            {
                "id": ids.new("msg_", 50),
                "type": "message",
                "status": "completed",
                "content": [part],
                "role": "assistant",
            }
        )
    items += [
        {
            "id": ids.new("fc_", 50),
            "type": "function_call",
            "status": "completed",
            "arguments": call.json(),
            "call_id": call.id or ids.new("call_", 24),
            "name": call.name,
        }
        for call in answer.tool_calls
    ]
    return items


def frames_of(finished: Mapping[str, Any], chunk: int) -> Iterator[Frame]:
    """Return the events that build up a finished response."""
    tokens = (finished.get("usage") or {}).get("output_tokens", 0)
    reasoning = ((finished.get("usage") or {}).get("output_tokens_details") or {}).get("reasoning_tokens", 0)
    return _frames(finished, chunk, tokens, reasoning)


def frames(out: Reply, finished: Mapping[str, Any], chunk: int) -> Iterator[Frame]:
    """Return the same while it is being produced: each event knows the output tokens up to it."""
    return _frames(finished, chunk, out.tokens.output, out.tokens.reasoning)


def _frames(finished: Mapping[str, Any], chunk: int, total: int, reasoning: int) -> Iterator[Frame]:
    whole = sum(len(_spoken(item)) for item in finished["output"])
    begun = {**finished, "status": "in_progress", "completed_at": None, "output": [], "usage": None}
    begun["incomplete_details"] = None
    done = 0
    number = -1
    thought = 0

    def event(name: str, **data: Any) -> Frame:
        nonlocal number
        number += 1
        text = json.dumps({"type": name, "sequence_number": number, **data}, ensure_ascii=False, separators=(",", ":"))
        produced = total if number and name in _LAST else thought + share(total - reasoning, done, whole) * (whole > 0)
        return Frame(f"event: {name}\ndata: {text}\n\n".encode("utf-8", "surrogatepass"), produced)

    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for at, item in enumerate(finished["output"]):
        kind = item["type"]
        yield event("response.output_item.added", output_index=at, item=_empty(item))
        where = {"item_id": item["id"], "output_index": at}
        if kind == "reasoning":
            thought = reasoning
            for index, part in enumerate(item["summary"]):
                inside = where | {"summary_index": index}
                blank = {"type": "summary_text", "text": ""}
                yield event("response.reasoning_summary_part.added", **inside, part=blank)
                for piece in pieces(part["text"], chunk):
                    yield event("response.reasoning_summary_text.delta", **inside, delta=piece)
                yield event("response.reasoning_summary_text.done", **inside, text=part["text"])
                yield event("response.reasoning_summary_part.done", **inside, part=part)
        elif kind == "message":
            part = item["content"][0]
            inside = where | {"content_index": 0}
            refused = part["type"] == "refusal"
            field, said = ("refusal", "refusal") if refused else ("text", "output_text")
            beside: dict[str, Any] = {} if refused else {"logprobs": []}
            yield event("response.content_part.added", **inside, part=part | {field: ""})
            for piece in pieces(part[field], chunk):
                done += len(piece)
                yield event(f"response.{said}.delta", **inside, delta=piece, **beside)
            yield event(f"response.{said}.done", **inside, **{field: part[field]}, **beside)
            yield event("response.content_part.done", **inside, part=part)
        else:
            for piece in pieces(item["arguments"], chunk):
                done += len(piece)
                yield event("response.function_call_arguments.delta", **where, delta=piece)
            yield event("response.function_call_arguments.done", **where, arguments=item["arguments"])
        yield event("response.output_item.done", output_index=at, item=item)
    yield event(f"response.{finished['status']}", response=finished)


_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})


def _spoken(item: Mapping[str, Any]) -> str:
    if item["type"] == "message":
        part = item["content"][0]
        return str(part.get("text") or part.get("refusal") or "")
    return str(item.get("arguments", ""))


def _empty(item: Mapping[str, Any]) -> dict[str, Any]:
    match item["type"]:
        case "message":
            return {**item, "status": "in_progress", "content": []}
        case "function_call":
            return {**item, "status": "in_progress", "arguments": ""}
        case _:
            return {**item, "summary": []}


def error_frame(kind: str, text: str | None) -> bytes:
    """Return an error inside a stream."""
    body = {
        "type": "error",
        "sequence_number": 0,
        "code": kind or "server_error",
        "message": text or "The server had an error while processing your request. Sorry about that!",
        "param": None,
    }
    return f"event: error\ndata: {json.dumps(body, separators=(',', ':'))}\n\n".encode()
