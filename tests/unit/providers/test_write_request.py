from __future__ import annotations

import copy

import pytest

from llm_cost_middleware.providers import get_provider, strip_foreign_cache_fields
from llm_cost_middleware.request import (
    Attempt,
    BlockRef,
    CacheBreakpoint,
    CacheDirectives,
    ModelRef,
)

CC = {"cache_control": {"type": "ephemeral"}}
CC_1H = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
BP = {"prompt_cache_breakpoint": {"mode": "explicit"}}


def plan(*marks, **fields):
    return CacheDirectives(tuple(CacheBreakpoint(BlockRef(*ref), ttl) for *ref, ttl in marks), **fields)


def write(body, provider, endpoint, made=None, *, cap=None):
    """The body of an attempt at model ``m``, without the model; the given one must stay as it was."""
    before, target = copy.deepcopy(body), ModelRef(provider, "m")
    attempt = Attempt("call", 1, target, cap, made, None)
    out = get_provider(provider).write_request(body, attempt, endpoint)
    assert body == before
    assert out.pop("model") == "m"
    return out


MESSAGES, CHAT, RESPONSES = ("anthropic", "messages"), ("openai", "chat.completions"), ("openai", "responses")
CHAT_TO_CLAUDE = ("anthropic", "chat.completions")


def test_anthropic_marks_tools_system_and_messages():
    body = {
        "tools": [{"name": "a"}, {"name": "b"}],
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "r"}]},
        ],
    }
    made = plan(("tools", 0, 1, "1h"), ("system", 0, 0, "1h"), ("messages", 0, 0, "5m"), ("messages", 2, 0, "5m"))
    out = write(body, *MESSAGES, made)
    assert out["tools"] == [{"name": "a"}, {"name": "b", **CC_1H}]
    assert out["system"] == [{"type": "text", "text": "Be brief.", **CC_1H}]
    assert out["messages"][0] == {"role": "user", "content": [{"type": "text", "text": "hello", **CC}]}
    assert out["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "x", "content": "r", **CC}]
    assert out["messages"][1] is body["messages"][1]
    assert out["tools"][0] is body["tools"][0]


def test_a_place_that_is_not_there_or_cannot_bear_a_mark_is_left_out():
    body = {
        "messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": ""}]}]
    }
    made = plan(
        ("tools", 0, 3, "5m"), ("system", 0, 0, "5m"), ("messages", 0, 0, "5m"), ("messages", 0, 1, "5m"),
        ("messages", 0, 7, "5m"), ("messages", 9, 0, "5m"),
    )  # fmt: skip
    out = write(body, *MESSAGES, made)
    assert "cache_control" not in str(out)


def test_openai_chat_marks_content_parts_and_sets_the_options():
    body = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]},
            {"role": "tool", "tool_call_id": "x", "content": "r"},
        ]
    }
    made = plan(
        ("tools", 0, 0, "30m"), ("system", 0, 0, "30m"), ("messages", 2, 0, "30m"), cache_key="k", explicit=True
    )
    out = write(body, *CHAT, made)
    assert out["messages"][0]["content"] == [{"type": "text", "text": "Be brief.", **BP}]
    assert out["messages"][1] is body["messages"][1]
    assert out["messages"][3]["content"] == [{"type": "text", "text": "r", **BP}]
    assert out["prompt_cache_key"] == "k"
    assert out["prompt_cache_options"] == {"mode": "explicit"}
    assert "cache_control" not in str(out)


