from __future__ import annotations

from dataclasses import replace

import pytest

from llm_cost_middleware.errors import NoEligibleModelError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import ModelRef, Part, ServerTool
from llm_cost_middleware.routing.history import SiteHistory
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.router import downgrade, fallbacks, provider_of
from llm_cost_middleware.routing.rules import parse_rules
from llm_cost_middleware.routing.sites import call_site

TIERED = {"tiers": ("small", "large")}


def test_the_cheapest_of_the_tier_takes_the_call(route, ask, models):
    assert route(ask("x")).target == models["mini"]
    assert route(ask("x" * 10_000)).target == models["gpt"]


def test_expected_cost_is_of_this_call(route, ask, models):
    decision = route(ask("x" * 4_000))  # 1,000 tokens in, 512 out, at 0.25 and 2 dollars a million
    assert decision.expected_nanousd == 1_000 * 250 + 512 * 2_000


def test_history_of_the_site_decides_between_cheap_input_and_cheap_output(route, ask, models, make_candidate):
    request = ask("x" * 40_000)
    talker = make_candidate(models["mini"], 0, input_picousd=10**6, output_picousd=10**6)
    reader = make_candidate(models["haiku"], 0, input_picousd=5 * 10**5, output_picousd=20 * 10**6)
    history = SiteHistory()
    for _ in range(20):
        history.observe(call_site(request), talker.target, 10)
    assert route(request, candidates=[talker, reader]).target == models["mini"]  # 512 tokens assumed
    assert route(request, candidates=[talker, reader], history=history).target == models["haiku"]


def test_a_warm_cache_is_counted(route, ask, models):
    decision = route(ask("x" * 4_000), affinity={models["haiku"]: 10**9})
    assert decision.target == models["haiku"]
    assert decision.expected_nanousd == 0  # a cache saves at most what the call costs


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("openai/gpt-5.1", ModelRef("openai", "gpt-5.1")),
        ("claude-opus-4-5", ModelRef("anthropic", "claude-opus-4-5")),
        ("gpt-4o", ModelRef("openai", "gpt-4o")),
        ("o3-mini", ModelRef("openai", "o3-mini")),
        ("gpt-5-mini", ModelRef("openai", "gpt-5-mini")),
        ("my-finetune", ModelRef("anthropic", "my-finetune")),
    ],
)
def test_a_forced_model_wins_over_everything_unvalidated(route, ask, name, target):
    request = ask("x" * 99_999, context={"forced_model": name, "call_site": "s"})
    decision = route(request, RoutingPolicy(floor=1), candidates=[])
    assert (decision.target, decision.policy, decision.tier) == (target, "force", -1)
    assert name in decision.explain()
    assert fallbacks(decision) == downgrade(decision) == ()


def test_a_pinned_model_is_not_routed(route, ask, models):
    decision = route(ask("x" * 99_999, model_pinned=True, model="claude-haiku-4-5-20251001"))
    assert (decision.target, decision.policy) == (models["haiku"], "pinned")
    assert fallbacks(decision) == ()


def test_prefixes_name_the_provider():
    assert provider_of("claude-x") == "anthropic"
    assert provider_of("gpt-9") == provider_of("o1") == "openai"
    assert provider_of("llama") is None


@pytest.mark.parametrize(
    ("fields", "changes", "reason"),
    [
        ({}, {"unavailable": "no key in OPENAI_API_KEY"}, "no key in OPENAI_API_KEY"),
        ({"tools": ("t",)}, {"capabilities": frozenset()}, "cannot take tools"),
        ({"extra": (Part("image"),)}, {"capabilities": frozenset({"tools"})}, "cannot take images"),
        ({"output_schema": "{}"}, {"capabilities": frozenset()}, "cannot take schema"),
        ({"max_tokens": 9_000}, {"max_output": 8_192}, "gives at most 8,192 output tokens, 9,000 asked for"),
        ({"text": "x" * 4_000}, {"context_window": 999}, "about 1,000 tokens do not fit its window of 999"),
        ({"has_server_side_context": True}, {}, "the request refers to context stored at anthropic"),
        ({"server_tools": (ServerTool("web_search"),)}, {}, "the request uses server tools of anthropic"),
    ],
)
def test_what_cannot_take_the_call_is_rejected_with_its_reason(
    route, ask, models, make_candidate, fields, changes, reason
):
    fleet = [make_candidate(models["mini"], 0, **changes), make_candidate(models["haiku"], 0)]
    decision = route(ask(**fields), candidates=fleet)
    assert decision.target == models["haiku"]
    assert decision.candidates[0].rejected == reason
    assert f"not openai/gpt-5-mini ({reason})" in decision.explain()


