"""How requests of both providers are read into the neutral view."""

from __future__ import annotations

import copy
import json

import pytest

from llm_cost_middleware.providers.anthropic.request import read_request as read_anthropic
from llm_cost_middleware.providers.openai.request import read_request as read_openai
from llm_cost_middleware.request import Message, Part, ServerTool, Tool

PNG = "iVBORw0KGgo" * 40


def test_an_anthropic_request_is_seen_whole_and_left_as_it_was():
    body = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 500,
        "stream": True,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {"q": "ä"}}]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t",
                        "content": [
                            {"type": "text", "text": "seen"},
                            {"type": "image", "source": {"type": "base64", "data": PNG}},
                        ],
                        "cache_control": {"type": "ephemeral"},
                    }
                ],
            },
        ],
        "tools": [
            {
                "name": "look",
                "description": "looks",
                "input_schema": {"type": "object"},
                "cache_control": {"type": "ephemeral"},
            },
            {"type": "bash_20250124", "name": "bash"},
            {"type": "web_search_20260209", "name": "web_search", "max_uses": 3},
        ],
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"},
        "service_tier": "standard_only",
    }
    before = copy.deepcopy(body)
    request = read_anthropic(body, "messages")
    assert body == before
    assert request.messages[0] == Message("system", (Part("text", "be brief", "1h"),))
    assert request.messages[2].parts[0] == Part("tool_use", 'look {"q":"ä"}')
    result = request.messages[3].parts[0]
    assert (result.kind, result.text, result.cache_ttl, result.inner_marks) == ("tool_result", "seen", "5m", ())
    assert result.nested[0].media["bytes"] == len(PNG) * 3 // 4
    assert result.nested[0].media["digest"]
    assert request.tools[0] == Tool(
        "look", '{"name":"look","description":"looks","input_schema":{"type":"object"}}', "5m", 0
    )
    assert request.server_tools == (ServerTool("web_search_20260209", 3, place=2),)
    assert request.params["provider_tools"] == 1
    assert request.params["service_tier"] == "standard_only"
    assert json.loads(request.output_schema)["type"] == "json_schema"
    assert (request.max_tokens, request.stream, request.has_server_side_context) == (500, True, False)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "container_upload", "file_id": "f"},
        {"type": "document", "source": {"type": "file", "file_id": "f"}},
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
    ],
)
def test_content_that_anthropic_stores_is_stored_context(block):
    assert read_anthropic({"messages": [{"role": "user", "content": [block]}]}).has_server_side_context


def test_a_thread_that_is_continued_is_stored_context():
    asked = {"messages": [{"role": "user", "content": "hi"}]}
    assert not read_anthropic(asked | {"thread": {"type": "create"}}).has_server_side_context
    continued = {"thread": {"type": "continue", "previous_message_id": "msg_1"}}
    assert read_anthropic(asked | continued).has_server_side_context


def test_documents_of_text_are_text_and_cited_ones_say_so():
    blocks = [
        {"type": "document", "title": "T", "source": {"type": "text", "data": "grass"}, "citations": {"enabled": True}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "sky"}]}},
        {"type": "document", "source": {"type": "base64", "data": PNG}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
    ]
    request = read_anthropic({"messages": [{"role": "user", "content": blocks}]})
    assert [part.text for part in request.messages[0].parts] == ["Tgrass", "sky", "", ""]
    assert [set(part.media) for part in request.messages[0].parts] == [
        {"text"}, {"text"}, {"bytes", "digest"}, {"url"},
    ]  # fmt: skip
    assert request.params["citations"] is True


def test_a_signature_counts_although_it_is_not_text():
    block = {"type": "thinking", "thinking": "hm", "signature": "x" * 900}
    part = read_anthropic({"messages": [{"role": "assistant", "content": [block]}]}).messages[0].parts[0]
    assert (part.text, part.media["bytes"]) == ("hm", 900)


def test_a_chat_request_is_seen_whole_and_left_as_it_was():
    body = {
        "model": "gpt-5-mini",
        "messages": [
            {"role": "developer", "content": "be brief"},
            {
                "role": "user",
                "name": "ada",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "max_completion_tokens": 9,
        "n": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s"}},
        "reasoning_effort": "low",
    }
    before = copy.deepcopy(body)
    request = read_openai(body, "chat/completions")
    assert body == before
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert [part.kind for part in request.messages[1].parts] == ["text", "image", "text"]
    assert request.messages[1].parts[1].media == {"detail": "low", "url": True}
    assert request.messages[2].parts == (Part("tool_use", 'f {"a":1}'),)
    assert request.messages[3].parts == (Part("tool_result", "done"),)
    assert (request.max_tokens, request.choice_count, request.endpoint) == (9, 3, "chat.completions")
    assert request.tools[0].name == "f"
    assert "json_schema" in request.output_schema
    assert request.params["reasoning_effort"] == "low"


def test_the_responses_api_is_seen_the_same_way():
    body = {
        "model": "gpt-5",
        "instructions": "be brief",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "id": "r", "encrypted_content": "abc", "summary": []},
            {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
            {"type": "function_call_output", "call_id": "c", "output": "done"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "web_search"}, {"type": "apply_patch"}],
        "max_output_tokens": 77,
        "text": {"format": {"type": "json_schema"}},
    }
    request = read_openai(body, "responses")
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "assistant", "tool"]
    assert request.messages[2].parts[0].kind == "thinking"
    assert [tool.name for tool in request.tools] == ["f", ""]
    assert request.server_tools == (ServerTool("web_search", place=1),)
    assert request.params["provider_tools"] == 1
    assert (request.max_tokens, request.endpoint, request.has_server_side_context) == (77, "responses", False)


@pytest.mark.parametrize(
    "more",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"type": "reasoning", "id": "x", "summary": []}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
    ],
)
def test_context_that_openai_stores_is_stored_context(more):
    assert read_openai({"model": "gpt-5", "input": "hi"} | more, "responses").has_server_side_context


def test_a_prediction_and_a_search_are_noticed():
    request = read_openai(
        {"model": "gpt-4o-search-preview", "messages": [], "prediction": {"type": "content", "content": "ab"}}
    )
    assert request.server_tools
    assert request.params["prediction_bytes"] >= 2


@pytest.mark.parametrize("reader", [read_anthropic, read_openai])
@pytest.mark.parametrize(
    "messages", ["hi", ["hi"], [None], [{"content": 3}], [{"role": "user", "content": ["a", 4, None]}]]
)
def test_unknown_messages_are_counted_rather_than_refused(reader, messages):
    assert reader({"model": "m", "messages": messages}) is not None
