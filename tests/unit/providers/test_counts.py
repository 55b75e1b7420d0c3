"""A count that cannot be read is unknown, wherever it stands: never zero, and never an exact price that is too low."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping

import pytest

from llm_cost_middleware.metering import price_response

CHAT_USAGE = {
    "prompt_tokens": 1_000,
    "completion_tokens": 50,
    "total_tokens": 1_050,
    "prompt_tokens_details": {"cached_tokens": 128, "audio_tokens": 0, "cache_write_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 0},
}
RESPONSE_USAGE = {
    "input_tokens": 1_000,
    "output_tokens": 50,
    "total_tokens": 1_050,
    "input_tokens_details": {"cached_tokens": 128, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 20},
}
CLAUDE_USAGE = {
    "input_tokens": 1_000,
    "output_tokens": 50,
    "cache_read_input_tokens": 128,
    "cache_creation_input_tokens": 300,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
    "output_tokens_details": {"thinking_tokens": 20},
    "server_tool_use": {"web_search_requests": 1},
}
ITERATION = {"type": "message", "input_tokens": 500, "output_tokens": 25, "cache_read_input_tokens": 64}
REQUIRED = {"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"}


def chat(usage):
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "hi"}}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-5.1", "choices": [choice], "usage": usage}


def chat_stream(usage):
    chunk = {"id": "c", "object": "chat.completion.chunk", "model": "gpt-5.1"}
    said = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    return _sse(chunk | said, chunk | {"choices": [], "usage": usage}, "[DONE]")


def response(usage):
    return {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "gpt-5.1",
        "output": [],
        "usage": usage,
    }


def response_stream(usage):
    created = {"type": "response.created", "response": response(None) | {"status": "in_progress"}}
    return _sse(created, {"type": "response.completed", "response": response(usage)})


def batch_line(usage):
    return {"custom_id": "1", "response": {"status_code": 200, "body": chat(usage)}, "error": None}


def message(usage):
    content = [{"type": "text", "text": "hi"}]
    return {
        "id": "msg_1", "type": "message", "model": "claude-sonnet-4-6", "content": content, "stop_reason": "end_turn",
        "usage": usage,
    }  # fmt: skip


def message_stream(usage):
    start = message({**usage, "output_tokens": 1}) | {"stop_reason": None}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    # what the last event leaves out was said by the first: it is taken out of both
    return _sse({"type": "message_start", "message": start | {"usage": usage}}, end, {"type": "message_stop"})


def iterations(usage):
    return message({**CLAUDE_USAGE, "iterations": [{**ITERATION, "type": "compaction"}, usage]})


def result_line(usage):
    return {"custom_id": "1", "result": {"type": "succeeded", "message": message(usage)}}


def _sse(*events):
    return "".join(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events)


SHAPES = {
    "chat": ("openai", chat, CHAT_USAGE),
    "chat stream": ("openai", chat_stream, CHAT_USAGE),
    "response": ("openai", response, RESPONSE_USAGE),
    "response stream": ("openai", response_stream, RESPONSE_USAGE),
    "batch line": ("openai", batch_line, CHAT_USAGE),
    "message": ("anthropic", message, CLAUDE_USAGE),
    "message stream": ("anthropic", message_stream, CLAUDE_USAGE),
    "iterations": ("anthropic", iterations, ITERATION),
    "result line": ("anthropic", result_line, CLAUDE_USAGE),
    "compatible chat": ("anthropic", message, {"prompt_tokens": 1_000, "completion_tokens": 50}),
}
NO_COUNTS = {
    "negative": -50, "fractional": 1.5, "absurd": 10**18, "endless": 10**5_000, "text": "1000", "words": "many",
    "list": [1_000], "mapping": {"n": 1_000}, "boolean": True, "infinite": float("inf"), "no number": float("nan"),
}  # fmt: skip


def _places(usage, path=()):
    for name, value in usage.items():
        if isinstance(value, Mapping):
            yield (*path, name), False
            yield from _places(value, (*path, name))
        elif name not in ("type", "total_tokens"):
            yield (*path, name), name in REQUIRED


def _with(usage, path, value, *, gone=False):
    changed = copy.deepcopy(usage)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    if gone:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


COUNTS = [
    pytest.param(shape, path, id=f"{shape}: {'.'.join(path)}") for shape, (*_, usage) in SHAPES.items()
    for path, _ in _places(usage)
]  # fmt: skip
NEEDED = [
    pytest.param(shape, path, id=f"{shape}: {'.'.join(path)}") for shape, (*_, usage) in SHAPES.items()
    for path, required in _places(usage) if required
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_exact_while_its_counts_can_be_read(shape):
    provider, make, usage = SHAPES[shape]
    assert price_response(provider, make(usage)).status == "exact"


@pytest.mark.parametrize(("shape", "path"), COUNTS)
def test_what_is_no_count_makes_the_price_unknown(shape, path):
    provider, make, usage = SHAPES[shape]
    for what, value in NO_COUNTS.items():
        if what == "mapping" and isinstance(_at(usage, path), Mapping):
            continue
        answer = make(_with(usage, path, value)) if what != "endless" else _endless(make, usage, path)
        priced = price_response(provider, answer)
        assert (priced.status, priced.cost_usd) == ("unknown", None), what
        assert priced.notes


@pytest.mark.parametrize(("shape", "path"), NEEDED)
@pytest.mark.parametrize("gone", [True, False], ids=["missing", "null"])
def test_a_needed_count_that_is_not_there_makes_the_price_unknown(shape, path, gone):
    provider, make, usage = SHAPES[shape]
    priced = price_response(provider, make(_with(usage, path, None, gone=gone)))
    assert (priced.status, priced.cost_usd) == ("unknown", None)
    assert "missing" in priced.notes[-1]


def _at(usage, path):
    for name in path:
        usage = usage[name]
    return usage


def _endless(make, usage, path):
    """Python refuses to write or to read so long a number as text: only an object can hold it."""
    try:
        return make(_with(usage, path, NO_COUNTS["endless"]))
    except ValueError:
        text = make(_with(usage, path, 123_456_789))
        return text.replace("123456789", "9" * 5_000)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_that_counts_no_input_is_unknown_because_no_request_has_none(shape):
    provider, make, usage = SHAPES[shape]
    zeros = {name: 0 for name, value in usage.items() if not isinstance(value, Mapping | str)}
    if shape == "iterations":
        make = lambda zero: message({**CLAUDE_USAGE, "iterations": [zero]})
    priced = price_response(provider, make(zeros))
    assert (priced.status, priced.cost_usd) == ("unknown", None)


def test_the_usage_of_an_embedding_has_no_output_and_says_so_by_its_total():
    body = {
        "object": "list",
        "model": "text-embedding-3-small",
        "data": [],
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }
    assert price_response("openai", body).status == "exact"
    body["usage"]["total_tokens"] = 30
    assert price_response("openai", body).status == "unknown"


@pytest.mark.parametrize(
    ("provider", "usage"), [("anthropic", CLAUDE_USAGE), ("openai", CHAT_USAGE), ("openai", RESPONSE_USAGE)]
)
def test_a_bare_usage_is_never_free(provider, usage):
    """Given the usage instead of the answer: without a model it has no price, with one it has."""
    for part in (
        {name: usage[name]} for name in REQUIRED & usage.keys() if (provider, name) != ("anthropic", "input_tokens")
    ):
        assert price_response(provider, part).status == "unknown"
    assert price_response(provider, usage).status == "unknown"
    model = "gpt-5.1" if provider == "openai" else "claude-sonnet-4-6"
    whole = chat(usage) if "prompt_tokens" in usage else response(usage) if provider == "openai" else message(usage)
    assert price_response(provider, usage | {"model": model}).cost_usd == price_response(provider, whole).cost_usd
    assert price_response("anthropic", {"input_tokens": 1_000}).cost_usd == 0, "a count of tokens is free"


def test_a_result_without_a_usage_makes_a_whole_batch_unknown():
    assert price_response("openai", [batch_line(CHAT_USAGE), batch_line(None)]).status == "unknown"
    assert price_response("anthropic", [result_line(CLAUDE_USAGE), result_line(None)]).status == "unknown"


def test_counts_that_contradict_each_other_are_an_estimate():
    cached = _with(CHAT_USAGE, ("prompt_tokens_details", "cached_tokens"), 5_000)
    split = _with(CLAUDE_USAGE, ("cache_creation", "ephemeral_1h_input_tokens"), 5_000)
    assert price_response("openai", chat(cached)).status == "estimated"
    assert price_response("anthropic", message(split)).status == "estimated"
