"""What the providers refuse, so that no leak of ours goes unseen."""

import anthropic
import httpx
import openai
import pytest

HAIKU, MINI = "claude-haiku-4-5", "gpt-5-mini"
MARK = {"cache_control": {"type": "ephemeral"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def text(body="x", **more):
    return {"type": "text", "text": body, **more}


def said(*blocks):
    return [{"role": "user", "content": list(blocks)}]


CALL = {"type": "tool_use", "id": "t1", "name": "t", "input": {}}
CLAUDE_REFUSES = {
    "max_tokens: Field required": {"max_tokens": None},
    "messages: at least one message is required": {"messages": []},
    "max_tokens: 64001 > 64000": {"max_tokens": 64_001},
    "A maximum of 4 blocks with cache_control may be provided. Found 5.": {
        "messages": said(*(text(str(at), **MARK) for at in range(5)))
    },
    "Found 5": {
        "messages": said(*(text(str(at), **MARK) for at in range(4)), text("end")),
        "cache_control": MARK["cache_control"],
    },
    "a ttl='1h' cache_control block must not come after": {"messages": said(text("a", **MARK), text("b", **HOUR))},
    "cache_control cannot be set for empty text blocks": {"messages": said(text("", **MARK))},
    "system.0: cache_control cannot be set for empty text blocks": {"system": [text("", **MARK)]},
    "text content blocks must be non-empty": {"messages": said(text(""))},
    "thinking.cache_control: Extra inputs are not permitted": {
        "messages": [
            *said(text()),
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s", **MARK}, text()]},
            *said(text()),
        ]
    },
    "prompt_cache_key: Extra inputs are not permitted": {"prompt_cache_key": "k"},
    "text.prompt_cache_breakpoint: Extra inputs": {
        "messages": said(text(prompt_cache_breakpoint={"mode": "explicit"}))
    },
    "ephemeral.ttl: Input should be '5m' or '1h'": {"system": [text(cache_control={"type": "ephemeral", "ttl": "2h"})]},
    "stream_options: Extra inputs": {"stream_options": {"include_usage": True}},
    'Unexpected role "system"': {"messages": [{"role": "system", "content": "x"}]},
    "`tool_use` ids were found without `tool_result` blocks immediately after: t1": {
        "messages": [*said(text()), {"role": "assistant", "content": [CALL]}, *said(text())]
    },
    "unexpected `tool_use_id` found": {"messages": said({"type": "tool_result", "tool_use_id": "no", "content": "x"})},
    "final assistant content cannot end with trailing whitespace": {
        "messages": [*said(text()), {"role": "assistant", "content": "so "}]
    },
    "Tool 'u' not found in provided tools": {
        "tools": [{"name": "t", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": "u"},
    },
    "input_schema: Field required": {"tools": [{"name": "t"}]},
    "tools.0.custom.function: Extra inputs": {"tools": [{"name": "t", "input_schema": {}, "function": {}}]},
    "`max_tokens` must be greater than `thinking.budget_tokens`": {
        "thinking": {"type": "enabled", "budget_tokens": 1024}
    },
    "temperature: range: 0..1": {"temperature": 1.5},
    "prompt is too long: 250007 tokens > 200000 maximum": {"messages": said(text("x" * 1_000_000))},
    "does not match the expected shape": {"messages": ["x"]},
    "inference_geo: not supported": {"inference_geo": "us"},
}


@pytest.mark.parametrize("complaint", CLAUDE_REFUSES)
def test_claude_refuses(sim, claude, complaint):
    body = {"model": HAIKU, "max_tokens": 100, "messages": said(text()), **CLAUDE_REFUSES[complaint]}
    body = {key: value for key, value in body.items() if value is not None}
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.post("/v1/messages", cast_to=object, body=body)
    assert complaint in caught.value.body["error"]["message"]
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert sim.bill.lines == ()


def test_four_marks_the_longer_lifetime_first_are_accepted(claude):
    tool = {"name": "t", "input_schema": {"type": "object"}, **HOUR}
    claude.messages.create(
        model=HAIKU,
        max_tokens=9,
        tools=[tool],
        system=[text("s", **HOUR)],
        messages=said(text("a", **MARK), text("b", **MARK)),
    )


def test_unknown_models_are_not_found(claude, gpt, user):
    with pytest.raises(anthropic.NotFoundError, match="model: claude-haiku-9"):
        claude.messages.create(model="claude-haiku-9", max_tokens=9, messages=user("x"))
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model=MINI, max_tokens=9, messages=user("x"))
    with pytest.raises(openai.NotFoundError, match="`gpt-9` does not exist") as caught:
        gpt.chat.completions.create(model="gpt-9", messages=user("x"))
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="'gpt-9' does not exist"):
        gpt.responses.create(model="gpt-9", input="x")


def test_a_key_is_required(sim):
    for path, headers in (
        ("/v1/messages", {"anthropic-version": "2023-06-01"}),
        ("/v1/chat/completions", {}),
        ("/v1/responses", {}),
    ):
        reply = httpx.post(sim.url + path, json={}, headers=headers)
        assert reply.status_code == 401
    assert httpx.post(sim.url + "/v1/messages", json={}, headers={"x-api-key": "k"}).status_code == 400


CHAT_REFUSES = {
    "Missing required parameter: 'messages'.": {"messages": None},
    "'max_tokens' is not supported with this model. Use 'max_completion_tokens'": {"max_tokens": 5},
    "'temperature' does not support 0.5": {"temperature": 0.5},
    "'stop' is not supported": {"stop": "x"},
    "Unrecognized request argument supplied: cache_control": {"cache_control": {"type": "ephemeral"}},
    "Unknown parameter: 'messages[0].content[0].cache_control'.": {"messages": said(text(**MARK))},
    "Unknown parameter: 'tools[0].cache_control'.": {
        "tools": [{"type": "function", "function": {"name": "t"}, **MARK}]
    },
    "Supported values are: 'text'": {"messages": said({"type": "image", "source": {}})},
    "'stream_options' parameter is only allowed when 'stream' is enabled": {"stream_options": {"include_usage": True}},
    "messages with role 'tool' must be a response": {
        "messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]
    },
    "must be followed by tool messages": {
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "t", "arguments": "{}"}}],
            },
            {"role": "user", "content": "x"},
        ]
    },
    "max_completion_tokens is too large": {"max_completion_tokens": 200_000},
    "maximum context length is 272000 tokens": {"messages": said(text("x" * 1_100_000))},
    "'prompt_cache_options' is not supported": {"prompt_cache_options": {"mode": "explicit"}},
}