def test_no_eligible_model_names_every_candidate(route, ask, fleet):
    dead = [replace(candidate, unavailable="no key") for candidate in fleet]
    with pytest.raises(NoEligibleModelError) as caught:
        route(ask("x"), candidates=dead)
    assert set(caught.value.reasons) == {str(candidate.target) for candidate in fleet}
    assert set(caught.value.reasons.values()) == {"no key"}
    with pytest.raises(NoEligibleModelError, match="no candidates configured"):
        route(ask("x"), candidates=[])


def test_an_empty_tier_is_replaced_by_a_higher_one_first_with_the_reason(route, ask, fleet, models):
    without_small = [replace(c, unavailable="no key") if c.tier == 0 else c for c in fleet]
    decision = route(ask("x"), candidates=without_small)
    assert decision.target == models["gpt"]
    assert "no model of small may take it, so large" in decision.reason
    without_large = [replace(c, unavailable="no key") if c.tier == 1 else c for c in fleet]
    assert route(ask("x" * 10_000), candidates=without_large).target == models["mini"]


def test_a_model_beyond_the_budget_is_replaced_where_another_fits(route, ask, models):
    request = ask("x" * 10_000)
    cheap = route(request, RoutingPolicy(ceiling=0, **TIERED)).expected_nanousd
    assert route(request, available=NanoUSD(cheap)).target == models["mini"]
    assert route(request, available=NanoUSD(0)).target == models["gpt"]  # nothing fits: the ledger is to say so


def test_the_floor_holds_against_the_budget_too(route, ask, models):
    decision = route(ask("x" * 10_000), RoutingPolicy(floor=1, **TIERED), available=NanoUSD(1))
    assert decision.tier == 1
    assert downgrade(decision) == ()


def test_fallbacks_prefer_the_same_tier_at_another_provider(route, ask, models):
    assert fallbacks(route(ask("x"))) == (models["haiku"], models["sonnet"], models["gpt"])
    assert fallbacks(route(ask("x" * 10_000))) == (models["sonnet"], models["haiku"], models["mini"])


def test_downgrades_are_cheaper_and_strongest_first(route, ask, models):
    decision = route(ask("x" * 10_000), affinity={models["sonnet"]: 10**9})
    assert decision.target == models["sonnet"]
    assert downgrade(decision) == ()
    assert downgrade(route(ask("x" * 10_000))) == (models["mini"], models["haiku"])


def test_a_conversation_stays_where_its_cache_is_worth_more_than_the_switch(route, ask, models):
    request, history = ask("x" * 4_000), SiteHistory()
    for _ in range(5):
        history.observe(call_site(request), models["sonnet"], 512)
    cold_sonnet, cold_mini = 1_000 * 3_000 + 512 * 15_000, 1_000 * 250 + 512 * 2_000
    saved = cold_sonnet - cold_mini
    facts = {"sticky": models["sonnet"], "history": history}
    stays = route(request, affinity={models["sonnet"]: saved}, **facts)
    leaves = route(request, affinity={models["sonnet"]: saved - 1}, **facts)
    assert stays.target == models["sonnet"]
    told = f"a switch to openai/gpt-5-mini saves {NanoUSD(saved)} and loses a warm cache worth {NanoUSD(saved)}"
    assert told in stays.reason
    assert leaves.target == models["mini"]
    assert "leaves anthropic/claude-sonnet-4-6: the switch saves" in leaves.reason


def test_a_switch_must_pay_even_if_the_answer_is_short(route, ask, models):
    request, input_saved = ask("x" * 4_000), 1_000 * (3_000 - 250)
    steady, wild = SiteHistory(), SiteHistory()
    for number in range(20):
        steady.observe(call_site(request), models["sonnet"], 500)
        wild.observe(call_site(request), models["sonnet"], 1_000 * (number % 2))
    facts = {"sticky": models["sonnet"], "affinity": {models["sonnet"]: input_saved}}
    assert route(request, history=steady, **facts).target == models["mini"]
    for history in (None, wild):
        assert route(request, history=history, **facts).target == models["sonnet"]


