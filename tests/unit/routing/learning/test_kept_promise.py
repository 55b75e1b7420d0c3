"""What is judged is what is deployed: one score and one cost a call, in fitting, in replay and on the hot path."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.decision_log import LoggedCall, Outcome, QualitySource, Settlement
from llm_cost_middleware.routing.learned import LearnedPolicy
from llm_cost_middleware.routing.learning.labels import label_text, labels_from_log
from llm_cost_middleware.routing.learning.replay import choose_again, held_out_choices, replay
from llm_cost_middleware.routing.learning.tuning import tune
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.sites import read_site

pytest.importorskip("sklearn")
from llm_cost_middleware.routing.learning.fitting import design_of, fit, to_policy

WEAK, STRONG = ModelRef("openai", "gpt-5-mini"), ModelRef("openai", "gpt-5.1")
TIERED = {"tiers": ("small", "large")}
NAMES = ["Anna", "Bo Berg", "Cy", "Dee McDonald", "Edgar"]
WORDS = ["alpha", "beta", "gamma", "delta", "prove", "theorem", "list", "name", "order", "total", "why", "how"]
SITES = ("a", "b", "c", "never seen")
GROUPS = {"a": ("alike:1", "task:1"), "b": ("alike:1", "task:1"), "c": ("task:1",), "never seen": ("alike:1", "task:9")}


def labels_of(seed, n=120, sites=SITES[:3]):
    rng = random.Random(seed)
    return [
        label_text(
            " ".join(rng.choices(WORDS, k=8)), float(rng.random() < 0.5), 1.0, 10, 50, site := rng.choice(sites)
        )._replace(groups=GROUPS[site])
        for _ in range(n)
    ]


FITTED = labels_of(0)
DESIGN = design_of(FITTED)
POLICY = LearnedPolicy.parse(to_policy(fit(DESIGN, list(range(len(FITTED)))), DESIGN, WEAK, STRONG, 0.1).dump())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), st.sampled_from(SITES))
def test_fitting_the_file_the_log_and_the_hot_path_score_alike(words, site):
    text = " ".join(words)
    label = label_text(text, 0.0, 0.0, 1, 1, site)._replace(groups=GROUPS[site])
    together = design_of([*FITTED, label])
    # fitted without the last row, as a fold is: a site of which no label was seen included
    judged = fit(together, list(range(len(FITTED)))).scores(together, [len(FITTED)])[0]
    deployed = POLICY.score(text, site, label.groups)
    assert deployed.score == pytest.approx(judged, abs=2e-2)  # weights are kept in half precision
    assert POLICY.score_counts(label.ngrams, label.text_stats, site, label.groups) == deployed


def test_a_new_name_in_the_instructions_is_judged_by_the_sites_alike(route, ask):
    rng, labels = random.Random(2), []
    for number in range(300):
        hard = number % 2
        system = f"{'Prove it to' if hard else 'List it for'} somebody. {rng.choice(NAMES)} is here."
        request = ask("order total", system=system)
        site = read_site(request)
        label = label_text("order total", float(not hard), 1.0, 10, 50, f"exact {number}")
        labels.append(label._replace(groups=site.groups))
    design = design_of(labels)
    learned = to_policy(fit(design, list(range(300))), design, WEAK, STRONG, 0.5)
    policy = RoutingPolicy(kind="learned", learned=LearnedPolicy.parse(learned.dump()), **TIERED)
    asked = {up: ask("order total", system=f"{up} somebody. Zoe is here.") for up in ("Prove it to", "List it for")}
    assert [route(request, policy).tier for request in asked.values()] == [1, 0]
    decision = route(asked["Prove it to"], policy)
    assert RoutingDecision.from_json(decision.to_json()).groups == decision.groups != ()
    assert choose_again(decision, policy).score == pytest.approx(decision.score)


@pytest.mark.parametrize("site", SITES)
def test_replay_chooses_as_the_hot_path_does(route, ask, site):
    policy = RoutingPolicy(kind="learned", learned=POLICY, **TIERED)
    for label in range(40):
        rng = random.Random(label)
        request = ask(" ".join(rng.choices(WORDS, k=8)), context={"call_site": site})
        decision = route(request, policy)
        again = choose_again(decision, policy)
        assert (again.tier, again.score) == (decision.tier, pytest.approx(decision.score))


def logged(
    route, ask, number, *, site="a", escalated=False, score=1.0, feedback=True, tier=None, structured=False, **extra
):
    policy = RoutingPolicy(explore=0.5, **TIERED)
    fields = {"output_schema": "{}"} if structured else {}
    decision = route(ask(f"call {number} " + "x" * 400, context={"call_site": site}, **fields), policy, seed=number)
    if tier is not None:
        target = next(c.target for c in decision.candidates if c.tier == tier and c.target.provider == "openai")
        decision = decision._replace(tier=tier, target=target, propensity=0.5)
    decision = decision._replace(call_id=str(number), at=float(number))
    cost = {c.target: c.expected_nanousd for c in decision.candidates}
    answered, paid = decision.target, 3 * cost[decision.target] if site == "big" else cost[decision.target]
    outcomes = [Outcome(str(number), name, 0.0, 0.0) for name in extra.get("failures", ())]
    if escalated:
        answered, paid = STRONG, paid + cost[STRONG]
        outcomes.append(Outcome(str(number), "escalated", 0.0, 0.0))
    if feedback:
        outcomes.append(Outcome(str(number), "feedback", score, 0.0))
    return LoggedCall(decision, tuple(outcomes), Settlement(str(number), answered, NanoUSD(paid), 9, 0.0))


def test_feedback_on_an_escalated_call_does_not_praise_the_model_that_failed(route, ask):
    entries = [logged(route, ask, n, tier=0, escalated=True) for n in range(100)]
    entries += [logged(route, ask, n, tier=1) for n in range(100, 200)]
    labels = labels_from_log(entries, WEAK, STRONG, QualitySource.FEEDBACK).labels
    assert sum(label.weak for label in labels) / 200 == pytest.approx(0.0, abs=0.05)
    assert sum(label.strong for label in labels) / 200 == pytest.approx(1.0, abs=0.05)
    # two attempts are the bill of neither model alone
    expected = next(c.expected_nanousd for c in entries[0].decision.candidates if c.target == WEAK)
    assert all(label.weak_nanousd == pytest.approx(expected, rel=0.01) for label in labels)


def test_each_label_costs_what_its_call_costs_not_what_a_call_costs_on_average(route, ask):
    entries = [logged(route, ask, n, site="big" if n % 2 else "small", tier=n // 2 % 2) for n in range(400)]
    labels = labels_from_log(entries, WEAK, STRONG, QualitySource.FEEDBACK).labels
    by_site = {site: [label for label in labels if label.site == site] for site in ("big", "small")}
    for arm in ("weak_nanousd", "strong_nanousd"):
        big, small = (sum(getattr(label, arm) for label in by_site[site]) for site in ("big", "small"))
        assert 2.5 < big / small < 3.1  # drawn a little towards the mean of all sites


def test_a_log_that_nobody_rated_is_no_source_of_quality_unless_that_is_asked_for(route, ask):
    entries = [logged(route, ask, n, feedback=False) for n in range(150)]
    assert QualitySource.of(entries) is QualitySource.FAILURES


def test_a_policy_does_not_grade_itself_on_the_calls_it_was_tuned_on(route, ask):
    rng = random.Random(5)
    entries = []
    for number in range(600):
        strong = rng.random() < 0.5
        chance = 0.8 if strong else 0.55
        entries.append(
            logged(route, ask, number, site=rng.choice("abc"), tier=int(strong), score=float(rng.random() < chance))
        )
    labels = labels_from_log(entries, WEAK, STRONG, QualitySource.FEEDBACK)
    design = design_of(labels.labels)
    learned = to_policy(fit(design, list(range(600))), design, WEAK, STRONG, 0.25)
    own = replace(learned, fitted={"log": {"first": 0.0, "last": 599.0}})
    elsewhere = replace(learned, fitted={"log": {"first": -9.0, "last": -1.0}})

    def policy(which):
        return RoutingPolicy(kind="learned", learned=which, **TIERED)

    assert held_out_choices(entries, policy(elsewhere), QualitySource.FEEDBACK) == {}
    choices = held_out_choices(entries, policy(own), QualitySource.FEEDBACK)
    assert set(choices) == {entry.decision.call_id for entry in entries}
    flattering = replay(entries, policy(elsewhere), QualitySource.FEEDBACK)[-1].quality_after
    honest = replay(entries, policy(own), QualitySource.FEEDBACK)[-1].quality_after
    assert honest.value < flattering.value  # on noise that it has learned by heart


def test_tune_keeps_the_times_of_its_log_in_the_file():
    found = tune(labels_of(3, 400), WEAK, STRONG, current=RoutingPolicy(), log={"first": 1.0, "last": 2.0})
    if found.policy is not None:
        assert LearnedPolicy.parse(found.policy.dump()).fitted["log"] == {"first": 1.0, "last": 2.0}


def test_a_cascade_is_replayed_with_its_own_calls(route, ask):
    policy = RoutingPolicy(kind="cascade", accept="schema", **TIERED)
    failing = [
        logged(route, ask, n, tier=0, structured=True, failures=["parse_failed"], feedback=False) for n in range(50)
    ]
    fitting = [logged(route, ask, n, tier=0, structured=True, feedback=False) for n in range(50, 100)]
    direct = [logged(route, ask, n, tier=1, structured=True, feedback=False) for n in range(100, 150)]
    free = [logged(route, ask, n, tier=1, feedback=False) for n in range(150, 160)]
    total = replay([*failing, *fitting, *direct, *free], policy, QualitySource.FAILURES)[-1]
    cost = {c.target: c.expected_nanousd for c in failing[0].decision.candidates}
    expected = (
        50 * (cost[WEAK] + cost[STRONG]) + 50 * cost[WEAK] + 50 * (cost[WEAK] + 0.5 * cost[STRONG]) + 10 * cost[WEAK]
    )
    assert total.after_nanousd.value == pytest.approx(expected, rel=0.02)
    assert total.moved == 50 + 50 + 10


def test_a_cascade_by_failures_is_replayed_with_every_failure_that_the_log_shows(route, ask):
    policy = RoutingPolicy(kind="cascade", accept="no_failure", **TIERED)
    cut = [logged(route, ask, n, tier=0, failures=["truncated"], feedback=False) for n in range(50)]
    good = [logged(route, ask, n, tier=0, feedback=False) for n in range(50, 100)]
    total = replay([*cut, *good], policy, QualitySource.FAILURES)[-1]
    cost = {c.target: c.expected_nanousd for c in cut[0].decision.candidates}
    assert total.after_nanousd.value == pytest.approx(100 * cost[WEAK] + 50 * cost[STRONG], rel=0.02)
    assert total.moved == 50


@pytest.mark.parametrize("accept", ["check", "agreement"])
def test_a_cascade_whose_acceptance_is_not_in_the_log_is_refused(route, ask, accept):
    policy = RoutingPolicy(kind="cascade", accept=accept, **TIERED)
    with pytest.raises(ConfigurationError, match=f"a cascade by {accept} cannot be replayed"):
        replay([logged(route, ask, 1)], policy)