@pytest.mark.parametrize("complaint", CHAT_REFUSES)
def test_chat_completions_refuse(sim, gpt, complaint):
    body = {"model": MINI, "messages": said(text()), **CHAT_REFUSES[complaint]}
    body = {key: value for key, value in body.items() if value is not None}
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.post("/chat/completions", cast_to=object, body=body)
    assert complaint in caught.value.body["message"]
    assert sim.bill.lines == ()


RESPONSES_REFUSE = {
    "Missing required parameter: 'input'.": {"input": None},
    "Expected a value >= 16, but got 5": {"max_output_tokens": 5},
    "moved to 'text.format'": {"response_format": {}},
    "Unknown parameter: 'messages'.": {"messages": []},
    "Unknown parameter: 'input[0].content[0].cache_control'.": {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "x", **MARK}]}]
    },
    "Invalid value: 'text'": {"input": said(text())},
    "No tool call found for function call output with call_id c": {
        "input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]
    },
    "No tool output found for function call c": {
        "input": [{"type": "function_call", "call_id": "c", "name": "t", "arguments": "{}"}]
    },
}


@pytest.mark.parametrize("complaint", RESPONSES_REFUSE)
def test_responses_refuse(gpt, complaint):
    body = {"model": MINI, "input": "x", **RESPONSES_REFUSE[complaint]}
    body = {key: value for key, value in body.items() if value is not None}
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.post("/responses", cast_to=object, body=body)
    assert complaint in caught.value.body["message"]


def test_max_tokens_is_taken_by_models_that_do_not_reason(gpt, user):
    reply = gpt.chat.completions.create(
        model="gpt-4o", max_tokens=2, temperature=0.2, stop=["x"], messages=user("hello")
    )
    assert reply.choices[0].finish_reason == "length"
