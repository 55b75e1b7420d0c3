"""Errors of Azure OpenAI in the words of its gateway, of API Management and of the models: what each means."""

from __future__ import annotations

import openai
import pytest

from llm_cost_middleware.platforms.azure.errors import ERROR_RULES, read_error
from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.retry.classify import classify_error, classify_response
from llm_cost_middleware.simulator import Fault
from llm_cost_middleware.simulator.azure import AzureManners

BUSY = "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded "
FILTERED = {
    "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
    "type": None,
    "param": "prompt",
    "code": "content_filter",
    "status": 400,
    "innererror": {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
    },
}
"""learn.microsoft.com, "Content filtering": the error of a prompt that is stopped."""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"code": "DeploymentNotFound", "message": "m"}}, ("", "DeploymentNotFound", "m")),
        ({"error": {"code": "429", "message": "m"}}, ("", "429", "m")),
        ({"statusCode": 401, "message": "m"}, ("", "401", "m")),
        ({"statusCode": 401, "message": {"not": "text"}}, ("", "401", "")),
        ({"error": {**FILTERED, "message": "m"}}, ("", "content_filter", "m")),
        ({"error": {**FILTERED, "code": None, "message": "m"}}, ("", "ResponsibleAIPolicyViolation", "m")),
        ({**FILTERED, "message": "m"}, ("", "content_filter", "m")),  # as the SDK hands it on
        ({"error": {"code": None, "innererror": "odd", "message": "m"}}, ("", "", "m")),
        ("upstream request timeout", ("", "", "upstream request timeout")),
        (None, ("", "", "")),
    ],
)
def test_an_error_body_is_read(body, expected):
    assert read_error(body) == expected


CASES = [
    (401, "401", "Access denied due to invalid subscription key or wrong API endpoint.", K.AUTHENTICATION, False, "no"),
    (401, "PermissionDenied", "Principal does not have access to API/Operation.", K.AUTHENTICATION, False, "no"),
    (403, "AuthenticationTypeDisabled", "Key based authentication is disabled", K.PERMISSION, False, "no"),
    (403, "403", "Out of call volume quota.", K.QUOTA_EXHAUSTED, False, "no"),
    (404, "DeploymentNotFound", "The API deployment for this resource does not exist.", K.NOT_FOUND, False, "no"),
    (404, "404", "Resource not found", K.NOT_FOUND, False, "no"),
    (400, "content_filter", "The response was filtered", K.CONTENT_POLICY, False, "unknown"),
    (400, "", "triggering Azure OpenAI's content management policy", K.CONTENT_POLICY, False, "unknown"),
    (400, "context_length_exceeded", "m", K.CONTEXT_OVERFLOW, False, "unknown"),
    (400, "OperationNotSupported", "The chatCompletion operation does not work", K.INVALID_REQUEST, False, "no"),
    (400, "unsupported_parameter", "m", K.INVALID_REQUEST, False, "no"),
    (408, "Timeout", "The operation was timeout.", K.TIMEOUT, True, "unknown"),
    (408, "", "m", K.TIMEOUT, True, "unknown"),
    (429, "429", BUSY + "token rate limit. Please retry after 9 seconds.", K.RATE_LIMITED, True, "no"),
    (429, "RateLimitReached", "m", K.RATE_LIMITED, True, "no"),
    (429, "too_many_requests", "m", K.RATE_LIMITED, True, "no"),
    (429, "429", BUSY + "token rate limit. Please retry after 86400 seconds.", K.REQUEST_TOO_LARGE, False, "no"),
    (429, "too_many_requests", "The system is currently experiencing high demand", K.OVERLOADED, True, "no"),
    (429, "NoCapacity", "m", K.OVERLOADED, True, "no"),
    (429, "insufficient_quota", "You exceeded your current quota", K.QUOTA_EXHAUSTED, False, "no"),
    (500, "InternalServerError", "Backend returned unexpected response.", K.SERVER_ERROR, True, "no"),
    (503, "ServiceUnavailable", "m", K.OVERLOADED, True, "no"),
]


@pytest.mark.parametrize(("status", "code", "message", "kind", "retryable", "billed"), CASES)
def test_an_error_is_classified_and_what_was_worked_on_may_be_billed(status, code, message, kind, retryable, billed):
    found = classify_response("azure", status, {}, {"error": {"code": code or None, "message": message}})
    assert (found.kind, found.retryable, found.billed) == (kind, retryable, billed)


def test_every_rule_of_its_own_has_a_case():
    seen = {code for _, code, *_ in CASES}
    for rule in ERROR_RULES[:13]:
        assert not rule.codes or seen & {*rule.codes}, rule


def test_a_full_deployment_says_when_to_come_again():
    for headers, seconds in (({"retry-after": "7"}, 7.0), ({"retry-after": "7", "retry-after-ms": "6400"}, 6.4)):
        assert classify_response("azure", 429, headers, {"error": {"code": "429"}}).retry_after == seconds


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.status(401), K.AUTHENTICATION),
        (Fault.status(404), K.NOT_FOUND),
        (Fault.azure("DeploymentNotFound"), K.NOT_FOUND),
        (Fault.azure("content_filter"), K.CONTENT_POLICY),
        (Fault.azure("Timeout"), K.TIMEOUT),
        (Fault.status(429), K.RATE_LIMITED),
        (Fault.request_too_large(), K.REQUEST_TOO_LARGE),
        (Fault.insufficient_quota(), K.QUOTA_EXHAUSTED),
        (Fault.overloaded(), K.OVERLOADED),
        (Fault.status(500), K.SERVER_ERROR),
    ],
)
def test_what_the_simulator_says_is_understood(fault, kind):
    said = AzureManners("openai", "azure").refusal(fault)
    assert classify_response("azure", said.status, said.headers, said.body).kind is kind


def test_an_error_of_the_sdk_is_read_by_its_body():
    request = openai.DefaultHttpxClient().build_request("POST", "https://ours.openai.azure.com/")
    kind = type(request).__module__.partition(".")[0]
    response = __import__(kind).Response(400, json={"error": FILTERED}, request=request)
    error = openai.BadRequestError("m", response=response, body=FILTERED)
    found = classify_error(error, provider="azure")
    assert (found.kind, found.billed) == (K.CONTENT_POLICY, "unknown")
