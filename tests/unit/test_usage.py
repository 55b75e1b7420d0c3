"""Token usage: disjoint buckets, inclusive totals."""

import pytest

from llm_cost_middleware.usage import TokenUsage


def test_totals_include_what_was_cached_and_reasoning_is_no_bucket():
    usage = TokenUsage(
        uncached_input=1, cache_read=2, cache_write_5m=4, cache_write_1h=8, cache_write_30m=16, cache_write_12h=32,
        output=64, reasoning=60, audio_input=128, audio_cache_read=256, audio_output=512,
    )  # fmt: skip
    assert usage.cache_write == 60
    assert usage.input_tokens == 1 + 2 + 60 + 128 + 256
    assert usage.output_tokens == 64 + 512
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_usages_add_up_bucket_by_bucket():
    assert TokenUsage(output=1, web_searches=1) + TokenUsage(output=2) == TokenUsage(output=3, web_searches=1)


@pytest.mark.parametrize("count", [-1, 1.5, "3", None])
def test_a_count_that_is_no_count_is_refused(count):
    with pytest.raises(ValueError, match="non-negative"):
        TokenUsage(output=count)
