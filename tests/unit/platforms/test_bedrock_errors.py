"""Errors of Bedrock, from botocore's own exceptions and from raw answers: what each means."""

from __future__ import annotations

import pytest

from llm_cost_middleware.platforms.bedrock.errors import ERROR_RULES, read_error
from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.retry.classify import _provider_rule, classify_error, classify_response
from llm_cost_middleware.retry.facts import read_response


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"Error": {"Code": "ThrottlingException", "Message": "slow"}}, ("", "ThrottlingException", "slow")),
        ({"type": "error", "error": {"type": "throttlingException", "message": "m"}}, ("", "ThrottlingException", "m")),
        ({"modelStreamErrorException": {"message": "m"}}, ("", "ModelStreamErrorException", "m")),
        ({"__type": "com.amazon#ValidationException:http://x", "message": "m"}, ("", "ValidationException", "m")),
        ({"message": "m"}, ("", "", "m")),
        ({"Message": 3}, ("", "", "")),
        ("plain", ("", "", "plain")),
        (None, ("", "", "")),
        ([], ("", "", "")),
    ],
)
def test_an_error_body_is_read(body, expected):
    assert read_error(body) == expected


CASES = [
    (429, "ThrottlingException", "Too many requests", K.RATE_LIMITED, True),
    (429, "ThrottlingException", "Too many tokens per day, please wait", K.QUOTA_EXHAUSTED, False),
    (429, "", "Too many requests", K.RATE_LIMITED, True),
    (400, "ServiceQuotaExceededException", "m", K.QUOTA_EXHAUSTED, False),
    (400, "", "Your request exceeds the service quota for your account.", K.QUOTA_EXHAUSTED, False),
    (429, "ModelNotReadyException", "m", K.OVERLOADED, True),
    (503, "ServiceUnavailableException", "m", K.OVERLOADED, True),
    (503, "", "m", K.OVERLOADED, True),
    (408, "ModelTimeoutException", "m", K.TIMEOUT, True),
    (408, "", "m", K.TIMEOUT, True),
    (500, "InternalServerException", "m", K.SERVER_ERROR, True),
    (424, "ModelErrorException", "m", K.SERVER_ERROR, True),
    (424, "ModelStreamErrorException", "m", K.SERVER_ERROR, True),
    (424, "", "m", K.SERVER_ERROR, True),
    (400, "ValidationException", "The model returned: prompt is too long: 9 > 8", K.CONTEXT_OVERFLOW, False),
    (400, "", "prompt is too long: 9 > 8", K.CONTEXT_OVERFLOW, False),
    (400, "ValidationException", "Input is too long for requested model.", K.CONTEXT_OVERFLOW, False),
    (400, "", "input length and `max_tokens` exceed context limit", K.CONTEXT_OVERFLOW, False),
    (400, "ValidationException", "Output blocked by content filtering policy", K.CONTENT_POLICY, False),
    (400, "ValidationException", "m", K.INVALID_REQUEST, False),
    (403, "AccessDeniedException", "m", K.PERMISSION, False),
    (404, "ResourceNotFoundException", "m", K.NOT_FOUND, False),
    (403, "UnrecognizedClientException", "m", K.AUTHENTICATION, False),
    (403, "InvalidSignatureException", "m", K.AUTHENTICATION, False),
    (403, "MissingAuthenticationTokenException", "m", K.AUTHENTICATION, False),
    (403, "ExpiredTokenException", "m", K.AUTHENTICATION, False),
]


@pytest.mark.parametrize(("status", "code", "message", "kind", "retryable"), CASES)
def test_an_answer_with_an_error_is_classified_and_is_not_billed(status, code, message, kind, retryable):
    body = {"Error": {"Code": code, "Message": message}} if code else {"message": message}
    failure = classify_response("bedrock", status, {}, body)
    assert (failure.kind, failure.retryable, failure.billed) == (kind, retryable, "no")


def test_every_rule_has_a_case_and_none_is_hidden_by_an_earlier_one():
    found = {
        _provider_rule(read_response("bedrock", status, {}, {"Error": {"Code": code, "Message": message}}))
        for status, code, message, *_ in CASES
    }
    assert set(ERROR_RULES) == found - {None}


@pytest.mark.parametrize(("status", "code", "message", "kind", "retryable"), [case for case in CASES if case[1]])
def test_botocores_exception_is_classified_by_its_code(status, code, message, kind, retryable):
    exceptions = pytest.importorskip("botocore.exceptions", reason="botocore is of the extra aws")
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    failure = classify_error(exceptions.ClientError(answer, "Converse"))
    assert (failure.kind, failure.retryable, failure.billed) == (kind, retryable, "no")
    streamed = exceptions.EventStreamError({**answer, "ResponseMetadata": {}}, "ConverseStream")
    begun = K.INTERRUPTED_STREAM if kind is K.TIMEOUT else kind
    assert (classify_error(streamed).kind, classify_error(streamed).billed) == (begun, "unknown")


@pytest.mark.parametrize(
    ("name", "kind", "retryable", "billed"),
    [
        ("EndpointConnectionError", K.CONNECTION, True, "no"),
        ("ConnectTimeoutError", K.TIMEOUT, True, "no"),
        ("ReadTimeoutError", K.TIMEOUT, True, "unknown"),
        ("ConnectionClosedError", K.CONNECTION, True, "unknown"),
        ("ResponseStreamingError", K.INTERRUPTED_STREAM, True, "unknown"),
        ("NoCredentialsError", K.AUTHENTICATION, False, "no"),
        ("ParamValidationError", K.INVALID_REQUEST, False, "no"),
    ],
)
def test_what_botocore_raises_by_itself_is_classified(name, kind, retryable, billed):
    exceptions = pytest.importorskip("botocore.exceptions", reason="botocore is of the extra aws")
    given = dict.fromkeys(("endpoint_url", "error", "report"), "x")
    failure = classify_error(getattr(exceptions, name)(**given))
    assert (failure.kind, failure.retryable, failure.billed) == (kind, retryable, billed)
