from __future__ import annotations

import json

import pytest

from llm_cost_middleware.prompt_cache.layout import read_layout
from llm_cost_middleware.prompt_cache.plan import CachePlan, CachePrices
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics
from llm_cost_middleware.request import CacheBreakpoint, ModelRef
from llm_cost_middleware.usage import TokenUsage

HAIKU = ModelRef("anthropic", "claude-haiku-4-5")


def marked(layout, at, prices, ttl="5m"):
    boundary = layout.boundaries[at]
    marks = (CacheBreakpoint(boundary.ref, ttl),)
    return CachePlan(marks, prices=prices, at=0.0, write_risk_picousd=boundary.tokens * 750_000)


def test_odds_rise_with_returns_and_fall_without(conversation):
    statistics = PrefixStatistics()
    seen = []
    for at in range(8):
        layout = read_layout(conversation(1, salt=str(at)))
        now = at * 60.0
        seen.append(statistics.reuse(layout, 0, now)[0][0])
        statistics.begin(layout, CachePlan(), now=now)
    assert seen[0] < 0.2
    assert seen[1] > 0.5
    assert seen[-1] > 0.7
    assert statistics.reuse(layout, 0, now + 10_000.0) < statistics.reuse(layout, 0, now + 60.0)


def test_a_gap_counts_for_the_lifetimes_that_span_it(conversation):
    statistics = PrefixStatistics()
    for at in range(10):
        layout = read_layout(conversation(1, salt=str(at)))
        statistics.begin(layout, CachePlan(), now=at * 900.0)
    five_minutes, half_an_hour, hour = statistics.reuse(layout, 0, 9_000.0)[0]
    assert five_minutes < 0.2
    assert half_an_hour > 0.7
    assert half_an_hour == hour


def test_arrivals_before_the_first_answer_are_one_trial(conversation):
    crowd, alone = PrefixStatistics(), PrefixStatistics()
    layout = read_layout(conversation(1))
    for at in range(50):
        crowd.begin(layout, CachePlan(), now=at * 0.01)
    alone.begin(layout, CachePlan(), now=0.0)
    assert crowd.reuse(layout, 0, 1.0) == alone.reuse(layout, 0, 1.0)


def test_an_entry_is_warm_when_the_usage_shows_it_and_cold_again_when_it_expires(conversation, prices, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(1))
    plan = marked(layout, 0, prices)
    statistics.begin(layout, plan, now=0.0)
    assert statistics.deepest_warm(layout, sonnet, 1.0) is None
    statistics.observe(layout, sonnet, plan, TokenUsage(cache_write_5m=2_000, uncached_input=500), now=2.0)
    assert statistics.deepest_warm(layout, sonnet, 299.0) == 0
    assert statistics.deepest_warm(layout, sonnet, 300.0) is None
    assert statistics.deepest_warm(layout, HAIKU, 10.0) is None
    assert statistics.deepest_warm(layout, None, 10.0) == 0


def test_a_mark_that_cached_nothing_leaves_nothing_warm(conversation, prices, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(1))
    plan = marked(layout, 0, prices)
    statistics.begin(layout, plan, now=0.0)
    statistics.observe(layout, sonnet, plan, TokenUsage(uncached_input=2_500), now=2.0)
    assert statistics.deepest_warm(layout, sonnet, 3.0) is None


def test_a_read_renews_an_entry_for_its_own_lifetime(conversation, prices, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(1))
    hour = marked(layout, 0, prices, "1h")
    statistics.begin(layout, hour, now=0.0)
    statistics.observe(layout, sonnet, hour, TokenUsage(cache_write_1h=2_000), now=2.0)
    later = CachePlan((CacheBreakpoint(layout.boundaries[0].ref, "5m"),), prices=prices, at=3_000.0)
    statistics.begin(layout, later, now=3_000.0)
    statistics.observe(layout, sonnet, later, TokenUsage(cache_read=2_000), now=3_002.0)
    assert statistics.deepest_warm(layout, sonnet, 6_500.0) == 0


