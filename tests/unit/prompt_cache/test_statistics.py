from __future__ import annotations

import pytest

from llm_cost_middleware.prompt_cache.layout import read_layout
from llm_cost_middleware.prompt_cache.plan import CachePlan, CachePrices
from llm_cost_middleware.prompt_cache.planner import plan as plan_of
from llm_cost_middleware.prompt_cache.returns import within
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CacheBreakpoint, ModelRef
from llm_cost_middleware.usage import TokenUsage

HAIKU = ModelRef("anthropic", "claude-haiku-4-5")


def marked(layout, at, prices, ttl="5m"):
    boundary = layout.boundaries[at]
    marks = (CacheBreakpoint(boundary.ref, ttl),)
    return CachePlan(marks, prices=prices, at=0.0, write_risk_picousd=boundary.tokens * 750_000)


def odds(statistics, layout, at, now):
    """The odds of a boundary within each lifetime."""
    return within(statistics.estimate(layout, at, now)[0].odds)


def test_odds_rise_with_returns_and_fall_without(conversation):
    statistics = PrefixStatistics()
    seen = []
    for at in range(8):
        layout = read_layout(conversation(1, salt=str(at)))
        now = at * 60.0
        seen.append(odds(statistics, layout, 0, now)[0])
        statistics.begin(layout, CachePlan(), now=now)
    assert seen[0] > 0.22  # a head is worth a write on sight
    assert seen[1] > 0.5
    assert seen[-1] > 0.7
    assert odds(statistics, layout, 0, now + 10_000.0) < odds(statistics, layout, 0, now + 60.0)


def test_a_gap_counts_for_the_lifetimes_that_span_it(conversation):
    statistics = PrefixStatistics()
    for at in range(10):
        layout = read_layout(conversation(1, salt=str(at)))
        statistics.begin(layout, CachePlan(), now=at * 900.0)
    five_minutes, half_an_hour, hour = odds(statistics, layout, 0, 9_000.0)
    assert five_minutes < 0.2
    assert half_an_hour > 0.7
    assert half_an_hour == pytest.approx(hour, abs=0.1)


def test_arrivals_before_the_first_answer_are_one_trial(conversation):
    crowd, alone = PrefixStatistics(), PrefixStatistics()
    layout = read_layout(conversation(1))
    for at in range(50):
        crowd.begin(layout, CachePlan(), now=at * 0.01)
    alone.begin(layout, CachePlan(), now=0.0)
    assert odds(crowd, layout, 0, 1.0) == odds(alone, layout, 0, 1.0)


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
    before = statistics.insurance.allowance(0, 1.0)
    plan = marked(layout, 0, prices)
    statistics.begin(layout, plan, now=0.0)
    assert statistics.insurance.allowance(0, 1.0) == before - plan.write_risk_picousd
    assert statistics.is_pending(layout.boundaries[0].fingerprint, 1.0)
    statistics.observe(layout, sonnet, plan, None, now=1.0, billed=False)
    assert statistics.insurance.allowance(0, 1.0) == before
    assert not statistics.is_pending(layout.boundaries[0].fingerprint, 1.0)


def test_an_attempt_that_may_have_been_billed_loses_what_it_risked(conversation, prices, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(1))
    before = statistics.insurance.allowance(0, 1.0)
    plan = marked(layout, 0, prices)
    statistics.begin(layout, plan, now=0.0)
    statistics.observe(layout, sonnet, plan, None, now=1.0)
    assert statistics.insurance.allowance(0, 1.0) == before - plan.write_risk_picousd
    assert not statistics.is_pending(layout.boundaries[0].fingerprint, 1.0)


def test_where_no_usage_is_ever_known_the_writes_stay_within_the_first_allowance(conversation, prices, sonnet):
    ability = get_provider("anthropic").cache_capabilities(sonnet.model)
    statistics, written, cost = PrefixStatistics(), 0, 0
    for number in range(40):  # what no usage tells adds nothing to the allowance either
        layout, now = read_layout(conversation(1, salt=str(number), system=f"{number}" + "S" * 8_000)), 20.0 * number
        made = plan_of(layout, ability, prices, statistics, now=now, target=sonnet)
        statistics.begin(layout, made, now=now)
        statistics.observe(layout, sonnet, made, None, now=now + 2.0)
        written, cost = written + made.write_risk_picousd, layout.tokens * prices.uncached
    assert 0 < written <= 1.4 * cost


def test_the_allowance_is_what_was_earned_and_a_share_of_all_input(conversation, prices, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(1))
    plan = CachePlan(prices=prices)
    statistics.begin(layout, plan, now=0.0)
    statistics.observe(layout, sonnet, plan, TokenUsage(uncached_input=1_000_000), now=1.0)
    assert statistics.insurance.allowance(0, 1.0) == 1_000_000 * 3_000_000 // 100
    statistics.begin(layout, plan, now=2.0)
    statistics.observe(layout, sonnet, plan, TokenUsage(cache_read=1_000_000), now=3.0)
    assert statistics.insurance.allowance(0, 1.0) == 2 * 30_000_000_000 + 1_000_000 * 2_700_000


def test_memory_is_bounded(conversation):
    statistics = PrefixStatistics(max_prefixes=10)
    for at in range(100):
        statistics.begin(read_layout(conversation(3, system=f"{at}" * 800)), CachePlan(), now=float(at))
    assert len(statistics.records) <= 10
    assert len(statistics.peers._groups) <= 1_024


