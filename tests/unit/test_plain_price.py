"""The short way to the price of an answer says what the long way says, or nothing."""

from datetime import UTC, datetime
from itertools import product

import pytest
from msgspec.structs import replace

from llm_cost_middleware.metering import AttemptMemo, encode_memo, price_answer, price_usage
from llm_cost_middleware.metering.call_facts import CallFacts
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

AT = 1_780_000_000.0
MODELS = (
    ModelRef("openai", "gpt-5-mini"), ModelRef("openai", "gpt-4o-search-preview"), ModelRef("openai", "nobody-knows"),
    ModelRef("anthropic", "claude-sonnet-4-5"), ModelRef("anthropic", "claude-haiku-4-5"),
    ModelRef("bedrock", "us-gov.anthropic.claude-3-haiku-20240307-v1:0"), ModelRef("azure", "eu/gpt-5-mini"),
    ModelRef("vertex_ai", "eu/claude-sonnet-4@20250514"),
)  # fmt: skip
USAGES = (
    TokenUsage(uncached_input=120, output=50), TokenUsage(),
    TokenUsage(uncached_input=300_000, cache_read=7, cache_write_5m=11, output=1),
    TokenUsage(cache_write_1h=13, cache_write_30m=17, reasoning=3, output=5),
    TokenUsage(uncached_input=5, cache_write_12h=19), TokenUsage(audio_input=23, audio_output=29),
    TokenUsage(uncached_input=1, web_searches=2),
)  # fmt: skip
REPORTS = (
    {}, {"model": "gpt-5-mini-2025-08-07"}, {"service_tier": "priority"}, {"service_tier": "flex"}, {"batch": True},
    {"geo": "us"}, {"complete": False}, {"error": "overloaded"}, {"tool_calls": {"web_search_call": 2}},
    {"tool_calls": {}}, {"doubts": ("unsure",)}, {"warnings": ("odd",)}, {"pending": True}, {"unbilled": True},
    {"items": ()}, {"items": (BilledItem(USAGES[0]), BilledItem(USAGES[2], kind="compaction"))},
    {"items": (BilledItem(USAGES[0], "gpt-5-nano"),)},
)  # fmt: skip
CONTRACT = {"discounts": {"openai": {"rate": "15%"}}}


@pytest.mark.parametrize(("asked", "answered"), [
    ("us-gov.anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku-20240307"),
    ("provisioned/anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku-20240307"),
    ("eu.anthropic.claude-sonnet-4-20250514-v1:0", "claude-sonnet-4-20250514"),
])  # fmt: skip
def test_an_answer_of_a_platform_is_priced_at_the_place_that_was_asked(asked, answered):
    own = {"bedrock/provisioned/anthropic.claude-3-haiku-20240307-v1:0": {"input_mtok": "0", "output_mtok": "0"}}
    catalogue = Catalogue(own)
    reading = UsageReport(items=(BilledItem(USAGES[0]),), model=answered, complete=True)
    found = price_answer(reading, ModelRef("bedrock", asked), catalogue, at=AT)
    wanted = price_usage(reading, get_provider("bedrock"), catalogue, at=AT, requested_model=asked)
    assert replace(found, items=()) == replace(wanted, items=())
    assert (found.cost_nanousd == 0) == ("provisioned" in asked)


@pytest.mark.parametrize("target", MODELS, ids=str)
def test_short_way_is_the_long_one(target):
    catalogue, provider = Catalogue(), get_provider(target.provider)
    short = 0
    for usage, given in product(USAGES, REPORTS):
        reading = UsageReport(**{"items": (BilledItem(usage),), "complete": True, **given})
        found = price_answer(reading, target, catalogue, at=AT)
        wanted = price_usage(reading, provider, catalogue, at=AT, requested_model=target.model)
        assert replace(found, items=()) == replace(wanted, items=())
        assert found.items in ((), wanted.items)
        short += found.items != wanted.items
        memo = "call", 1, target, found, reading, "small", "", CallFacts("site", 7, 1, 500)
        names = ("call_id", "attempt", "target", "priced", "reading", "tier", "asked", "facts")
        assert AttemptMemo.of(*memo).written() == encode_memo(
            **dict(zip(names, (*memo[:3], wanted, *memo[4:]), strict=True))
        )
    assert short or target.model in {"nobody-knows", "gpt-4o-search-preview"}


def test_what_was_looked_up_once_holds_as_long_as_its_prices():
    change, target = 1_770_000_000.0, ModelRef("openai", "theirs")
    own = [{"valid_from": "2026-01-01", "input_mtok": 1, "output_mtok": 1}]
    own.append({"valid_from": datetime.fromtimestamp(change, UTC).isoformat(), "input_mtok": 2, "output_mtok": 2})
    catalogue, reading = Catalogue({"openai/theirs": own}), UsageReport((BilledItem(USAGES[0]),), complete=True)

    def cost(at):
        return price_answer(reading, target, catalogue, at=at).cost_nanousd

    assert [cost(at) for at in (change - 1, change, change - 1, change)] == [170_000, 340_000] * 2
    catalogue.reprice({"openai/theirs": {"input_mtok": 3, "output_mtok": 3}})
    assert cost(change) == 510_000
