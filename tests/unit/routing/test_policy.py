from __future__ import annotations

import random

import pytest

from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.routing.features import read_features
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.rules import PolicyInput
from llm_cost_middleware.routing.selection import select_tier


def choose(policy, request, *, n_tiers=2, seed=0, explore=True, budget_left=None, now=0.0):
    given = PolicyInput(read_features(request), request, "", budget_left, now)
    return select_tier(policy, given, n_tiers, random.Random(seed) if explore else None)


@pytest.mark.parametrize(
    ("length", "items", "tier"),
    [(0, 0, 0), (9_999, 29, 0), (10_000, 1, 1), (1, 30, 1), (10_000, 30, 1), (10**7, 10**4, 1)],
)
def test_the_classic_rule(length, items, tier):
    assert RoutingPolicy().is_large(length, items) == tier


def test_the_default_policy_is_the_classic_rule_and_reports_its_features(ask):
    short, long, many = ask("x" * 9_999), ask("x" * 10_000), ask("x", context={"item_count": 30})
    assert choose(RoutingPolicy(), short).reason == "9,999 characters < 10,000 and 1 item < 30"
    assert (choose(RoutingPolicy(), long).tier, choose(RoutingPolicy(), long).score) == (1, 1.0)
    assert choose(RoutingPolicy(), many).reason == "30 items ≥ 30"


def test_floor_and_ceiling_bound_the_tier_and_report_it(ask):
    policy = RoutingPolicy(floor=1, tiers=("small", "middle", "large"))
    assert choose(policy, ask("x"), n_tiers=3).tier == 1
    assert choose(policy, ask("x" * 10_000), n_tiers=3).tier == 2
    capped = choose(RoutingPolicy(ceiling=0, tiers=("small", "large")), ask("x" * 10_000))
    assert capped.tier == 0
    assert capped.reason.endswith("the ceiling makes it small")


def test_a_single_tier_takes_everything(ask):
    assert choose(RoutingPolicy(floor=1), ask("x" * 10_000), n_tiers=1).tier == 0


def rules(tiers, *entries):
    return RoutingPolicy.from_mapping({"policy": "rules", "rules": list(entries)}, tiers)


def test_the_first_rule_that_matches_decides(ask, tiers):
    policy = rules(
        tiers,
        {"tier": "small", "when": {"tag": "nightly", "budget_left": "< 0.1"}},
        {"tier": "large", "when": {"tag": "vip*"}},
        {"tier": "large", "when": {"text_length": ">= 4000", "hour": ">= 8"}},
    )
    nine, three = 9 * 3600.0, 3 * 3600.0
    assert choose(policy, ask("x", context={"tags": ("vip-7",)})).tier == 1
    assert choose(policy, ask("x" * 4000), now=nine).tier == 1
    assert choose(policy, ask("x" * 4000), now=three).tier == 0  # no rule matches: the threshold rule
    starved = choose(policy, ask("x" * 20_000, context={"tags": ("nightly",)}), now=nine, budget_left=0.05)
    assert (starved.tier, starved.policy) == (0, "rules")
    assert "budget_left < 0.1" in starved.reason


def test_an_unknown_budget_matches_no_rule_on_it(ask, tiers):
    policy = rules(tiers, {"tier": "large", "when": {"budget_left": ">= 0"}})
    assert choose(policy, ask("x")).tier == 0
    assert choose(policy, ask("x"), budget_left=0.0).tier == 1


def test_weekdays_count_from_monday(ask, tiers):
    policy = rules(tiers, {"tier": "large", "when": {"weekday": "< 5"}})
    sunday, monday = 3 * 86_400.0, 4 * 86_400.0  # the epoch was a Thursday
    assert [choose(policy, ask("x"), now=day).tier for day in (sunday, monday)] == [0, 1]


def test_sites_have_policies_of_their_own_by_name_or_glob(ask, tiers):
    policy = RoutingPolicy.from_mapping(
        {"text_threshold": 500, "sites": {"legal": {"floor": "large"}, "chat-*": {"text_threshold": 50}}}, tiers
    )
    assert policy.for_site("legal").floor == 1
    assert policy.for_site("chat-eu").text_threshold == 50
    assert policy.for_site("other").text_threshold == 500
    assert policy.for_site("legal").text_threshold == 500  # what a site does not say, it inherits