def test_density_follows_the_usage_of_each_model(conversation, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(1))
    assert statistics.density(sonnet) is None
    for at in range(50):
        statistics.observe(layout, sonnet, CachePlan(), TokenUsage(uncached_input=layout.size // 2), now=float(at))
    assert statistics.density(sonnet) == pytest.approx(0.5, rel=0.01)
    assert statistics.density(HAIKU) is None


def test_what_another_process_wrote_is_warm_once_the_usage_shows_it(conversation, prices, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(3))
    plan = CachePlan((CacheBreakpoint(layout.boundaries[-1].ref, "5m"),), prices=prices, at=100.0)
    statistics.begin(layout, plan, now=100.0)
    total, read = layout.tokens, layout.boundaries[layout.previous].tokens
    usage = TokenUsage(cache_read=read, cache_write_5m=total - read)
    statistics.observe(layout, sonnet, plan, usage, now=102.0)
    assert statistics.entry(layout.boundaries[layout.previous].fingerprint, sonnet, 103.0) is not None
    assert statistics.deepest_warm(layout, sonnet, 103.0) == len(layout.boundaries) - 1


def test_a_short_read_corrects_what_was_believed(conversation, prices, sonnet):
    statistics, layout = PrefixStatistics(), read_layout(conversation(3))
    marks = tuple(CacheBreakpoint(each.ref, "5m") for each in (layout.boundaries[0], layout.boundaries[-1]))
    plan = CachePlan(marks, prices=prices, at=0.0)
    read = layout.boundaries[0].tokens
    short = TokenUsage(cache_read=read, uncached_input=layout.tokens - read)
    for usage in (TokenUsage(cache_write_5m=layout.tokens), short):
        statistics.begin(layout, plan, now=plan.at)
        statistics.observe(layout, sonnet, plan, usage, now=plan.at + 2.0)
        plan = CachePlan(marks, prices=prices, at=60.0)
    assert statistics.deepest_warm(layout, sonnet, 70.0) == 0


def test_an_open_trial_is_no_failure_within_a_lifetime(conversation):
    """Ends of requests that have not come back yet count against the delays that have passed alone."""
    statistics = PrefixStatistics()
    for at in range(40):
        statistics.begin(read_layout(conversation(2, salt=str(at))), CachePlan(), now=10.0 * at)
    layout = read_layout(conversation(2, salt="new"))
    end = len(layout.boundaries) - 1
    five_minutes, _, hour = odds(statistics, layout, end, 400.0)
    assert five_minutes < 0.1
    assert hour > five_minutes + 0.05


def test_a_conversation_has_a_rhythm_of_its_own(conversation):
    """One that comes back after seven minutes each time, among others that come back at once."""
    statistics = PrefixStatistics()
    for talk in range(12):
        for turn in range(1, 4):
            statistics.begin(read_layout(conversation(turn, salt=f"{talk}")), CachePlan(), now=talk * 9.0 + turn)
    for turn in range(1, 5):
        now, layout = 1_000.0 + 420.0 * turn, read_layout(conversation(turn, salt="slow"))
        found = odds(statistics, layout, len(layout.boundaries) - 1, now)
        statistics.begin(layout, CachePlan(), now=now)
    assert found[0] < 0.4
    assert found[2] > 0.7


def test_turns_that_go_to_several_processes_are_seen_to_return(conversation, prices, sonnet):
    """Each of four processes sees every fourth turn; what another one wrote is read, and so has come back."""
    fleet = [PrefixStatistics() for _ in range(4)]
    call = 0
    for talk in range(12):
        for turn in range(1, 10):
            statistics, layout = fleet[call % 4], read_layout(conversation(turn, salt=f"{talk}", tools=1))
            plan = CachePlan((CacheBreakpoint(layout.boundaries[-1].ref, "5m"),), prices=prices, at=float(call))
            read = 0 if layout.previous is None else layout.boundaries[layout.previous].tokens
            statistics.begin(layout, plan, now=float(call))
            usage = TokenUsage(cache_read=read, cache_write_5m=layout.tokens - read)
            statistics.observe(layout, sonnet, plan, usage, now=call + 0.5)
            call += 1
    layout = read_layout(conversation(5, salt="new", tools=1))
    for statistics in fleet:
        assert odds(statistics, layout, len(layout.boundaries) - 1, call + 600.0)[0] > 0.6


def test_a_history_that_was_cut_is_no_return(conversation, prices, sonnet):
    """A window drops the first messages, so that no prefix ever comes back: nothing is read."""
    statistics = PrefixStatistics()
    for at in range(60):
        layout = read_layout(conversation(4, salt=f"{at}"))
        plan = CachePlan((CacheBreakpoint(layout.boundaries[-1].ref, "5m"),), prices=prices, at=at * 20.0)
        statistics.begin(layout, plan, now=plan.at)
        statistics.observe(layout, sonnet, plan, TokenUsage(cache_write_5m=layout.tokens), now=plan.at + 2.0)
    layout = read_layout(conversation(4, salt="new"))
    assert odds(statistics, layout, len(layout.boundaries) - 1, 1_300.0)[0] < 0.2
