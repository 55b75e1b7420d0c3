from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import pytest

from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.complexity import STAT_NAMES, head_and_tail, ngram_hashes, text_stats
from llm_cost_middleware.routing.learned import LearnedPolicy, SiteTerm, digest, pack_weights, unpack_weights
from llm_cost_middleware.routing.policy import RoutingPolicy


@pytest.fixture
def learned(models):
    """A policy that has learned one thing: proofs are hard."""
    (bucket,) = set(ngram_hashes("prove"))
    policy = LearnedPolicy(
        version="",
        weak=models["mini"],
        strong=models["gpt"],
        threshold=0.25,
        intercept=0.0,
        sites=MappingProxyType({"maths": SiteTerm(0.0, None, 90), "poems": SiteTerm(-1.0, 0.5, 70)}),
        stat_weights=(),
        weights=MappingProxyType({bucket: (1.0, 1.0)}),
    )
    return replace(policy, version=digest(policy))


@pytest.fixture
def policy(learned, tiers):
    return RoutingPolicy.from_mapping(
        {"policy": "learned", "policy_file": "p.json"}, tiers, read_file=lambda _: learned.dump()
    )


def test_a_learned_policy_sends_what_it_knows_to_be_hard_upwards(route, ask, models, policy):
    hard = route(ask("Prove it", context={"call_site": "maths"}), policy)
    easy = route(ask("Add it", context={"call_site": "maths"}), policy)
    assert (hard.target, easy.target) == (models["gpt"], models["mini"])
    assert hard.reason == "expected gain of the stronger model +1.000 ≥ +0.250 at maths"
    assert hard.policy_version.startswith("learned:")


def test_a_site_has_its_own_bias_and_threshold(learned):
    assert learned.score("Prove it", "maths") == (1.0, 0.25)
    assert learned.score("Prove it", "poems") == (0.0, 0.5)


def test_where_it_has_no_labels_the_text_decides_as_it_did_where_the_policy_was_judged(route, ask, policy, learned):
    alone = learned.score("Prove it", "maths").score - learned.sites["maths"].bias
    assert learned.score("Prove it", "elsewhere") == (alone, learned.threshold)
    decision = route(ask("Prove it", context={"call_site": "elsewhere"}), policy)
    assert (decision.score, decision.policy) == (alone, "learned")


def test_labels_without_sites_cover_every_site(learned):
    anywhere = replace(learned, sites=MappingProxyType({"*": SiteTerm(0.0)}))
    assert anywhere.score("Prove it", "elsewhere").score == 1.0


def test_text_and_log_give_the_same_score(learned):
    shaped = replace(learned, stat_weights=(0.1,) * len(STAT_NAMES))
    text = "Prove that " * 400
    kept = head_and_tail(text)
    assert shaped.score_counts(ngram_hashes(kept), text_stats(kept), "maths") == shaped.score(text, "maths")
    assert shaped.score_counts(ngram_hashes(kept), (), "maths") is None  # an older log has no shape


FILE = {
    "format": 1,
    "weak": "openai/gpt-5-mini",
    "strong": "openai/gpt-5.1",
    "fitted": {"labels": 40},
    "threshold": 0.125,
    "intercept": -0.25,
    "sites": {"maths": {"bias": 0.5, "labels": 40}},
    "shape": {
        "length": 0.01, "words": 0.02, "lines": 0.03, "digits": 0.04, "operators": 0.05, "brackets": 0.06, "tex": 0.07,
        "code": 0.08, "questions": 0.09, "capitals": 0.1, "foreign": 0.11,
    },
    "grams": "eNqr38HAkL6VgaHFg4GhZy4jg5YxAwODBRw6wCAAr6EG/w==",
}  # fmt: skip


def test_a_file_of_format_1_keeps_its_keys_its_version_and_its_scores():
    policy = LearnedPolicy.parse(json.dumps(FILE))
    assert policy.version == "9589ada42a"
    assert policy.score("Prove the theorem of ABBA, 42?", "maths") == (1.3780160055120367, 0.125)
    assert json.loads(policy.dump()) == FILE


def test_a_policy_file_survives_its_text(learned):
    assert LearnedPolicy.parse(learned.dump()) == learned


def test_the_version_changes_with_what_decides_and_only_with_that(learned):
    assert digest(replace(learned, threshold=0.3)) != learned.version
    assert digest(replace(learned, fitted=MappingProxyType({"labels": 5}))) == learned.version


def test_weights_are_packed_to_half_precision():
    weights = {0: (0.5, 1.0), 7: (-0.25, 2.0), (1 << 18) - 1: (0.125, 30.0)}
    assert unpack_weights(pack_weights(weights)) == weights
    assert unpack_weights(pack_weights({})) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3},
        {"format": None},
        {"weak": "gpt-5-mini"},
        {"threshold": "high"},
        {"threshold": float("nan")},
        {"intercept": True},
        {"sites": []},
        {"sites": {"a": {}}},
        {"grams": "!!!"},
        {"grams": "AAAA"},
        {"shape": 3},
    ],
)
def test_a_damaged_policy_file_is_refused(learned, change):
    document = json.loads(learned.dump()) | change
    with pytest.raises(ConfigurationError):
        LearnedPolicy.parse(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "threshold = 3", "{}"])
def test_what_is_no_policy_file_is_refused(text):
    with pytest.raises(ConfigurationError, match="policy_file"):
        LearnedPolicy.parse(text)


@pytest.mark.parametrize(
    ("place", "key", "nearest"),
    [((), "treshold", "threshold"), (("sites", "maths"), "bais", "bias"), (("shape",), "lenght", "length")],
)
def test_a_misspelt_key_in_a_policy_file_names_the_right_one(learned, place, key, nearest):
    document = json.loads(learned.dump())
    table = document
    for step in place:
        table = table[step]
    table[key] = 1.0
    with pytest.raises(UnknownKeyError) as caught:
        LearnedPolicy.parse(json.dumps(document))
    assert caught.value.nearest[0] == nearest


def test_a_policy_of_another_pair_is_refused(learned, tiers):
    for pair, what in (
        ({"weak": ModelRef("openai", "gpt-3")}, "in no tier"),
        ({"weak": learned.strong, "strong": learned.weak}, "order them otherwise"),
    ):
        with pytest.raises(ConfigurationError, match=what):
            replace(learned, **pair).bound_to([(tier.name, tier.models) for tier in tiers])
