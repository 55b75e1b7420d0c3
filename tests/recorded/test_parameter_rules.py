"""The simulator's rules on parameters against what the real providers answered and refused."""

from collections import Counter

import pytest

from llm_cost_middleware.simulator.rules import begins, rule_book

ENDPOINTS = ("messages", "chat/completions", "responses")
OTHER_RULES = ("Deep research models require", "has moved to", "with the Responses API")
"""Refusals about models and endpoints as a whole; a request may break several rules, and one alone is told."""
PARAMETER = ("not supported with", "Unsupported parameter", "Unsupported value")


@pytest.fixture(scope="module")
def asked(exchanges):
    return [each for each in exchanges if each.endpoint in ENDPOINTS and isinstance(each.request, dict)]


def broken(exchange):
    return rule_book(exchange.provider).check(exchange.request, str(exchange.request.get("model")), exchange.endpoint)


def test_no_rule_refuses_what_a_provider_answered(asked):
    answered = [each for each in asked if each.status == 200]
    wrong = Counter(str(broken(each)) for each in answered if broken(each) is not None)
    assert len(answered) > 4_000
    assert not wrong, wrong.most_common(10)


def test_every_recorded_refusal_of_a_parameter_is_refused_in_the_same_words(asked):
    seen, wrong = 0, []
    for each in asked:
        error = each.response.get("error") if each.status == 400 and isinstance(each.response, dict) else None
        message = error.get("message", "") if isinstance(error, dict) else ""
        if not any(part in message for part in PARAMETER) or any(part in message for part in OTHER_RULES):
            continue
        seen += 1
        rule = broken(each)
        if rule is None or not message.startswith(rule.message):
            wrong.append((each.id, message[:120], rule and rule.message))
    assert seen > 50
    assert not wrong, wrong[:5]


def test_every_rule_names_its_source():
    assumed = []
    for provider in ("anthropic", "openai"):
        for rule in rule_book(provider).rules:
            assert len(rule.source) > 20, rule
            assumed += [rule] if "assumed" in rule.source else []
    print(f"{len(assumed)} rules rest on an assumption: {[rule.parameter for rule in assumed]}")


def test_a_model_belongs_to_the_names_that_end_before_a_dash():
    assert begins("gpt-5-mini-2025-08-07", "gpt-5")
    assert not begins("gpt-5.1", "gpt-5")
    assert not begins("o3", "o")
