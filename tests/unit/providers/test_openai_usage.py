"""How OpenAI's responses are read: each rule that real traffic taught, with the payload that shows it."""

from __future__ import annotations

import json

import pytest

from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.providers.openai.usage import OpenAIStreamReader, read_usage
from llm_cost_middleware.usage import TokenUsage

USAGE = {
    "prompt_tokens": 2_000,
    "completion_tokens": 300,
    "total_tokens": 2_300,
    "prompt_tokens_details": {"cached_tokens": 1_024, "cache_write_tokens": 500, "audio_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 200, "audio_tokens": 60},
}


def chat(usage=USAGE, **more):
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "hi"}}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-5.6-sol",
        "choices": [choice],
        "usage": usage,
    } | more


def response(usage, **more):
    body = {"id": "resp_1", "object": "response", "model": "gpt-5-2025-08-07", "status": "completed", "output": []}
    return body | {"usage": usage, "error": None, "service_tier": "flex"} | more


def chunk(**more):
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o-2024-08-06"}
    return body | {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}], "usage": None} | more


def sse(*events):
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def test_cached_written_and_audio_tokens_are_taken_out_of_the_prompt_and_reasoning_stays_in_the_output():
    reading = read_usage(chat())
    assert reading.usage == TokenUsage(
        uncached_input=436,
        cache_read=1_024,
        cache_write_30m=500,
        output=240,
        reasoning=200,
        audio_input=40,
        audio_output=60,
    )
    assert reading.usage.input_tokens == 2_000
    assert reading.usage.output_tokens == 300
    assert (reading.finish_reason, reading.model, reading.complete) == ("stop", "gpt-5.6-sol", True)


def test_twelve_hour_writes_and_cached_audio_are_distinguished():
    usage = {
        "input_tokens": 1_000,
        "output_tokens": 1,
        "input_tokens_details": {
            "cached_tokens": 300,
            "cached_tokens_details": {"audio_tokens": 100},
            "audio_tokens": 150,
            "cache_write_tokens": 200,
            "cache_write_tokens_details": {"ttl_12h_tokens": 120, "ttl_30m_tokens": 80},
        },
    }
    assert read_usage(response(usage)).usage == TokenUsage(
        uncached_input=450,
        cache_read=200,
        cache_write_30m=80,
        cache_write_12h=120,
        output=1,
        audio_input=50,
        audio_cache_read=100,
    )


def test_a_response_reports_its_tier_and_its_finish_reason():
    reading = read_usage(
        response(
            {"input_tokens": 5, "output_tokens": 6},
            status="incomplete",
            incomplete_details={"reason": "max_output_tokens"},
        )
    )
    assert reading.service_tier == "flex"
    assert reading.finish_reason == "max_output_tokens"


def test_a_stream_without_usage_is_unknown_and_says_how_to_ask_for_it():
    reading = read_usage(sse(chunk(), chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])))
    assert reading.items == ()
    assert not reading.complete
    assert not reading.unbilled
    assert "include_usage" in reading.warnings[0]
    assert reading.finish_reason == "stop"


def test_a_stream_with_usage_in_its_last_chunk_is_complete():
    reading = read_usage(
        sse(chunk(), chunk(choices=[], usage={"prompt_tokens": 8, "completion_tokens": 2}, service_tier="default"))
    )
    assert reading.usage == TokenUsage(uncached_input=8, output=2)
    assert reading.complete
    assert reading.service_tier == "default"


def test_zeros_after_an_error_in_a_stream_are_ignored():
    reading = read_usage(
        sse(
            chunk(),
            {"error": {"message": "boom", "type": "server_error"}},
            chunk(choices=[], usage={"prompt_tokens": 0, "completion_tokens": 0}),
        )
    )
    assert reading.items == ()
    assert not reading.unbilled
    assert reading.error == "server_error: boom"


def test_a_background_response_has_no_bill_until_it_is_retrieved():
    pending = read_usage(response(None, status="queued"))
    assert pending.items == ()
    assert not pending.unbilled
    assert "retrieved" in pending.warnings[0]
    done = read_usage(response({"input_tokens": 5, "output_tokens": 6}))
    assert done.response_id == pending.response_id


def test_events_of_the_responses_api_end_in_the_whole_response():
    final = response({"input_tokens": 5, "output_tokens": 6})
    events = [
        {"type": "response.created", "response": response(None, status="in_progress", service_tier="auto")},
        {"type": "response.output_text.delta", "delta": "hi"},
        {"type": "response.completed", "response": final},
    ]
    text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    assert read_usage(text) == read_usage(final)
    cut = read_usage(text.split("event: response.completed", maxsplit=1)[0])
    assert cut.items == ()
    assert cut.response_id == "resp_1"


