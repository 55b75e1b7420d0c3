from __future__ import annotations

import asyncio
import concurrent.futures
from decimal import Decimal

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cost_middleware import errors
from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.providers import NAMES, get_provider
from llm_cost_middleware.retry.classify import _BY_STATUS, RETRYABLE, classify_error, classify_response
from llm_cost_middleware.retry.exception_rules import EXCEPTION_RULES


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
@pytest.mark.parametrize(
    ("status", "kind", "retryable", "billed"),
    [
        (400, K.INVALID_REQUEST, False, "no"),
        (401, K.AUTHENTICATION, False, "no"),
        (402, K.QUOTA_EXHAUSTED, False, "no"),
        (403, K.PERMISSION, False, "no"),
        (404, K.NOT_FOUND, False, "no"),
        (408, K.TIMEOUT, True, "no"),
        (409, K.CONFLICT, True, "no"),
        (413, K.REQUEST_TOO_LARGE, False, "no"),
        (418, K.INVALID_REQUEST, False, "no"),
        (422, K.INVALID_REQUEST, False, "no"),
        (429, K.RATE_LIMITED, True, "no"),
        (499, K.CANCELLED, False, "unknown"),
        (500, K.SERVER_ERROR, True, "no"),
        (501, K.INVALID_REQUEST, False, "no"),
        (502, K.SERVER_ERROR, True, "unknown"),
        (503, K.SERVER_ERROR, True, "no"),
        (504, K.TIMEOUT, True, "unknown"),
        (524, K.TIMEOUT, True, "unknown"),
        (529, K.OVERLOADED, True, "no"),
    ],
)
def test_a_status_without_a_code_or_message_of_the_provider(provider, status, kind, retryable, billed):
    failure = classify_response(provider, status, {}, "upstream error")
    assert (failure.kind, failure.retryable, failure.billed) == (kind, retryable, billed)


def test_an_error_of_the_provider_that_a_gateway_passes_on_is_not_billed():
    body = {"error": {"type": "timeout_error", "message": "m"}}
    assert classify_response("anthropic", 504, {}, body).billed == "no"


@pytest.mark.parametrize(
    ("status", "header", "retryable"),
    [(500, "false", False), (500, "true", True), (400, "true", True), (429, "false", False)],
)
def test_the_header_decides_about_retrying(status, header, retryable):
    assert classify_response("openai", status, {"x-should-retry": header}, {}).retryable is retryable


