from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_cost_middleware.provider import UsageReport
from llm_cost_middleware.request import AnswerContent, CallResult, ModelRef
from llm_cost_middleware.routing.agreement import answers_agree
from llm_cost_middleware.routing.cascade import (
    cascade_models,
    escalation,
    is_worthwhile,
    review_answer,
)
from llm_cost_middleware.routing.history import SiteHistory
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.schemas import text_matches_schema
from llm_cost_middleware.routing.signals import VISIBLE_FAILURES

SCHEMA = """{"type": "object", "required": ["total"], "additionalProperties": false,
 "properties": {"total": {"type": "number"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}}}"""


@pytest.fixture
def decision(route, ask):
    return route(ask("x"), RoutingPolicy(kind="cascade", tiers=("small", "large")))


@pytest.fixture
def review(decision, ask):
    """Review texts that came in this order; returns the text that stands, or the model to ask next."""

    def reviewed(*texts, by="check", accept=None, **fields):
        results = [CallResult(text, UsageReport(), text) for text in texts]
        policy = RoutingPolicy(kind="cascade", accept=by)
        verdict = review_answer(decision, policy, results, ask("x", **fields), accept)
        return verdict.text if isinstance(verdict, CallResult) else verdict

    return reviewed


def fine(result):
    return result.text == "fine"


def test_the_callers_check_decides(review, models):
    assert review("fine", accept=fine) == "fine"
    assert review("bad", accept=fine) == models["gpt"]
    assert review("bad", "good", accept=fine) == "good"  # the strong model's answer is not checked


def test_without_a_check_or_a_schema_nothing_is_reviewed(review):
    assert review("anything") is None
    assert review("anything", by="schema") is None


def test_agreement_asks_another_providers_model(review, decision, models):
    assert cascade_models(decision, "agreement") == (models["mini"], models["haiku"], models["gpt"])
    assert review("42", by="agreement") == models["haiku"]
    assert review("42", " 42.", by="agreement") == "42"
    assert review("42", "41", by="agreement") == models["gpt"]
    assert review("42", "41", "43", by="agreement") == "43"


def test_a_schema_decides(review, models):
    schema = {"by": "schema", "output_schema": SCHEMA}
    assert review('{"total": 3}', **schema) == '{"total": 3}'
    assert review('{"total": "3"}', **schema) == models["gpt"]
    assert review('{"total": "3"}', "whatever", **schema) == "whatever"


def test_two_answers_that_call_tools_are_compared_by_their_calls(decision, ask, models):
    def called(city):
        content = AnswerContent("I shall look.", (("weather", {"city": city}),))
        return CallResult(None, UsageReport(), read_content=lambda _: content)

    policy = RoutingPolicy(kind="cascade", accept="agreement")
    same, other = [called("Rome"), called("Rome")], [called("Rome"), called("Oslo")]
    assert review_answer(decision, policy, same, ask("x"), None) is same[0]
    assert review_answer(decision, policy, other, ask("x"), None) == models["gpt"]


def test_a_host_that_cannot_read_its_answers_leaves_them_unreviewed(decision, ask):
    policy = RoutingPolicy(kind="cascade", accept="agreement")
    assert review_answer(decision, policy, [CallResult(None, UsageReport())], ask("x"), None) is None


def test_there_is_no_cascade_without_someone_to_escalate_to_or_agree_with(route, ask, fleet):
    assert cascade_models(route(ask("x" * 10_000)), "check") == ()
    alone = [fleet[1], fleet[3]]
    assert cascade_models(route(ask("x"), candidates=alone), "agreement") == ()
    assert cascade_models(route(ask("x", model_pinned=True)), "check") == ()


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
        ("Final answer: (B)", "b.", True),
        ("$1,000.00", "1000", True),
        ("50%", "50", False),
        ("yes", "no", False),
        ('```json\n{"a": 1}\n```', '{"a": 1}', True),
        ("It holds, by section 4. " * 5, "It does not hold, by section 4. " * 5, False),
        ("It holds, by section 4. " * 5, "it holds,  by section 4. " * 5, True),
        ("We count them all. " * 5 + "The answer is not 24.", "We count them. " * 7 + "The answer is 24.", False),
    ],
)
def test_agreement_looks_at_the_answer_not_at_its_dress(one, other, same):
    assert answers_agree(AnswerContent(one), AnswerContent(other)) is same
    assert answers_agree(AnswerContent(other), AnswerContent(one)) is same


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["in", "since", "under section", "after", "page"]))
def test_the_last_number_of_prose_is_no_answer(number, word):
    one = f"I would certainly take the first of the two, as it has been the better one by every test {word} {number}."
    other = (
        f"The second one is what I would take, for reasons of price and of the support that it gets {word} {number}."
    )
    assert not answers_agree(AnswerContent(one), AnswerContent(other))