def test_openai_shaped_messages_for_claude_carry_cache_control():
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "hello"}]},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "x"}]},
            {"role": "tool", "tool_call_id": "x", "content": "r"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    made = plan(
        ("tools", 0, 0, "5m"), ("system", 0, 0, "5m"), ("messages", 0, 0, "5m"), ("messages", 2, 0, "5m"), cache_key="k"
    )
    out = write(body, *CHAT_TO_CLAUDE, made)
    assert out["messages"][0]["content"] == [{"type": "text", "text": "Be brief.", **CC}]
    assert out["messages"][1]["content"] == [{"type": "text", "text": "hello", **CC}]
    assert out["messages"][3] == {**body["messages"][3], **CC}
    assert out["tools"] == [{**body["tools"][0], **CC}]
    assert "prompt_cache" not in str(out)


def test_responses_marks_items_and_counts_instructions_as_system():
    body = {
        "instructions": "Be brief.",
        "input": [
            {"role": "system", "content": "Really."},
            {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
            {"type": "function_call", "call_id": "x", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "x", "output": "r"},
        ],
    }
    made = plan(("system", 0, 0, "30m"), ("system", 1, 0, "30m"), ("messages", 0, 0, "30m"), ("messages", 2, 0, "30m"))
    out = write(body, *RESPONSES, made)
    assert out["instructions"] == "Be brief."
    assert out["input"][0]["content"] == [{"type": "input_text", "text": "Really.", **BP}]
    assert out["input"][1]["content"] == [{"type": "input_text", "text": "hello", **BP}]
    assert out["input"][3]["output"] == [{"type": "input_text", "text": "r", **BP}]


def test_a_plain_text_input_is_marked_as_a_message_and_left_alone_without_a_mark():
    marked = write({"input": "hello"}, *RESPONSES, plan(("messages", 0, 0, "30m")))
    assert marked["input"] == [{"role": "user", "content": [{"type": "input_text", "text": "hello", **BP}]}]
    assert write({"input": "hello"}, *RESPONSES, plan(retention="24h")) == {
        "input": "hello",
        "prompt_cache_retention": "24h",
    }


def test_the_callers_options_win():
    body = {"messages": [], "prompt_cache_key": "mine", "prompt_cache_options": {"mode": "implicit"}}
    assert write(body, *CHAT, plan(cache_key="k", explicit=True)) == body


ARGUMENTS = {"cache_control": "a value of the caller's", "prompt_cache_breakpoint": 1}


@pytest.mark.parametrize(("provider", "foreign"), [("openai", CC), ("anthropic", BP)])
def test_foreign_marks_come_off_and_the_callers_data_stay(provider, foreign):
    body = {
        "system": [{"type": "text", "text": "s", **foreign}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q", **foreign}], **foreign},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "input": ARGUMENTS}],
                "tool_calls": [{"id": "x", **foreign}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "content": [{"type": "text", "text": "r", **foreign}]}],
            },
        ],
        "tools": [{"name": "t", "input_schema": {"properties": ARGUMENTS}, **foreign}],
        **({"cache_control": {}} if provider == "openai" else {"prompt_cache_key": "k", "prompt_cache_options": {}}),
    }
    before = copy.deepcopy(body)
    out = strip_foreign_cache_fields(body, provider)
    assert body == before
    key = next(iter(foreign))
    assert str(out).count(f"'{key}'") == 2  # the caller's arguments and schema
    assert set(out) == {"system", "messages", "tools"}
    assert out["messages"][1]["content"] is body["messages"][1]["content"]


def test_a_body_without_foreign_marks_is_shared():
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}], "tools": [{"name": "t"}]}
    out = strip_foreign_cache_fields(body, "openai")
    assert out == body
    assert out["messages"] is body["messages"]


@pytest.mark.parametrize(
    ("provider", "endpoint", "body", "cap"),
    [
        (*MESSAGES, {}, "max_tokens"),
        (*MESSAGES, {"max_tokens": 9}, "max_tokens"),
        (*CHAT, {}, "max_completion_tokens"),
        (*CHAT, {"max_tokens": 9}, "max_tokens"),
        (*CHAT, {"max_completion_tokens": 9}, "max_completion_tokens"),
        (*RESPONSES, {}, "max_output_tokens"),
        (*CHAT_TO_CLAUDE, {}, "max_tokens"),
        (*CHAT_TO_CLAUDE, {"max_completion_tokens": 9}, "max_completion_tokens"),
        ("anthropic", "responses", {}, "max_output_tokens"),
        ("openai", "messages", {}, "max_tokens"),
    ],
)
def test_the_cap_is_written_where_the_endpoint_and_the_caller_have_it(provider, endpoint, body, cap):
    assert write(body, provider, endpoint, cap=7) == {cap: 7}


@pytest.mark.parametrize(("provider", "endpoint"), [MESSAGES, CHAT, RESPONSES, CHAT_TO_CLAUDE])
def test_usage_is_asked_for_in_streamed_chats_alone(provider, endpoint):
    body = {"stream": True, "stream_options": {"include_obfuscation": False}}
    options = {**body["stream_options"], **({"include_usage": True} if endpoint == "chat.completions" else {})}
    assert write(body, provider, endpoint) == {"stream": True, "stream_options": options}
    assert write({"stream": False}, provider, endpoint) == {"stream": False}


@pytest.mark.parametrize(("provider", "endpoint"), [("anthropic", "responses"), ("openai", "messages")])
def test_a_shape_that_carries_no_marks_of_the_provider_gets_none(provider, endpoint):
    body = {"messages": [{"role": "user", "content": "hello"}], "input": "hello"}
    assert write(body, provider, endpoint, plan(("messages", 0, 0, "5m"), cache_key="k")) == body
