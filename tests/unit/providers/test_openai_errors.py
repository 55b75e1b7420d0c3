from __future__ import annotations

import pytest

from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.providers.openai.errors import ERROR_RULES, read_error
from llm_cost_middleware.retry.classify import _provider_rule, classify_response
from llm_cost_middleware.retry.facts import read_response


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "m", "type": "tokens", "param": None, "code": "c"}}, ("tokens", "c", "m")),
        ({"message": "m", "type": "tokens", "param": None, "code": "c"}, ("tokens", "c", "m")),
        ({"status": "failed", "error": {"code": "server_error", "message": "m"}}, ("", "server_error", "m")),
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "m"}}},
            ("", "server_error", "m"),
        ),
        ({"type": "error", "code": "server_error", "message": "m"}, ("", "server_error", "m")),
        ({"error": {"message": "m", "type": None, "code": 503}}, ("", "503", "m")),
        ({"error": "plain"}, ("", "", "plain")),
        ({"id": "chatcmpl-1", "choices": [{"message": {}}]}, ("", "", "")),
        ({"id": "resp_1", "status": "completed", "error": None}, ("", "", "")),
        ("upstream connect error", ("", "", "upstream connect error")),
        (None, ("", "", "")),
    ],
)
def test_an_error_body_is_read(body, expected):
    assert read_error(body) == expected


CASES = [
    (429, "requests", "rate_limit_exceeded", "Rate limit reached for gpt-5-mini", K.RATE_LIMITED, True),
    (429, "tokens", "rate_limit_exceeded", "Rate limit reached for gpt-5-mini", K.RATE_LIMITED, True),
    (429, "tokens", "rate_limit_exceeded", "Request too large for gpt-5-mini", K.REQUEST_TOO_LARGE, False),
    (429, "insufficient_quota", "insufficient_quota", "m", K.QUOTA_EXHAUSTED, False),
    (429, "insufficient_quota", "credit_balance_exhausted", "m", K.QUOTA_EXHAUSTED, False),
    (429, "insufficient_quota", "organization_spend_limit_exceeded", "m", K.SPEND_LIMIT, False),
    (429, "insufficient_quota", "project_spend_limit_exceeded", "m", K.SPEND_LIMIT, False),
    (429, "insufficient_quota", "organization_usage_limit_exceeded", "m", K.SPEND_LIMIT, False),
    (429, "rate_limit_error", "slow_down", "m", K.RATE_LIMITED, True),
    (503, "service_unavailable_error", "slow_down", "m", K.RATE_LIMITED, True),
    (503, "service_unavailable_error", "server_is_overloaded", "m", K.OVERLOADED, True),
    (429, "", "resource_unavailable", "m", K.OVERLOADED, True),
    (400, "invalid_request_error", "context_length_exceeded", "m", K.CONTEXT_OVERFLOW, False),
    (
        400,
        "invalid_request_error",
        "",
        "This model's maximum context length is 8 tokens",
        K.CONTEXT_OVERFLOW,
        False,
    ),
    (
        400,
        "invalid_request_error",
        "",
        "Your input exceeds the context window of this model.",
        K.CONTEXT_OVERFLOW,
        False,
    ),
    (400, "invalid_request_error", "string_above_max_length", "m", K.REQUEST_TOO_LARGE, False),
    (400, "invalid_request_error", "content_policy_violation", "m", K.CONTENT_POLICY, False),
    (200, "", "vector_store_timeout", "m", K.TIMEOUT, True),
    (400, "invalid_request_error", "invalid_prompt", "m", K.CONTENT_POLICY, False),
    (400, "invalid_request_error", "model_not_found", "m", K.NOT_FOUND, False),
    (401, "invalid_request_error", "invalid_api_key", "m", K.AUTHENTICATION, False),
    (403, "request_forbidden", "unsupported_country_region_territory", "m", K.PERMISSION, False),
    (500, "server_error", "server_error", "m", K.SERVER_ERROR, True),
    (200, "", "server_error", "m", K.SERVER_ERROR, True),
    (200, "", "rate_limit_exceeded", "m", K.RATE_LIMITED, True),
]


def _body(type_, code, message):
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}


@pytest.mark.parametrize(("status", "type_", "code", "message", "kind", "retryable"), CASES)
def test_a_code_or_a_message_decides_where_the_status_does_not(status, type_, code, message, kind, retryable):
    failure = classify_response("openai", status, {}, _body(type_, code, message))
    assert (failure.kind, failure.retryable, failure.billed) == (kind, retryable, "no")


def test_messages_in_the_table_are_lower_case():
    assert all(rule.message == rule.message.lower() for rule in ERROR_RULES)


def test_every_row_decides_a_case():
    """A row without a case, or below a more general row that hides it, fails here."""
    facts = [
        read_response("openai", status, {}, _body(type_, code, message)) for status, type_, code, message, *_ in CASES
    ]
    assert set(ERROR_RULES) - {_provider_rule(one) for one in facts} == set()
