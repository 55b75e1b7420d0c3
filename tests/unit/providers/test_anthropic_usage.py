"""How Anthropic's responses are read: each rule that real traffic taught, with the payload that shows it."""

from __future__ import annotations

import json

import pytest

from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.providers.anthropic.usage import AnthropicStreamReader, read_usage
from llm_cost_middleware.usage import TokenUsage


def message(usage, **more):
    return {
        "id": "msg_1",
        "type": "message",
        "model": "claude-sonnet-4-6",
        "stop_reason": "end_turn",
        "usage": usage,
    } | more


def sse(*events):
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "model": "claude-sonnet-4-6",
        "usage": {
            "input_tokens": 9,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
            "output_tokens": 1,
            "service_tier": "standard",
        },
    },
}
DELTA = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn"},
    "usage": {
        "input_tokens": 9,
        "cache_creation_input_tokens": 17_369,
        "cache_read_input_tokens": None,
        "output_tokens": 70,
    },
}
STOP = {"type": "message_stop"}


def test_input_excludes_what_was_cached_and_thinking_stands_inside_the_output():
    reading = read_usage(
        message(
            {
                "input_tokens": 10,
                "cache_read_input_tokens": 200,
                "cache_creation_input_tokens": 30,
                "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
                "output_tokens": 50,
                "output_tokens_details": {"thinking_tokens": 40},
                "service_tier": "standard",
                "speed": "fast",
                "inference_geo": "us",
                "server_tool_use": {"web_search_requests": 3},
            }
        )
    )
    assert reading.usage == TokenUsage(
        uncached_input=10, cache_read=200, cache_write_5m=20, cache_write_1h=10, output=50, reasoning=40, web_searches=3
    )
    assert reading.usage.input_tokens == 240
    assert (reading.service_tier, reading.speed, reading.geo, reading.batch) == ("standard", "fast", "us", False)
    assert reading.complete
    assert reading.tool_calls == {"web_search_requests": 3}


def test_a_split_of_cache_writes_that_falls_short_of_the_total_is_filled_up_with_five_minute_writes():
    reading = read_usage(
        message(
            {
                "input_tokens": 3,
                "output_tokens": 4,
                "cache_creation_input_tokens": 17_269,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            }
        )
    )
    assert reading.usage.cache_write_5m == 17_269
    assert "the total is billed" in reading.warnings[0]


def test_a_split_beyond_the_total_is_cut_to_the_total():
    usage = {
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_creation_input_tokens": 50,
        "cache_creation": {"ephemeral_5m_input_tokens": 70, "ephemeral_1h_input_tokens": 20},
    }
    assert read_usage(message(usage)).usage == TokenUsage(cache_write_5m=30, cache_write_1h=20)


def test_a_response_without_a_split_is_read_as_five_minute_writes_without_a_doubt():
    reading = read_usage(message({"input_tokens": 3, "cache_creation_input_tokens": 90, "output_tokens": 4}))
    assert reading.usage.cache_write_5m == 90
    assert reading.warnings == ()


def test_iterations_are_the_bill_and_each_is_billed_at_its_own_model():
    reading = read_usage(
        message(
            {
                "input_tokens": 229,
                "output_tokens": 5,
                "server_tool_use": {"web_search_requests": 2},
                "iterations": [
                    {
                        "type": "compaction",
                        "input_tokens": 100,
                        "cache_creation_input_tokens": 55_096,
                        "output_tokens": 131,
                    },
                    {"type": "message", "input_tokens": 229, "output_tokens": 5},
                    {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 2_529, "output_tokens": 38},
                ],
            }
        )
    )
    assert [(item.kind, item.model, item.usage.input_tokens) for item in reading.items] == [
        ("compaction", None, 55_196),
        ("message", None, 229),
        ("advisor_message", "claude-opus-4-8", 2_529),
    ]
    assert reading.usage.web_searches == 2


def test_a_top_level_of_zeros_beside_a_compaction_is_not_the_bill():
    usage = {
        "input_tokens": 0,
        "output_tokens": 0,
        "iterations": [{"type": "compaction", "input_tokens": 99_195, "output_tokens": 81}],
    }
    assert read_usage(message(usage)).usage == TokenUsage(uncached_input=99_195, output=81)


def test_a_stream_merges_its_start_with_the_last_cumulative_delta_and_ignores_null():
    reading = read_usage(sse(START, {"type": "ping"}, DELTA, STOP))
    assert reading.usage == TokenUsage(
        uncached_input=9, cache_read=5, cache_write_5m=17_329, cache_write_1h=40, output=70
    )
    assert reading.complete
    assert (reading.finish_reason, reading.response_id, reading.model) == ("end_turn", "msg_1", "claude-sonnet-4-6")


