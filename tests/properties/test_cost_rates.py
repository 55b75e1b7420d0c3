"""Laws of a cost: it adds up, it never falls when something is added, and it is what genai-prices says."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.overlay import packaged
from llm_cost_middleware.usage import TokenUsage

CATALOGUE = Catalogue()
MODELS = [(name, model) for name in ("anthropic", "openai") for model in CATALOGUE.models(name)]
BUCKETS = [bucket.name for bucket in fields(TokenUsage) if bucket.name != "reasoning"]
PLAIN = [name for name in BUCKETS if "audio" not in name]
FIRST, LAST = datetime(2023, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)
RECORDED_VARIANTS = datetime(2026, 10, 14, tzinfo=UTC)

counts = st.one_of(st.integers(0, 300), st.integers(0, 2_000_000))
usages = st.builds(TokenUsage, **dict.fromkeys(PLAIN, counts))
moments = st.datetimes(FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None)).map(lambda at: at.replace(tzinfo=UTC))
terms = st.fixed_dictionaries(
    {},
    optional={
        "service_tier": st.sampled_from(["default", "flex", "priority", "batch", "unheard-of"]),
        "speed": st.sampled_from(["standard", "fast"]),
        "geo": st.sampled_from(["us", "global", "not_available"]),
        "batch": st.booleans(),
    },
)


def _rates(choice, at, how):
    return CATALOGUE.rates(*choice, at=at.timestamp(), **how)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MODELS), usages, moments, terms)
def test_a_cost_is_the_sum_over_its_buckets_and_never_negative(choice, usage, at, how):
    rates = _rates(choice, at, how)
    parts = rates.components(usage)
    assert rates.picousd(usage) == sum(parts.values()) >= 0
    assert rates.cost(usage) * 1_000 - rates.picousd(usage) in range(1_000)
    level = rates.level(usage.input_tokens)
    for name in PLAIN:
        assert parts.get(name, 0) == getattr(usage, name) * getattr(level, name)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MODELS), usages, usages, moments, terms)
def test_costs_of_two_bills_add_up_where_their_context_does_not_change_the_price(choice, one, other, at, how):
    rates = _rates(choice, at, how)
    assert rates.picousd(one, short=True) + rates.picousd(other, short=True) == rates.picousd(one + other, short=True)
    assert rates.picousd(one + other) >= max(rates.picousd(one), rates.picousd(other))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MODELS), usages, st.sampled_from(PLAIN), st.integers(1, 10**6), moments, terms)
def test_more_of_anything_never_costs_less(choice, usage, name, more, at, how):
    rates = _rates(choice, at, how)
    assert rates.picousd(replace(usage, **{name: getattr(usage, name) + more})) >= rates.picousd(usage)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(MODELS), usages, moments, terms)
def test_the_most_expensive_rates_are_never_below_those_of_any_terms_they_stand_for(choice, usage, at, how):
    how = {name: value for name, value in how.items() if name in ("service_tier", "geo")}
    if how.get("service_tier") not in (None, "default", "priority"):
        return
    dearest = CATALOGUE.upper_bound_rates(*choice, at=at.timestamp())
    assert dearest.picousd(usage) >= _rates(choice, at, how).picousd(usage)


@pytest.fixture(scope="module")
def genai():
    snapshot = pytest.importorskip("genai_prices.data_snapshot")
    return {provider.id: provider for provider in snapshot._bundled_snapshot().providers}


def _overlaid(name, found, at):
    return any(
        block.model == found.id and block.provider == name and block.start <= at.timestamp() < block.end
        for block in packaged().blocks
    )


def _both(draw, prices, name):
    """One usage in our form and in genai-prices', of those buckets that the model has a price for."""
    from genai_prices import Usage

    have = {key for key, value in vars(prices).items() if value is not None}
    ours = {"uncached_input": draw(counts), "output": draw(counts)}
    if "cache_read_mtok" in have:
        ours["cache_read"] = draw(counts)
    if "cache_write_mtok" in have:
        ours["cache_write_5m" if name == "anthropic" else "cache_write_30m"] = draw(counts)
    if "cache_write_1h_mtok" in have:
        ours["cache_write_1h"] = draw(counts)
    if "web_searches_kcount" in have and name == "anthropic":
        ours["web_searches"] = draw(st.integers(0, 50))
    if {"input_audio_mtok", "output_audio_mtok"} <= have:
        ours |= {"audio_input": draw(counts), "audio_output": draw(counts)}
    usage = TokenUsage(**ours)
    theirs = {
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "cache_write_1h_tokens": usage.cache_write_1h,
        "output_tokens": usage.output_tokens,
        "web_searches": usage.web_searches,
        "input_audio_tokens": usage.audio_input,
        "output_audio_tokens": usage.audio_output,
        "cache_audio_read_tokens": 0,  # asked for where both its parents are given
    }
    return usage, Usage(**theirs)


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from(MODELS), moments)
def test_standard_prices_are_those_of_genai_prices_at_any_date(genai, data, choice, at):
    name, model = choice
    found = genai[name].find_model(model)
    if found is None or _overlaid(name, found, at):
        return  # the overlay says otherwise there, which is what it is for
    usage, theirs = _both(data.draw, found.get_prices(at), name)
    expected = found.calc_price(theirs, genai[name], genai_request_timestamp=at).total_price
    assert _rates(choice, at, {}).picousd(usage) == expected * Decimal(10**12)


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from(MODELS), moments.map(lambda at: max(at, RECORDED_VARIANTS)))
def test_other_ways_of_processing_cost_the_price_of_genai_prices_once_it_has_one(genai, data, choice, at):
    name, model = choice
    found = genai[name].find_model(model)
    if found is None or not found.price_variants or _overlaid(name, found, at):
        return
    variant = data.draw(st.sampled_from([v for v in found.price_variants if v.when.get("service_tier") != "fast"]))
    key, value = next(iter(variant.when.items()))
    how = {"batch": True} if key == "processing" else {key: value}
    usage, theirs = _both(data.draw, found.get_prices(at), name)
    expected = found.calc_price(theirs, genai[name], genai_request_timestamp=at, price_context=variant.when).total_price
    assert _rates(choice, at, how).picousd(usage) == expected * Decimal(10**12)
