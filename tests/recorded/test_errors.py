"""Every recorded error exchange is classified as its status, headers and body say; each row has its reason."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import NamedTuple

import pytest

from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.retry.classify import classify_response

pytestmark = pytest.mark.data


class Row(NamedTuple):
    """Exchanges of one sort. Empty fields match anything; the first row that matches counts."""

    count: int
    provider: str
    status: int
    codes: str
    """The ``error.type`` and ``error.code``, of which one is named here (several: any of them)."""
    message: str
    """How the message begins."""
    kind: K
    retryable: bool
    retry_after: tuple[float, ...]
    reason: str


NO: tuple[float, ...] = ()
EXPECTED = (
    Row(2, "anthropic", 200, "overloaded_error", "", K.OVERLOADED, True, NO, "an error event alone in a 200 stream"),
    Row(4, "anthropic", 400, "", "prompt is too long", K.CONTEXT_OVERFLOW, False, NO, "larger than the window"),
    Row(4, "anthropic", 400, "", "Your credit balance is too low", K.QUOTA_EXHAUSTED, False, NO, "no money, as a 400"),
    Row(1, "anthropic", 400, "", "too many total text bytes", K.REQUEST_TOO_LARGE, False, NO, "over the size limit"),
    Row(11, "anthropic", 400, "invalid_request_error", "", K.INVALID_REQUEST, False, NO, "a faulty request stays one"),
    Row(23, "anthropic", 401, "authentication_error", "", K.AUTHENTICATION, False, NO, "a wrong key stays wrong"),
    Row(7, "anthropic", 404, "not_found_error", "model:", K.NOT_FOUND, False, NO, "no such model"),
    Row(4, "anthropic", 429, "rate_limit_error", "", K.RATE_LIMITED, True, (3.0, 4.0, 7.0), "says how long to wait"),
    Row(1, "anthropic", 529, "overloaded_error", "", K.OVERLOADED, True, NO, "x-should-retry: true"),
    Row(3, "openai", 400, "context_length_exceeded", "", K.CONTEXT_OVERFLOW, False, NO, "larger than the window"),
    Row(12, "openai", 400, "model_not_found", "", K.NOT_FOUND, False, NO, "no such model, in the Responses API"),
    Row(29, "openai", 400, "unsupported_value", "", K.INVALID_REQUEST, False, NO, "the model does not take it"),
    Row(7, "openai", 400, "unsupported_parameter", "", K.INVALID_REQUEST, False, NO, "the model does not take it"),
    Row(12, "openai", 400, "invalid_value", "", K.INVALID_REQUEST, False, NO, "a faulty request stays one"),
    Row(14, "openai", 400, "invalid_type invalid_image_url decimal_below_min_value integer_below_min_value "
        "invalid_function_parameters missing_required_parameter unknown_parameter", "", K.INVALID_REQUEST, False, NO,
        "a faulty request stays one"),
    Row(36, "openai", 400, "invalid_request_error", "", K.INVALID_REQUEST, False, NO, "no code, but the type says it"),
    Row(1, "openai", 400, "", "", K.INVALID_REQUEST, False, NO, "no body at all: the status says it"),
    Row(31, "openai", 401, "invalid_api_key", "", K.AUTHENTICATION, False, NO, "a wrong key stays wrong"),
    Row(2, "openai", 401, "", "", K.AUTHENTICATION, False, NO, "no body at all: the status says it"),
    Row(4, "openai", 404, "model_not_found", "", K.NOT_FOUND, False, NO, "no such model, in chat completions"),
    Row(4, "openai", 404, "invalid_request_error", "Model not found", K.NOT_FOUND, False, NO, "the same, no code"),
    Row(1, "openai", 429, "insufficient_quota", "", K.QUOTA_EXHAUSTED, False, NO, "money, though a 429"),
    Row(5, "openai", 429, "rate_limit_exceeded", "Request too large", K.REQUEST_TOO_LARGE, False, NO,
        "larger than the limit of a whole minute: it never succeeds, and only the message says so"),
    Row(2, "openai", 500, "server_error", "", K.SERVER_ERROR, True, NO, "the message itself says to retry"),
    Row(1, "openai", 503, "", "upstream connect error", K.SERVER_ERROR, True, NO, "plain text from a proxy"),
)  # fmt: skip


def _errors(folder):
    with gzip.open(folder / "recorded" / "exchanges.jsonl.gz", "rt") as lines:
        for line in lines:
            record = json.loads(line)
            if record["status"] >= 400 or "error_in_200" in record["features"]:
                yield record


def _said(body) -> tuple[set[str], str]:
    """The type, code and message of a body, read as simply as possible and not by the package."""
    if isinstance(body, str):
        if "data: " not in body:
            return set(), body
        body = json.loads(body.split("data: ", 1)[1].strip())
    error = (body or {}).get("error") or {}
    return {str(error.get("type")), str(error.get("code"))}, error.get("message") or ""


def test_every_recorded_error_is_classified_as_expected(data_folder):
    seen, wrong = Counter(), []
    for record in _errors(data_folder):
        body, headers = record["response"].get("body"), record["response"]["headers"]
        codes, message = _said(body)
        row = next(
            row
            for row in EXPECTED
            if (row.provider, row.status) == (record["provider"], record["status"])
            and (not row.codes or codes & set(row.codes.split()))
            and message.startswith(row.message)
        )
        seen[row] += 1
        failure = classify_response(record["provider"], record["status"], headers, body)
        after = failure.retry_after in row.retry_after if row.retry_after else failure.retry_after is None
        expected = (row.kind, row.retryable, "no", True)
        if (failure.kind, failure.retryable, failure.billed, after) != expected:
            wrong.append((record["id"], failure))
        should = headers.get("x-should-retry")
        if should is not None and failure.retryable != (should == "true"):
            wrong.append((record["id"], "against x-should-retry", failure))
        if message and message in failure.reason:
            wrong.append((record["id"], "quotes the message", failure))
    assert not wrong
    assert {row: row.count for row in EXPECTED} == seen