@pytest.mark.parametrize(
    ("error", "kind", "retryable", "billed"),
    [
        (asyncio.CancelledError(), K.CANCELLED, False, "unknown"),
        (concurrent.futures.CancelledError(), K.CANCELLED, False, "unknown"),
        (KeyboardInterrupt(), K.CANCELLED, False, "unknown"),
        (SystemExit(1), K.CANCELLED, False, "unknown"),
        (GeneratorExit(), K.CANCELLED, False, "unknown"),
        (TimeoutError(), K.TIMEOUT, True, "unknown"),
        (ConnectionRefusedError(), K.CONNECTION, True, "no"),
        (ConnectionResetError(), K.CONNECTION, True, "unknown"),
        (BrokenPipeError(), K.CONNECTION, True, "unknown"),
        (httpx.ConnectTimeout("x"), K.TIMEOUT, True, "no"),
        (httpx.PoolTimeout("x"), K.TIMEOUT, True, "no"),
        (httpx.ReadTimeout("x"), K.INTERRUPTED_STREAM, True, "unknown"),
        (httpx.RemoteProtocolError("x"), K.INTERRUPTED_STREAM, True, "unknown"),
        (httpx.UnsupportedProtocol("x"), K.INVALID_REQUEST, False, "no"),
        (ValueError("overloaded_error: x"), K.OVERLOADED, True, "unknown"),
        (ValueError("ResponseError(code='rate_limit_exceeded')"), K.RATE_LIMITED, True, "unknown"),
        (ValueError("bad"), K.UNKNOWN, False, "unknown"),
        (KeyError("bug"), K.UNKNOWN, False, "unknown"),
        (errors.BudgetExceededError(Decimal(1), Decimal(1)), K.SPEND_LIMIT, False, "no"),
        (errors.LedgerUnavailableError("x", "y"), K.UNKNOWN, False, "no"),
        (errors.UnreadableUsageError("x", "y"), K.UNKNOWN, False, "yes"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_errors_without_a_response(error, kind, retryable, billed):
    failure = classify_error(error)
    assert (failure.kind, failure.retryable, failure.billed) == (kind, retryable, billed)


def test_the_connection_errors_of_the_sdks_are_distinguished_by_their_cause(anthropic_error, openai_error):
    for raised in (anthropic_error, openai_error):
        failure = classify_error(raised(base_url="http://127.0.0.1:9"))
        assert (failure.kind, failure.retryable, failure.billed) == (K.CONNECTION, True, "no")


def test_an_error_that_only_its_code_distinguishes_from_a_rate_limit(server, openai_error, anthropic_error):
    server.says(429, {"error": {"message": "m", "type": "insufficient_quota", "code": "credit_balance_exhausted"}})
    failure = classify_error(openai_error())
    assert (failure.kind, failure.retryable, failure.billed) == (K.QUOTA_EXHAUSTED, False, "no")
    details = {"error_code": "enforced_spend_limit_reached"}
    server.says(429, {"error": {"type": "rate_limit_error", "message": "m", "details": details}})
    failure = classify_error(anthropic_error())
    assert (failure.kind, failure.retryable, failure.billed) == (K.SPEND_LIMIT, False, "no")


def test_an_error_inside_a_stream_is_classified_by_its_type_and_its_bill_is_open(server, anthropic_error):
    sse = 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    server.says(200, sse, content_type="text/event-stream")
    failure = classify_error(anthropic_error())
    assert (failure.kind, failure.retryable, failure.billed) == (K.OVERLOADED, True, "unknown")
    assert classify_response("anthropic", 200, {}, sse).billed == "no"  # here is seen that nothing came before it


def test_a_failed_response_of_openai_is_classified_by_its_code():
    body = {"id": "resp_1", "status": "failed", "error": {"code": "server_error", "message": "m"}}
    failure = classify_response("openai", 200, {}, body)
    assert (failure.kind, failure.retryable) == (K.SERVER_ERROR, True)


def test_an_unknown_provider_is_classified_by_the_tables_of_all():
    class RateLimitError(Exception):
        status_code = 429
        code = "insufficient_quota"

    assert classify_error(RateLimitError("m")).kind is K.QUOTA_EXHAUSTED
    assert classify_error(RateLimitError("m"), provider="azure").kind is K.QUOTA_EXHAUSTED


def test_the_reason_never_quotes_what_the_provider_wrote():
    body = {
        "error": {"message": "Incorrect API key provided: sk-secret", "code": "invalid_api_key", "type": "no slug!"}
    }
    reason = classify_response("openai", 401, {}, body).reason
    assert reason == "openai, status 401, invalid_api_key: authentication by the provider's code or message"


def test_no_failure_of_money_or_of_the_request_is_retryable_by_its_kind():
    assert not RETRYABLE & {
        K.QUOTA_EXHAUSTED, K.SPEND_LIMIT, K.AUTHENTICATION, K.PERMISSION, K.NOT_FOUND, K.INVALID_REQUEST,
        K.CONTEXT_OVERFLOW, K.REQUEST_TOO_LARGE, K.CONTENT_POLICY, K.CANCELLED, K.UNKNOWN,
    }  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "type", "code", "message", "details", "error_code", "response"]), inner
        )
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(["anthropic", "openai"]),
    st.integers(100, 599),
    st.dictionaries(st.sampled_from(["retry-after", "Retry-After-Ms", "x-should-retry", "date"]), st.text(max_size=12)),
    JSON | st.text(max_size=30) | st.binary(max_size=30),
)
def test_every_response_is_classified(provider, status, headers, body):
    failure = classify_response(provider, status, headers, body)
    assert failure.retry_after is None or failure.retry_after >= 0
    assert failure.billed in {"no", "unknown"}


def test_an_exception_that_cannot_be_read_is_unknown_and_booked():
    class HostileError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

        @property
        def response(self):
            raise KeyError

    failure = classify_error(HostileError())
    assert (failure.kind, failure.retryable, failure.billed) == (K.UNKNOWN, False, "unknown")


@given(JSON, JSON, JSON)
def test_every_exception_is_classified(body, status, code):
    error = Exception("m")
    error.body, error.status_code, error.code, error.type = body, status, code, body
    classify_error(error)


def test_every_kind_of_failure_is_reached_by_a_rule():
    by_class = {rule.kind for rule in EXCEPTION_RULES.values()}
    by_code = {rule.kind for name in NAMES for rule in get_provider(name).error_rules}
    assert by_class | by_code | {*_BY_STATUS.values()} == set(K)