def test_a_failed_response_is_not_taken_for_free_and_an_error_body_is():
    failed = read_usage(response(None, status="failed", error={"code": "server_error", "message": "boom"}))
    assert failed.error == "server_error: boom"
    assert not failed.unbilled
    refused = read_usage({"error": {"code": "invalid_api_key", "type": "invalid_request_error", "message": "no"}})
    assert refused.unbilled
    assert refused.error == "invalid_api_key: no"


def test_calls_of_the_providers_own_tools_are_counted_and_opened_pages_are_not():
    output = [
        {"type": "web_search_call", "action": {"type": "search"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "file_search_call"},
        {"type": "message", "content": []},
    ]
    reading = read_usage(response({"input_tokens": 5, "output_tokens": 6}, output=output))
    assert reading.tool_calls == {"web_search_call": 1, "file_search_call": 1}


def test_result_lines_of_a_batch_are_items_at_their_own_models():
    lines = [
        {
            "custom_id": "a",
            "response": {"status_code": 200, "body": chat({"prompt_tokens": 3, "completion_tokens": 2})},
            "error": None,
        },
        {
            "custom_id": "b",
            "response": {"status_code": 400, "body": {"error": {"code": "bad", "message": "no"}}},
            "error": None,
        },
    ]
    reading = read_usage(lines)
    assert reading.batch
    assert [item.model for item in reading.items] == ["gpt-5.6-sol"]
    assert reading.error == "bad: no"
    assert read_usage("\n".join(map(json.dumps, lines))) == reading


def test_the_status_of_a_batch_is_no_bill_even_where_it_sums_usage():
    reading = read_usage({"id": "batch_1", "object": "batch", "usage": {"input_tokens": 100, "output_tokens": 5}})
    assert reading.items == ()
    assert not reading.unbilled


def test_a_count_of_input_tokens_is_free():
    assert read_usage({"object": "response.input_tokens", "input_tokens": 12}).unbilled


def test_parts_beyond_their_whole_are_billed_as_reported_and_doubted():
    reading = read_usage(
        chat({"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 64}})
    )
    assert reading.usage == TokenUsage(cache_read=64, output=1)
    assert "exceed" in reading.doubts[0]


@pytest.mark.parametrize("count", [-1, 1.5, "12", True, float("nan"), 10**40, [], {}])
def test_a_count_that_is_none_raises(count):
    with pytest.raises(UnreadableUsageError, match="prompt_tokens"):
        read_usage(chat({"prompt_tokens": count, "completion_tokens": 1}))


@pytest.mark.parametrize("nothing", [None, "", "upstream connect error", b"\xff\xfe", 7, [], {}])
def test_what_carries_no_usage_is_neither_a_bill_nor_free(nothing):
    reading = read_usage(nothing)
    assert reading.items == ()
    assert not reading.unbilled


def test_the_sdk_object_and_the_json_read_the_same():
    types = pytest.importorskip("openai.types")
    body = chat(service_tier="default")
    assert read_usage(types.chat.ChatCompletion.construct(**body)) == read_usage(body)
    final = response({"input_tokens": 5, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 1}})
    assert read_usage(types.responses.Response.construct(**final)) == read_usage(final)
    reader, plain = OpenAIStreamReader(), OpenAIStreamReader()
    for event in (chunk(), chunk(choices=[], usage={"prompt_tokens": 8, "completion_tokens": 2})):
        reader.feed(types.chat.ChatCompletionChunk.construct(**event))
        plain.feed(event)
    assert reader.reading() == plain.reading()
    assert plain.reading().usage.output == 2


def test_usage_that_a_host_sets_on_a_chunk_as_an_extra_field_is_seen():
    types = pytest.importorskip("openai.types")
    late = types.chat.ChatCompletionChunk.construct(**{k: v for k, v in chunk(choices=[]).items() if k != "usage"})
    late.__pydantic_extra__ = {"usage": {"prompt_tokens": 4, "completion_tokens": 1}}
    late.__dict__.pop("usage", None)
    reader = OpenAIStreamReader()
    reader.feed(late)
    assert reader.reading().usage == TokenUsage(uncached_input=4, output=1)


def test_an_object_without_a_dictionary_is_read_by_its_attributes():
    class Slotted:
        __slots__ = ("choices", "id", "model", "usage")

    late = Slotted()
    late.id, late.model, late.choices, late.usage = "c", "gpt-5", [], {"prompt_tokens": 4, "completion_tokens": 1}
    reader = OpenAIStreamReader()
    reader.feed(late)
    assert reader.reading().usage == TokenUsage(uncached_input=4, output=1)
    assert reader.reading().model == "gpt-5"


def test_an_error_event_of_the_responses_api_is_reported():
    reader = OpenAIStreamReader()
    reader.feed({"type": "response.created", "response": response(None, status="in_progress")})
    reader.feed({"type": "error", "code": "server_error", "message": "boom"})
    reading = reader.reading()
    assert reading.error == "server_error: boom"
    assert not reading.unbilled, "it had begun"
