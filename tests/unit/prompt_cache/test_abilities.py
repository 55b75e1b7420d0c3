from __future__ import annotations

import pytest

from llm_cost_middleware.providers import get_provider


@pytest.mark.parametrize(
    ("model", "minimum"),
    [
        ("claude-haiku-4-5-20251001", 4_096),
        ("claude-opus-4-5-20251101", 4_096),
        ("claude-opus-4-6", 4_096),
        ("claude-opus-4-7", 2_048),
        ("claude-opus-4-8", 1_024),
        ("claude-opus-4-1-20250805", 1_024),
        ("claude-opus-4-20250514", 1_024),
        ("claude-opus-5", 512),
        ("claude-sonnet-4-20250514", 1_024),
        ("claude-sonnet-4-6", 1_024),
        ("claude-sonnet-5", 1_024),
        ("claude-fable-5-1", 512),
        ("claude-3-5-haiku-20241022", 2_048),
        ("claude-3-haiku-20240307", 2_048),
        ("claude-3-7-sonnet-20250219", 1_024),
        ("claude-unheard-of-9", 1_024),
    ],
)
def test_minimum_lengths_of_claude(model, minimum):
    ability = get_provider("anthropic").cache_capabilities(model)
    found = (ability.style, ability.min_tokens, ability.max_marks, ability.lookback_blocks)
    assert found == ("explicit", minimum, 4, 20)


@pytest.mark.parametrize(
    ("style", "models"),
    [
        ("none", "gpt-3.5-turbo gpt-4 gpt-4-turbo gpt-4o-2024-05-13 o3-pro gpt-5-pro gpt-5.2-pro gpt-5.5-pro"),
        ("none", "gpt-4o-audio-preview gpt-4o-search-preview text-embedding-3-small"),
        ("automatic", "gpt-4o gpt-4o-mini gpt-4.1-nano o1 o3 o4-mini gpt-5 gpt-5-mini gpt-5.1 gpt-5.4 gpt-5.5"),
        ("automatic", "ft:gpt-4o-mini-2024-07-18:acme::x"),
        ("both", "gpt-5.6 gpt-5.6-sol gpt-5.6-luna gpt-5.10 gpt-6-astra gpt-6.1-terra gpt-10"),
    ],
)
def test_styles_of_openai(style, models):
    assert {get_provider("openai").cache_capabilities(model).style for model in models.split()} == {style}


def test_writes_are_paid_from_5_6_on():
    ability = get_provider("openai").cache_capabilities
    assert not ability("gpt-5.5").writes_are_paid
    assert ability("gpt-5.6-sol").writes_are_paid
    assert ability("gpt-5.6-sol").ttls == ("30m",)


@pytest.mark.parametrize(
    ("model", "offered"), [("gpt-5.1", True), ("gpt-4.1", True), ("gpt-4o", False), ("gpt-5-mini", False)]
)
def test_a_day_of_retention_is_offered_by_some(model, offered):
    assert ("24h" in get_provider("openai").cache_capabilities(model).ttls) is offered


def test_a_model_of_someone_else_has_no_cache():
    assert get_provider("anthropic").cache_capabilities("gpt-5").style == "none"