def test_the_version_names_the_policy_that_decided(tiers):
    versions = [
        RoutingPolicy.from_mapping(mapping, tiers).version
        for mapping in ({}, {"text_threshold": 5}, {"floor": "large"}, {"policy": "cascade"}, {"explore": 0.1})
    ]
    assert len(set(versions)) == len(versions)
    assert versions[0] == RoutingPolicy(tiers=("other", "names")).version
    assert versions[0].startswith("threshold:")


def test_exploration_is_logged_with_its_propensity(ask):
    policy = RoutingPolicy(explore=0.2)
    seen = [choose(policy, ask("x"), seed=seed) for seed in range(2_000)]
    explored = [choice for choice in seen if choice.tier == 1]
    assert 0.07 < len(explored) / len(seen) < 0.13
    assert {round(choice.propensity, 9) for choice in explored} == {0.1}
    assert {round(choice.propensity, 9) for choice in seen if choice.tier == 0} == {0.9}
    assert sum(1 / choice.propensity for choice in seen) / len(seen) == pytest.approx(2, abs=0.2)  # both arms, unbiased


def test_exploration_stops_when_the_budget_runs_low_and_inside_conversations(ask):
    policy = RoutingPolicy(explore=1.0)
    for facts in ({"budget_left": 0.1}, {"explore": False}):
        choices = [choose(policy, ask("x"), seed=seed, **facts) for seed in range(50)]
        assert {(choice.tier, choice.propensity) for choice in choices} == {(0, 1.0)}


def test_exploration_respects_floor_and_ceiling(ask):
    policy = RoutingPolicy(explore=1.0, floor=1, ceiling=2)
    choices = {choose(policy, ask("x"), n_tiers=4, seed=seed).tier for seed in range(60)}
    assert choices == {1, 2}


UNUSABLE = (
    ({"policy": "magic"}, "routing.policy"),
    ({"text_threshold": 0}, "routing.text_threshold"),
    ({"text_threshold": "ten"}, "routing.text_threshold"),
    ({"item_threshold": True}, "routing.item_threshold"),
    ({"explore": 1.5}, "routing.explore"),
    ({"explore": True}, "routing.explore"),
    ({"floor": "huge"}, "routing.floor"),
    ({"floor": "large", "ceiling": "small"}, "routing.floor"),
    ({"policy": "learned"}, "routing.policy_file"),
    ({"policy": "rules"}, "routing.rules"),
    ({"rules": {"tier": "large"}}, "routing.rules"),
    ({"rules": [{"tier": "huge"}]}, "routing.rules.0.tier"),
    ({"rules": [{"tier": "large", "when": {"turns": "many"}}]}, "routing.rules.0.when.turns"),
    ({"rules": [{"tier": "large", "when": {"site": 7}}]}, "routing.rules.0.when.site"),
    ({"sites": ["a"]}, "routing.sites"),
    ({"accept": "faith"}, "routing.accept"),
    ({"patience": "soon"}, "routing.patience"),
    ({"regions": 3}, "routing.regions"),
)


@pytest.mark.parametrize(("mapping", "key"), UNUSABLE)
def test_what_cannot_be_used_is_refused_by_name(mapping, key, tiers):
    with pytest.raises(ConfigurationError) as caught:
        RoutingPolicy.from_mapping(mapping, tiers)
    assert caught.value.key == key
    if "sites" not in mapping:  # a call site's own is named where it stands
        with pytest.raises(ConfigurationError) as caught:
            RoutingPolicy.from_mapping({"sites": {"nightly": mapping}}, tiers)
        assert caught.value.key == key.replace("routing.", "routing.sites.nightly.", 1)


@pytest.mark.parametrize(
    ("mapping", "nearest"),
    [
        ({"text_treshold": 5}, "text_threshold"),
        ({"sites": {"a": {"celing": "small"}}}, "ceiling"),
        ({"rules": [{"tier": "large", "when": {"text_lenght": ">= 1"}}]}, "text_length"),
        ({"rules": [{"teir": "large"}]}, "tier"),
    ],
)
def test_a_misspelt_key_names_the_one_that_was_meant(mapping, nearest, tiers):
    with pytest.raises(UnknownKeyError) as caught:
        RoutingPolicy.from_mapping(mapping, tiers)
    assert caught.value.nearest[0] == nearest