def test_a_stream_with_only_an_error_is_not_known_to_be_free():
    reading = read_usage(sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}))
    assert not reading.unbilled
    assert reading.items == ()
    assert reading.error == "overloaded_error: Overloaded"


def test_a_stream_that_ends_in_an_error_is_read_for_what_it_reported():
    reading = read_usage(sse(START, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}))
    assert reading.usage.input_tokens == 114
    assert not reading.complete
    assert not reading.unbilled
    assert reading.error


def test_a_cut_stream_is_not_complete_until_its_usage_is_final():
    reader = AnthropicStreamReader()
    assert not reader.reading().items
    reader.feed(START)
    assert not reader.reading().complete
    reader.feed(DELTA)
    assert reader.reading().complete


def test_raw_chunks_and_parsed_events_read_the_same():
    raw, parsed = AnthropicStreamReader(), AnthropicStreamReader()
    for event in (START, DELTA, STOP):
        raw.feed(sse(event).encode())
        parsed.feed(event)
    assert raw.reading() == parsed.reading()


def test_an_error_body_is_free_and_reported():
    reading = read_usage({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}})
    assert reading.unbilled
    assert reading.error == "rate_limit_error: slow down"


def test_a_count_of_tokens_is_free():
    reading = read_usage({"input_tokens": 12})
    assert reading.unbilled
    assert reading.items == ()


def test_the_status_of_a_batch_carries_no_bill_and_is_not_free():
    reading = read_usage({"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"})
    assert not reading.unbilled
    assert reading.items == ()
    assert "results" in reading.warnings[0]


def test_result_lines_of_a_batch_are_items_at_their_own_models_and_failed_ones_are_reported():
    lines = [
        {
            "custom_id": "1",
            "result": {"type": "succeeded", "message": message({"input_tokens": 19, "output_tokens": 4})},
        },
        {
            "custom_id": "2",
            "result": {"type": "errored", "error": {"error": {"type": "invalid_request_error", "message": "no"}}},
        },
        {"custom_id": "3", "result": {"type": "expired"}},
    ]
    reading = read_usage(lines)
    assert reading.batch
    assert reading.items[0].model == "claude-sonnet-4-6"
    assert reading.error == "invalid_request_error: no; expired"
    assert read_usage("\n".join(json.dumps(line) for line in lines)) == reading
    assert read_usage(lines[0]).items == reading.items
    assert read_usage(lines[1]).unbilled


def test_a_batch_tier_is_a_batch():
    assert read_usage(message({"input_tokens": 1, "output_tokens": 1, "service_tier": "batch"})).batch


def test_the_openai_compatible_endpoint_is_read_by_its_own_names():
    reading = read_usage(
        {"id": "msg_1", "model": "claude-haiku-4-5", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    )
    assert reading.usage == TokenUsage(uncached_input=7, output=3)


@pytest.mark.parametrize(
    "nothing", [None, "", "upstream connect error", b"<html>", 7, [], {}, {"usage": None, "id": "x"}]
)
def test_what_carries_no_usage_is_neither_a_bill_nor_free(nothing):
    reading = read_usage(nothing)
    assert reading.items == ()
    assert not reading.unbilled or reading.error


@pytest.mark.parametrize("count", [-1, 1.5, "12", True, float("inf"), 10**40, [], {}])
def test_a_count_that_is_none_raises(count):
    with pytest.raises(UnreadableUsageError, match="input_tokens"):
        read_usage(message({"input_tokens": count, "output_tokens": 1}))


def test_broken_json_raises():
    with pytest.raises(UnreadableUsageError):
        read_usage('{"usage": {"input_tokens": 1')


def test_the_sdk_object_and_the_json_read_the_same():
    types = pytest.importorskip("anthropic.types")
    body = message(
        {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 8, "iterations": None, "unheard_of": 1},
        content=[],
        role="assistant",
    )
    assert read_usage(types.Message.model_construct(**body)) == read_usage(body)
    assert read_usage(types.Message.construct(**body)) == read_usage(body)
    reader, plain = AnthropicStreamReader(), AnthropicStreamReader()
    for name, event in (
        ("RawMessageStartEvent", START),
        ("RawMessageDeltaEvent", DELTA),
        ("RawMessageStopEvent", STOP),
    ):
        reader.feed(getattr(types, name).construct(**event))
        plain.feed(event)
    assert reader.reading() == plain.reading()
