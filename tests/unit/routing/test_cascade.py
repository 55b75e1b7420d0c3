from __future__ import annotations

import pytest

from llm_cost_middleware.routing.cascade import Accept, Ask, agree, escalation, next_step, pays, plan_cascade
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.schemas import satisfies

SCHEMA = """{"type": "object", "required": ["total"], "additionalProperties": false,
 "properties": {"total": {"type": "number"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}}}"""


@pytest.fixture
def decision(route, ask):
    return route(ask("x"), RoutingPolicy(kind="cascade", tiers=("small", "large")))


def test_the_callers_check_decides(decision, models):
    plan = plan_cascade(decision, "check")
    assert next_step(plan, []) == Ask(models["mini"], "a cheap model first")
    assert next_step(plan, ["fine"], check=lambda text: text == "fine") == Accept(0, "the caller's check accepts it")
    assert next_step(plan, ["bad"], check=lambda text: text == "fine").target == models["gpt"]
    assert next_step(plan, ["bad", "good"]).answer == 1


def test_without_a_check_nothing_is_taken_for_accepted(decision, models):
    assert next_step(plan_cascade(decision, "check"), ["anything"]).target == models["gpt"]


def test_agreement_asks_another_providers_model(decision, models):
    plan = plan_cascade(decision, "agreement")
    assert plan.cheap == (models["mini"], models["haiku"])
    assert next_step(plan, ["42"]).target == models["haiku"]
    assert next_step(plan, ["42", " 42."]) == Accept(0, "two models agree")
    assert next_step(plan, ["42", "41"]).target == models["gpt"]


def test_a_schema_decides(decision, models):
    plan = plan_cascade(decision, "schema")
    assert next_step(plan, ['{"total": 3}'], schema=SCHEMA).answer == 0
    assert next_step(plan, ['{"total": "3"}'], schema=SCHEMA).target == models["gpt"]


def test_there_is_no_cascade_without_someone_to_escalate_to_or_agree_with(route, ask, fleet):
    assert plan_cascade(route(ask("x" * 10_000)), "check") is None
    alone = [fleet[1], fleet[3]]
    assert plan_cascade(route(ask("x"), candidates=alone), "agreement") is None
    assert plan_cascade(route(ask("x", model_pinned=True)), "check") is None


def test_escalation_goes_one_tier_up_to_the_cheapest(route, ask, models, fleet, make_candidate):
    three = [*fleet, make_candidate(models["sonnet"], 2)]
    assert escalation(route(ask("x"), candidates=three)) == models["gpt"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Paris", " paris. ", True),
        ("Paris", "London", False),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', True),
        ('{"a": 1}', '{"a": 2}', False),
        ("so " * 40 + "the answer is 1,200", "because " * 20 + "we get 1200.", True),
        ("so " * 40 + "the answer is 12", "because " * 20 + "we get 13.", False),
        ("", "", False),
    ],
)
def test_agreement_looks_at_the_answer_not_at_its_dress(one, other, same):
    assert agree(one, other) is same


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"total": 3}', True),
        ('{"total": 3.5, "tags": ["a", "b"]}', True),
        ('{"total": true}', False),
        ("{}", False),
        ('{"total": 1, "more": 1}', False),
        ('{"total": 1, "tags": ["c"]}', False),
        ("[]", False),
        ("Sure! Here it is: {}", False),
    ],
)
def test_what_fits_a_schema(text, fits):
    assert satisfies(SCHEMA, text) is fits


def test_without_a_schema_any_json_will_do():
    assert satisfies("", "[1]")
    assert not satisfies("", "not json")


def test_a_cascade_pays_while_enough_is_accepted():
    assert pays(10, 100, 0.0, 0)[0]  # nothing known yet
    assert not pays(10, 100, 0.0, 100)[0]
    assert pays(10, 100, 0.9, 100)[0]
    assert pays(10, 100, 1.0, 1_000)[1] == pytest.approx(90, abs=1)
    assert not pays(10, 100, 0.5, 100, extra_seconds=2, second_nanousd=50)[0]
    assert not pays(100, 100, 1.0, 10**6)[0]
