from __future__ import annotations

import pytest

from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.providers.anthropic.errors import ERROR_RULES, read_error
from llm_cost_middleware.retry.classify import _provider_rule, classify_response
from llm_cost_middleware.retry.facts import read_response


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"type": "error", "error": {"type": "api_error", "message": "m"}, "request_id": "r"},
            ("api_error", "", "m"),
        ),
        (
            {"error": {"type": "rate_limit_error", "message": "m", "details": {"error_code": "ramp_limit_exceeded"}}},
            ("rate_limit_error", "ramp_limit_exceeded", "m"),
        ),
        ({"error": {"type": "api_error", "message": "m", "details": None}}, ("api_error", "", "m")),
        ({"error": {"type": None, "message": 3, "code": "x"}}, ("", "x", "")),
        ({"error": "plain"}, ("", "", "plain")),
        ({"type": "message", "content": []}, ("", "", "")),
        ("upstream connect error", ("", "", "upstream connect error")),
        (None, ("", "", "")),
        ([], ("", "", "")),
    ],
)
def test_an_error_body_is_read(body, expected):
    assert read_error(body) == expected


CASES = [
    (429, "rate_limit_error", "enforced_spend_limit_reached", "m", K.SPEND_LIMIT, False),
    (429, "rate_limit_error", "contract_spend_limit_reached", "m", K.SPEND_LIMIT, False),
    (429, "rate_limit_error", "ramp_limit_exceeded", "m", K.RATE_LIMITED, True),
    (402, "billing_error", "linked_organization_spend_limit_reached", "m", K.SPEND_LIMIT, False),
    (402, "billing_error", "", "m", K.QUOTA_EXHAUSTED, False),
    (400, "invalid_request_error", "", "You have reached your specified API usage limits.", K.SPEND_LIMIT, False),
    (400, "invalid_request_error", "", "Your credit balance is too low", K.QUOTA_EXHAUSTED, False),
    (400, "invalid_request_error", "", "prompt is too long: 9 tokens > 8 maximum", K.CONTEXT_OVERFLOW, False),
    (
        400,
        "invalid_request_error",
        "",
        "input length and `max_tokens` exceed context limit: 9 + 9 > 8",
        K.CONTEXT_OVERFLOW,
        False,
    ),
    (400, "invalid_request_error", "", "Output blocked by content filtering policy", K.CONTENT_POLICY, False),
    (400, "invalid_request_error", "", "max_tokens: Field required", K.INVALID_REQUEST, False),
    (400, "invalid_request_error", "organization_on_hold", "m", K.PERMISSION, False),
    (400, "invalid_request_error", "request_body_timeout", "m", K.TIMEOUT, True),
    (413, "request_too_large", "", "m", K.REQUEST_TOO_LARGE, False),
    (409, "conflict_error", "", "m", K.CONFLICT, True),
    (409, "conflict_error", "skill_name_taken", "m", K.CONFLICT, False),
    (409, "conflict_error", "plugin_name_taken", "m", K.CONFLICT, False),
    (409, "conflict_error", "thread_continue_in_flight", "m", K.CONFLICT, True),
    (400, "invalid_request_error", "", "Too many total text bytes", K.REQUEST_TOO_LARGE, False),
    (400, "invalid_request_error", "model_context_window_exceeded", "m", K.CONTEXT_OVERFLOW, False),
    (401, "authentication_error", "", "m", K.AUTHENTICATION, False),
    (403, "permission_error", "", "m", K.PERMISSION, False),
    (404, "not_found_error", "", "m", K.NOT_FOUND, False),
    (503, "api_error", "cmek_key_unreachable", "m", K.SERVER_ERROR, True),
    (504, "timeout_error", "", "m", K.TIMEOUT, True),
    (529, "overloaded_error", "", "Overloaded", K.OVERLOADED, True),
    (200, "overloaded_error", "", "Overloaded", K.OVERLOADED, True),
    (200, "api_error", "", "m", K.SERVER_ERROR, True),
    (200, "rate_limit_error", "", "m", K.RATE_LIMITED, True),
]


def _body(type_, code, message):
    return {"type": "error", "error": {"type": type_, "message": message, "details": {"error_code": code or None}}}


@pytest.mark.parametrize(("status", "type_", "code", "message", "kind", "retryable"), CASES)
def test_a_code_or_a_message_decides_where_the_status_does_not(status, type_, code, message, kind, retryable):
    failure = classify_response("anthropic", status, {}, _body(type_, code, message))
    assert (failure.kind, failure.retryable, failure.billed) == (kind, retryable, "no")


def test_messages_in_the_table_are_lower_case():
    assert all(rule.message == rule.message.lower() for rule in ERROR_RULES)


def test_every_row_decides_a_case():
    """A row without a case, or below a more general row that hides it, fails here."""
    facts = [
        read_response("anthropic", status, {}, _body(type_, code, message))
        for status, type_, code, message, *_ in CASES
    ]
    assert set(ERROR_RULES) - {_provider_rule(one) for one in facts} == set()