def test_a_declared_field_is_the_answer_whatever_the_reasoning_beside_it():
    one = AnswerContent('{"reasoning": "long", "result": {"label": "Refund"}}')
    other = AnswerContent('{"reasoning": "other", "result": {"label": "refund"}}')
    assert not answers_agree(one, other)
    assert answers_agree(one, other, field="result.label")
    assert not answers_agree(one, AnswerContent('{"result": {"label": "keep"}}'), field="result.label")
    nothing = AnswerContent('{"reasoning": "x"}')
    assert not answers_agree(nothing, nothing, field="result.label")
    assert not answers_agree(AnswerContent("refund"), AnswerContent("refund"), field="result.label")


def test_tool_calls_agree_by_name_and_arguments_in_any_order():
    def calls(*pairs):
        return AnswerContent("some words", tuple(pairs))

    one = calls(("weather", '{"city": "Oslo", "days": 2}'), ("time", {"zone": "CET"}))
    assert answers_agree(
        one, AnswerContent("others", (("time", '{"zone":"CET"}'), ("weather", {"days": 2, "city": "Oslo"})))
    )
    assert not answers_agree(one, calls(("weather", '{"city": "Oslo", "days": 3}'), ("time", {"zone": "CET"})))
    assert not answers_agree(one, AnswerContent("some words"))


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
    assert text_matches_schema(SCHEMA, text) is fits


def test_without_a_schema_any_json_will_do():
    assert text_matches_schema("", "[1]")
    assert not text_matches_schema("", "not json")


def test_a_cascade_pays_while_enough_is_accepted():
    assert is_worthwhile(10, 100, 0.0, 0)[0]  # nothing known yet
    assert not is_worthwhile(10, 100, 0.0, 100)[0]
    assert is_worthwhile(10, 100, 0.9, 100)[0]
    assert is_worthwhile(10, 100, 1.0, 1_000)[1] == pytest.approx(90, abs=1)
    assert not is_worthwhile(10, 100, 0.5, 100, extra_seconds=2, second_nanousd=50)[0]
    assert not is_worthwhile(100, 100, 1.0, 10**6)[0]


DEFAULT = RoutingPolicy(kind="cascade", accept="no_failure", tiers=("small", "large"))


def test_a_cascade_by_failures_starts_where_the_thresholds_say(route, ask):
    assert route(ask("short"), DEFAULT).tier == 0
    assert "stronger if the answer visibly fails" in route(ask("short"), DEFAULT).reason
    large = route(ask("x" * 10_000), DEFAULT)
    assert (large.tier, large.policy) == (1, "threshold")
    assert route(ask("short", context={"item_count": 30}), DEFAULT).tier == 1


@pytest.mark.parametrize("field", ["stream", "size_only"])
def test_what_cannot_be_reviewed_is_routed_by_the_thresholds_alone(route, ask, field):
    history = SiteHistory()
    for _ in range(50):  # where most answers fail a cascade asks the stronger model at once
        history.observe("plain", ModelRef("openai", "gpt-5-mini"), 10, accepted=False)
    assert route(ask("short"), DEFAULT, history=history).tier == 1
    decision = route(ask("short", **{field: True}), DEFAULT, history=history)
    assert (decision.tier, decision.policy) == (0, "threshold")


@pytest.mark.parametrize("failure", VISIBLE_FAILURES)
def test_an_answer_that_visibly_fails_is_asked_for_a_tier_up(route, ask, models, failure):
    decision, result = route(ask("x"), DEFAULT), CallResult("answer", UsageReport(), "text")
    assert review_answer(decision, DEFAULT, [result], ask("x"), None) is result
    assert review_answer(decision, DEFAULT, [result], ask("x"), None, (failure,)) == models["gpt"]
    assert review_answer(decision, DEFAULT, [result], ask("x"), lambda _: False) == models["gpt"]
    assert review_answer(decision, DEFAULT, [result], ask("x", size_only=True), None, (failure,)) is None


def test_escalations_that_do_not_help_are_given_up():
    history = SiteHistory()
    history.observe("site", ModelRef("openai", "gpt-5-mini"), 10)
    for _ in range(5):
        assert history.escalation_helps("site")
        history.observe_escalation("site", helped=False)
    assert not history.escalation_helps("site")
    assert history.escalation_helps("another")
