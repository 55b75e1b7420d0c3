"""Usage of Bedrock's answers: samples from its documentation and its service model, to the bucket."""

from __future__ import annotations

import pytest

from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.platforms.bedrock.usage import BedrockStreamReader, read_usage
from llm_cost_middleware.usage import TokenUsage

# API reference, "Converse": the sample answer
CONVERSE = {
    "output": {"message": {"content": [{"text": "Here's a list"}], "role": "assistant"}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 30, "outputTokens": 628, "totalTokens": 658},
    "metrics": {"latencyMs": 1275},
}
# User Guide, "Prompt caching", and ``TokenUsage``/``CacheDetail`` of the service model
CACHED = {
    "inputTokens": 4, "outputTokens": 50, "totalTokens": 8_054, "cacheReadInputTokens": 5_000,
    "cacheWriteInputTokens": 3_000,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 2_000}, {"ttl": "5m", "inputTokens": 1_000}],
}  # fmt: skip
# User Guide, "Anthropic Claude Messages API": the answer of InvokeModel
INVOKED = {
    "id": "msg_bdrk_01Ab", "model": "claude-haiku-4-5-20251001", "type": "message", "role": "assistant",
    "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 7},
}  # fmt: skip


def test_converse_counts_input_without_the_cache():
    assert read_usage(CONVERSE).usage == TokenUsage(uncached_input=30, output=628)
    reading = read_usage({**CONVERSE, "usage": CACHED})
    assert reading.usage == TokenUsage(
        uncached_input=4, cache_read=5_000, cache_write_5m=1_000, cache_write_1h=2_000, output=50
    )
    assert (reading.complete, reading.finish_reason, reading.doubts) == (True, "end_turn", ())


@pytest.mark.parametrize(
    ("details", "short", "long", "noted", "doubted"),
    [
        (None, 3_000, 0, False, False),
        ([], 3_000, 0, False, False),
        ([{"ttl": "1h", "inputTokens": 3_000}], 0, 3_000, False, False),
        ([{"ttl": "1h", "inputTokens": 1_000}], 2_000, 1_000, True, False),
        ([{"ttl": "1h", "inputTokens": 4_000}], 0, 3_000, False, True),
    ],
)
def test_writes_are_split_by_lifetime_and_the_total_is_billed(details, short, long, noted, doubted):
    usage = {key: value for key, value in CACHED.items() if key != "cacheDetails"} | (
        {} if details is None else {"cacheDetails": details}
    )
    reading = read_usage({**CONVERSE, "usage": usage})
    assert (reading.usage.cache_write_5m, reading.usage.cache_write_1h) == (short, long)
    assert (bool(reading.warnings), bool(reading.doubts)) == (noted, doubted)


def test_an_invoked_answer_is_the_models_own():
    reading = read_usage(INVOKED)
    assert (reading.usage, reading.model) == (TokenUsage(uncached_input=11, output=7), "claude-haiku-4-5-20251001")


def test_a_stream_of_converse_is_read_from_its_metadata_event():
    events = [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hi"}}},
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": {"usage": CACHED, "metrics": {"latencyMs": 9}}},
    ]
    assert read_usage(events).usage.input_tokens == 8_004
    cut = BedrockStreamReader()
    for event in events[:3]:
        cut.feed(event)
    assert cut.reading().items == ()  # unknown, never zero
    broken = read_usage([*events[:2], {"throttlingException": {"message": "slow"}}])
    assert (broken.items, broken.error) == ((), "ThrottlingException: slow")
    early = read_usage([events[0], events[3]])
    assert not early.complete


ODD = [-1, 1.5, "7", True, [], 10**30]


@pytest.mark.parametrize(
    ("field", "odd"),
    [(field, odd) for field in ("inputTokens", "outputTokens", "cacheWriteInputTokens") for odd in ODD]
    + [("inputTokens", None), ("outputTokens", None)],  # a count that may be left out is zero where it is null
)
def test_a_count_that_is_none_is_an_error_and_never_zero(field, odd):
    with pytest.raises(UnreadableUsageError):
        read_usage({**CONVERSE, "usage": {**CACHED, field: odd}})


@pytest.mark.parametrize("answer", [{**CONVERSE, "usage": None}, {"output": {}}, {}, "", b"{}"])
def test_no_usage_is_unknown(answer):
    try:
        assert read_usage(answer).items == ()
    except UnreadableUsageError:
        assert answer in ("", b"{}")


@pytest.mark.parametrize(
    "error", [{"message": "Too many requests"}, {"Error": {"Code": "ThrottlingException", "Message": "slow"}}]
)
def test_an_error_is_not_billed(error):
    assert read_usage(error).unbilled
