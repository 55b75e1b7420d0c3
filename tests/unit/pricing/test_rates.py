"""Integer rates: what a usage costs, exactly."""

from __future__ import annotations

from dataclasses import fields

import pytest

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.pricing.rates import Level, Rates
from llm_cost_middleware.usage import TokenUsage

LOW = Level(0, 1_000, 100, 1_250, 2_000, 1_100, 2_500, 5_000, None, None, None, 10**10)
HIGH = Level(200, 2_000, 200, 2_500, 4_000, 2_200, 5_000, 7_500, 9_000, 900, 18_000, 10**10)
RATES = Rates("anthropic", "m", (LOW, HIGH), {})


def test_a_level_has_a_rate_for_every_bucket_and_nothing_else():
    assert set(Level._fields[1:]) == {bucket.name for bucket in fields(TokenUsage)} - {"reasoning"}


def test_a_cost_is_the_sum_of_its_components_rounded_up_once():
    usage = TokenUsage(
        uncached_input=3, cache_read=5, cache_write_5m=7, cache_write_1h=1, output=11, reasoning=4, web_searches=2
    )
    parts = RATES.components(usage)
    assert parts == {
        "uncached_input": 3_000, "cache_read": 500, "cache_write_5m": 8_750, "cache_write_1h": 2_000,
        "output": 55_000, "web_searches": 2 * 10**10,
    }  # fmt: skip
    assert RATES.picousd(usage) == sum(parts.values())
    assert RATES.cost(usage) == 20_000_070, "69.25 nano-dollars of tokens round up"


def test_the_long_context_price_holds_for_every_token_once_the_input_exceeds_it_cached_tokens_included():
    at, beyond = TokenUsage(cache_read=200, output=1), TokenUsage(cache_read=201, output=1)
    assert RATES.picousd(at) == 200 * 100 + 5_000
    assert RATES.picousd(beyond) == 201 * 200 + 7_500
    assert RATES.picousd(beyond, short=True) == 201 * 100 + 5_000


def test_audio_without_a_price_is_an_error_and_not_text():
    with pytest.raises(PriceNotFoundError, match="audio"):
        RATES.cost(TokenUsage(audio_input=1))
    assert RATES.picousd(TokenUsage(audio_input=300, audio_output=2)) == 300 * 9_000 + 2 * 18_000


def test_the_most_expensive_input_grows_with_what_may_happen_to_it():
    assert RATES.max_picousd(200) == (1_000, 5_000)
    assert RATES.max_picousd(201)[0] == 2_000
    assert RATES.max_picousd(200, writes=("5m",))[0] == 1_250
    assert RATES.max_picousd(200, writes=("5m", "1h"))[0] == 2_000
    assert RATES.max_picousd(10_000)[1] == 7_500
    with pytest.raises(PriceNotFoundError):
        RATES.max_picousd(10, audio=True)


def test_a_cut_answer_costs_at_most_what_its_cap_allows():
    usage = TokenUsage(uncached_input=10, output=3)
    assert RATES.cost_with_output(usage, 100) == RATES.cost(TokenUsage(uncached_input=10, output=100))
    assert RATES.cost_with_output(usage, 1) == RATES.cost(usage)