@pytest.mark.parametrize(
    ("policy", "request_facts"),
    [
        (RoutingPolicy(), {"text": "x" * 10_000}),
        (
            RoutingPolicy(kind="rules", rules=parse_rules([{"tier": 1, "when": {"tag": "proof"}}], ())),
            {"context": {"tags": ("proof",)}},
        ),
        (
            RoutingPolicy(kind="rules", rules=parse_rules([{"tier": 1, "when": {"site": "legal"}}], ())),
            {"context": {"call_site": "legal"}},
        ),
        (RoutingPolicy(floor=1), {}),
    ],
)
def test_a_policy_moves_a_conversation_up_at_any_turn_and_says_what_cache_is_lost(
    route, ask, models, policy, request_facts
):
    decision = route(ask(**request_facts), policy, sticky=models["mini"], affinity={models["mini"]: 10**6})
    assert decision.tier == 1
    if policy.floor is None:  # below a floor it may not take the call at all
        assert f"a warm cache worth {NanoUSD(10**6)}" in decision.reason


def test_a_conversation_does_not_move_to_a_dearer_model_of_its_own_tier(route, ask, models):
    decision = route(ask("x"), sticky=models["mini"], affinity={models["haiku"]: 0})
    assert decision.target == models["mini"]


def test_a_conversation_leaves_a_model_that_cannot_take_the_call(route, ask, models, fleet):
    broken = [replace(c, capabilities=frozenset()) if c.target == models["haiku"] else c for c in fleet]
    decision = route(ask("x", tools=("t",)), candidates=broken, sticky=models["haiku"])
    assert decision.target == models["mini"]
    assert "of this conversation may not take it" in decision.reason


def test_there_is_no_exploration_inside_a_conversation(route, ask, models):
    policy = RoutingPolicy(explore=1.0)
    decisions = [route(ask("x"), policy, seed=seed, sticky=models["mini"]) for seed in range(30)]
    assert {decision.propensity for decision in decisions} == {1.0}


def test_grams_and_shape_are_kept_only_where_learning_is_on(route, ask):
    assert route(ask("some words")).ngrams == route(ask("some words")).text_stats == ()
    learning = route(ask("some words"), RoutingPolicy(explore=0.5))
    assert len(learning.ngrams) == 3
    assert "words" not in learning.to_json().replace('"words"', "")


def test_what_learning_needs_is_kept_at_the_sites_that_explore_and_at_no_other(route, ask):
    policy = RoutingPolicy.from_mapping({"sites": {"faq": {"explore": 0.5}}})
    assert route(ask("some words", context={"call_site": "faq"}), policy).ngrams
    assert route(ask("some words", context={"call_site": "faq"}, model_pinned=True), policy).ngrams
    assert not route(ask("some words", context={"call_site": "other"}), policy).ngrams


def test_a_cascade_asks_cheap_first_only_where_it_pays(route, ask, models):
    policy = RoutingPolicy(kind="cascade", **TIERED)
    request = ask("x")
    assert route(request, policy).target == models["mini"]
    history = SiteHistory()
    for _ in range(40):
        history.observe(call_site(request), models["mini"], accepted=False)
    decision = route(request, policy, history=history)
    assert decision.target == models["gpt"]
    assert "does not pay at plain: 0% of 40 accepted" in decision.reason


def test_waiting_has_a_price_in_a_cascade(route, ask, models):
    request, history = ask("x"), SiteHistory()
    for number in range(40):
        history.observe(call_site(request), models["mini"], 512, seconds=3.0, accepted=number % 2 == 0)
    patient = RoutingPolicy(kind="cascade", **TIERED)
    hurried = RoutingPolicy(kind="cascade", wait_usd_s="0.01", **TIERED)
    assert route(request, patient, history=history).target == models["mini"]
    assert route(request, hurried, history=history).target == models["gpt"]


@pytest.mark.parametrize("explore", [0.2, 1.0])
def test_a_drawn_tier_that_may_not_take_the_call_adds_its_chance_to_the_one_that_does(route, ask, fleet, explore):
    weak_only = [candidate for candidate in fleet if candidate.tier == 0]
    blocked = [replace(candidate, unavailable="no key") if candidate.tier else candidate for candidate in fleet]
    policy = RoutingPolicy(explore=explore, tiers=("small", "large"))
    for seed in range(20):
        for candidates in (blocked, weak_only):
            decision = route(ask("x"), policy, candidates=candidates, seed=seed)
            assert (decision.tier, decision.propensity) == (0, pytest.approx(1.0))
        free = route(ask("x"), policy, seed=seed)
        assert free.propensity == pytest.approx(explore / 2 if free.tier else 1 - explore / 2)
