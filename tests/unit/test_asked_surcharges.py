"""What LangChain's figures of an answer leave out is priced at the dearest that the request asked for."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_core", reason="the rules are LangChain's")

from langchain_core.messages import AIMessage

from llm_cost_middleware.integrations.langchain.usage import read_message
from llm_cost_middleware.metering import price_usage
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import get_provider, provider_of_endpoint

CATALOGUE = Catalogue()
MODELS = {"messages": "claude-opus-4-8", "responses": "gpt-5.6-terra"}


def priced(endpoint, body, usage, content="hi", **metadata):
    rules = provider_of_endpoint(endpoint)
    request = rules.read_request({"model": MODELS[endpoint], "messages": [], "input": "hi", **body}, endpoint)
    model = {"model_name": MODELS[endpoint], "finish_reason": "stop"}
    message = AIMessage(content, usage_metadata={"total_tokens": 0, **usage}, response_metadata=model | metadata)
    reading = read_message(rules.name, message, None, request)
    return price_usage(reading, get_provider(rules.name), CATALOGUE, at=1_793_500_000.0), reading


PLAIN = {"input_tokens": 1_000, "output_tokens": 100}
WRITTEN = PLAIN | {"input_token_details": {"cache_creation": 600}}
MARK = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]


@pytest.mark.parametrize("endpoint", MODELS)
def test_nothing_asked_nothing_added(endpoint):
    for usage in (PLAIN, WRITTEN):
        price, _ = priced(endpoint, {}, usage)
        assert price.status == "exact"


@pytest.mark.parametrize(
    ("endpoint", "body", "metadata"),
    [
        ("messages", {"inference_geo": "us"}, {}),
        ("messages", {"speed": "fast"}, {}),
        ("responses", {"service_tier": "priority"}, {}),
        ("responses", {"service_tier": "flex"}, {}),
    ],
)
def test_a_term_that_was_asked_for_decides_the_price_and_makes_it_an_estimate(endpoint, body, metadata):
    plain, _ = priced(endpoint, {}, PLAIN)
    asked, _ = priced(endpoint, body, PLAIN, **metadata)
    assert asked.status == "estimated"
    assert (asked.cost_usd > plain.cost_usd) is ("flex" not in body.values())


def test_a_tier_that_the_answer_names_counts_and_not_the_one_that_was_asked_for():
    asked, _ = priced("responses", {"service_tier": "priority"}, PLAIN, service_tier="default")
    plain, _ = priced("responses", {}, PLAIN)
    assert (asked.cost_usd, asked.status) == (plain.cost_usd, "exact")


@pytest.mark.parametrize(
    ("endpoint", "body", "bucket"),
    [
        ("messages", {"system": MARK}, "cache_write_1h"),
        ("messages", {"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "cache_write_1h"),
        ("messages", {"cache_control": {"type": "ephemeral"}}, "cache_write_5m"),
        ("responses", {"prompt_cache_options": {"ttl": "12h"}}, "cache_write_12h"),
        ("responses", {}, "cache_write_30m"),
    ],
)
def test_a_write_without_a_lifetime_is_taken_at_the_longest_that_may_be_billed(endpoint, body, bucket):
    price, reading = priced(endpoint, body, WRITTEN)
    assert getattr(reading.usage, bucket) == reading.usage.cache_write == 600
    assert (price.status == "exact") is (bucket in ("cache_write_5m", "cache_write_30m"))


def test_searches_that_an_answer_shows_carry_their_fee():
    block = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    price, reading = priced("messages", {}, PLAIN, content=[block, block, {"type": "text", "text": "hi"}])
    assert (reading.usage.web_searches, price.status) == (2, "estimated")
    call = {"type": "web_search_call", "id": "w", "status": "completed"}
    for tool, fee in (("web_search", 10_000_000), ("web_search_preview", 10_000_000)):
        price, _ = priced("responses", {"tools": [{"type": tool}]}, PLAIN, content=[call])
        assert sum(item.cost_nanousd for item in price.items if item.kind == "tool_fees") == fee
        assert price.status == "estimated"
