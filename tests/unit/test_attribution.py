"""``[attribution]``: what it takes, and what it refuses."""

import pickle

import pytest

from llm_cost_middleware import ConfigurationError, CostConfig
from llm_cost_middleware.budget.rules.names import write_name
from llm_cost_middleware.errors import AttributionError
from llm_cost_middleware.lifecycle.attribution import AttributionConfig

TEAMS = {"team": ["search", "Ads", "svc-*"]}


def refusal(rule, name):
    (gap,) = rule.attributed((f"team:{name}",)).gaps
    return rule.error(gap)


@pytest.mark.parametrize(
    "section",
    [
        {"require": "team"},
        {"require": ["model"]},
        {"require": ["Team"]},
        {"names": ["search"]},
        {"names": {"team": "search"}},
        {"names": {"provider": ["openai"]}},
        {"require": ["team"], "on_missing": "drop"},
        {"require": ["team", "site"], "on_missing": "team:unassigned"},
        {"normalise": "upper"},
        {"required": ["team"]},
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_key(section):
    with pytest.raises(ConfigurationError, match=r"attribution|scope"):
        CostConfig.from_mapping({"attribution": section})


def test_without_the_section_nothing_changes():
    scopes = ("team:Cafe%CC%81", "user:7")
    assert AttributionConfig().attributed(scopes) == (scopes, ())


def test_only_the_kinds_of_the_section_are_written_by_the_rule():
    """Ids of users may differ by case alone."""
    rule = AttributionConfig(require=["team"], normalise="case")
    assert rule.attributed(("team:SEARCH", "user:aB")).scopes == ("team:search", "user:aB")
    assert rule.scope("team:*") == "team:*"
    for text in ("ǰ", "ﬁ", "ß"):
        once = write_name(text, "case")
        assert write_name(once, "case") == once


@pytest.mark.parametrize(
    ("name", "nearest"), [("serach", "search"), ("SEARCH", "search"), ("ads", "Ads"), ("zebra", None), ("svc", None)]
)
def test_a_refusal_names_the_nearest(name, nearest):
    error = refusal(AttributionConfig(names=TEAMS), name)
    assert error.nearest[:1] == ((nearest,) if nearest else ())
    assert (nearest or "search, Ads, svc-*") in str(error)


def test_a_name_of_any_length_is_not_repeated_whole():
    assert len(str(AttributionError("team", "x" * 10_000))) < 500


def test_patterns_and_the_stand_in_are_known():
    rule = AttributionConfig(require=["team"], names=TEAMS, on_missing="team:nobody")
    assert rule.attributed(("team:svc-a%20b", "team:nobody")).gaps == ()
    assert rule.filled(rule.attributed(("user:1",))) == ("user:1", "team:nobody")
    assert rule.refuses(rule.attributed(("team:serach",)).gaps[0]), "a wrong name is no missing one"


def test_budgets_are_written_by_the_rule():
    config = CostConfig.from_mapping(
        {
            "attribution": {"names": {"team": ["search"]}, "normalise": "case"},
            "budgets": [{"scope": "team:SEARCH", "limit": 1, "reserve": {"team:Search": 0.5}}],
        }
    )
    assert (config.budgets[0].scope, config.budgets[0].shares[0][0]) == ("team:search", "team:search")
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - what was dumped here


def test_a_configuration_of_the_environment_reads_it_too(tmp_path):
    path = tmp_path / "llm-cost.toml"
    path.write_text("[attribution]\nrequire = ['team']\nnames = {team = ['search']}\non_missing = 'warn'\n")
    config = CostConfig.from_toml(path, env={"LLM_COST_ATTRIBUTION__NORMALISE": "case"})
    assert (config.attribution.require, config.attribution.normalise) == (("team",), "case")


@pytest.mark.parametrize("names", [{}, {"team": ["search"]}])
def test_under_deny_nobody_is_named_nobody(names):
    rule = AttributionConfig(require=["team"], names=names, normalise="case")
    for name in ("unassigned", "Unassigned"):
        (gap,) = rule.attributed((f"team:{name}",)).gaps
        assert rule.refuses(gap)
        assert rule.filled(rule.attributed((f"team:{name}",))) == ("team:unassigned",)
    assert not AttributionConfig(require=["team"], names=names, on_missing="warn").attributed(("team:unassigned",)).gaps


@pytest.mark.parametrize("two", [("team:Search", "team:SEARCH"), ("model:gpt-5", "model:openai/gpt-5")])
def test_two_spellings_of_one_budget_are_refused(two):
    """Otherwise the last one would hold, in silence."""
    with pytest.raises(ConfigurationError, match="two budgets for scope"):
        CostConfig(
            attribution={"names": {"team": ["search"]}, "normalise": "case"},
            budgets=[{"scope": scope, "limit": limit} for limit, scope in enumerate(two, 1)],
        )