def test_affinity_is_what_reading_saves_on_this_call(conversation, prices, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(1))
    plan = marked(layout, 0, prices)
    statistics.begin(layout, plan, now=0.0)
    statistics.observe(layout, sonnet, plan, TokenUsage(cache_write_5m=layout.tokens), now=2.0)
    cheap = CachePrices(100_000, {}, 1_000_000)
    worth = statistics.affinity(layout, {sonnet: prices, HAIKU: cheap}, now=10.0)
    assert worth == {sonnet: layout.boundaries[0].tokens * 2_700_000 // 1_000, HAIKU: 0}


def test_a_failed_attempt_gives_back_what_it_risked(conversation, prices, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(1))
    before = statistics.write_allowance_picousd(0)
    plan = marked(layout, 0, prices)
    statistics.begin(layout, plan, now=0.0)
    assert statistics.write_allowance_picousd(0) == before - plan.write_risk_picousd
    assert statistics.is_pending(layout.boundaries[0].fingerprint, 1.0)
    statistics.observe(layout, sonnet, plan, None, now=1.0)
    assert statistics.write_allowance_picousd(0) == before
    assert not statistics.is_pending(layout.boundaries[0].fingerprint, 1.0)


def test_the_allowance_is_what_was_earned_and_a_share_of_all_input(conversation, prices, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(1))
    plan = CachePlan(prices=prices)
    statistics.begin(layout, plan, now=0.0)
    statistics.observe(layout, sonnet, plan, TokenUsage(uncached_input=1_000_000), now=1.0)
    assert statistics.write_allowance_picousd(0) == 1_000_000 * 3_000_000 // 100
    statistics.begin(layout, plan, now=2.0)
    statistics.observe(layout, sonnet, plan, TokenUsage(cache_read=1_000_000), now=3.0)
    assert statistics.write_allowance_picousd(0) == 2 * 30_000_000_000 + 1_000_000 * 2_700_000


def test_memory_is_bounded(conversation):
    statistics = PrefixStatistics(max_prefixes=10)
    for at in range(100):
        statistics.begin(read_layout(conversation(3, system=f"{at}" * 800)), CachePlan(), now=float(at))
    assert len(statistics._records) <= 10
    assert len(statistics._peers._groups) <= 1_024


def test_density_follows_the_usage_of_each_model(conversation, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(1))
    assert statistics.density(sonnet) is None
    for at in range(50):
        statistics.observe(layout, sonnet, CachePlan(), TokenUsage(uncached_input=layout.size // 2), now=float(at))
    assert statistics.density(sonnet) == pytest.approx(0.5, rel=0.01)
    assert statistics.density(HAIKU) is None


def test_a_dump_holds_fingerprints_and_counts_and_comes_back(conversation, prices, sonnet):
    statistics = PrefixStatistics()
    for at in range(6):
        layout = read_layout(conversation(1, salt=f"secret{at}"))
        plan = marked(layout, 0, prices)
        statistics.begin(layout, plan, now=at * 60.0)
        statistics.observe(layout, sonnet, plan, TokenUsage(cache_read=2_000), now=at * 60.0 + 1)
    data = statistics.dump()
    assert b"secret" not in data
    assert b"SSS" not in data
    loaded = PrefixStatistics.load(data)
    assert loaded.reuse(layout, 0, 400.0)[0][0] == pytest.approx(statistics.reuse(layout, 0, 400.0)[0][0], abs=0.1)
    assert loaded.density(sonnet) == statistics.density(sonnet)
    assert loaded.write_allowance_picousd(5) == statistics.write_allowance_picousd(5)


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"v": 2}', b"nonsense"])
def test_a_dump_of_another_version_is_refused(data):
    with pytest.raises(ValueError):
        PrefixStatistics.load(data)


def test_a_dump_is_small(conversation):
    statistics = PrefixStatistics()
    for at in range(2_000):
        statistics.begin(read_layout(conversation(1, system=f"{at}" * 600)), CachePlan(), now=float(at))
    data = statistics.dump()
    assert len(json.loads(data)["prefixes"]) == 512
    assert len(data) < 64_000
