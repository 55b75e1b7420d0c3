from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError

import httpx
import pytest

from llm_cost_middleware.errors import CircuitOpenError
from llm_cost_middleware.retry.facts import read_exception, read_response

RATE_LIMIT = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("headers", "now", "seconds"),
    [
        ({"retry-after": "3"}, None, 3.0),
        ({"Retry-After": "1.5"}, None, 1.5),
        ({"retry-after-ms": "250", "retry-after": "3"}, None, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "3"}, None, 3.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT", "date": "Mon, 23 Nov 2026 12:00:00 GMT"}, None, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 1795435200.0, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 1795435300.0, 0.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, None, None),
        ({"retry-after": "soon"}, 1795435200.0, None),
        ({"retry-after": "-1"}, None, None),
        ({"retry-after": "nan"}, None, None),
        ({"retry-after": "inf"}, None, None),
        ({}, None, None),
    ],
)
def test_a_time_to_wait_is_read_in_every_form(headers, now, seconds):
    assert read_response("anthropic", 429, headers, RATE_LIMIT, now=now).retry_after == seconds


@pytest.mark.parametrize(("value", "read"), [("true", True), ("FALSE", False), ("maybe", None), ("", None)])
def test_the_header_that_says_whether_to_retry_is_read(value, read):
    assert read_response("openai", 500, {"X-Should-Retry": value}, {}).should_retry is read


def test_a_body_is_read_as_object_text_or_bytes():
    as_object = read_response("anthropic", 429, {"request-id": "req_1"}, RATE_LIMIT)
    assert (as_object.type, as_object.message, as_object.request_id) == ("rate_limit_error", "slow down", "req_1")
    text = '{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}'
    assert read_response("anthropic", 429, {"request-id": "req_1"}, text) == as_object
    assert read_response("anthropic", 429, {"request-id": "req_1"}, text.encode()) == as_object


@pytest.mark.parametrize("body", ["upstream connect error", "<html>", '{"broken":', "", None, [], 3, b"\xff"])
def test_a_body_that_is_no_error_object_is_no_reason_to_fail(body):
    facts = read_response("openai", 503, {}, body)
    assert (facts.status, facts.type, facts.code, facts.answered) == (503, "", "", False)


def test_an_error_event_is_found_in_a_stream_and_what_came_before_it_is_noticed():
    error = 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    alone = read_response("anthropic", 200, {}, error)
    assert (alone.type, alone.answered) == ("overloaded_error", False)
    begun = read_response("anthropic", 200, {}, 'event: ping\ndata: {"type":"message_start"}\n\n' + error)
    assert (begun.type, begun.answered) == ("overloaded_error", True)


def test_what_the_provider_wrote_is_kept_out_of_the_representation():
    facts = read_response("openai", 401, {}, {"error": {"message": "Incorrect API key provided: sk-secret"}})
    assert "sk-secret" in facts.message
    assert "sk-secret" not in repr(facts)
    with pytest.raises(FrozenInstanceError):
        facts.status = 200


def test_an_sdk_error_is_read_with_its_headers(server, anthropic_error, openai_error):
    server.says(429, RATE_LIMIT, retry_after="7", x_should_retry="true", request_id="req_1")
    facts = read_exception(anthropic_error())
    assert (facts.provider, facts.status, facts.type) == ("anthropic", 429, "rate_limit_error")
    assert (facts.retry_after, facts.should_retry, facts.request_id) == (7.0, True, "req_1")
    assert (facts.sent, facts.answered) == (True, False)
    body = {"error": {"message": "m", "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}}
    server.says(429, body, x_request_id="req_2")
    facts = read_exception(openai_error())
    assert (facts.provider, facts.status, facts.code, facts.request_id) == (
        "openai",
        429,
        "insufficient_quota",
        "req_2",
    )


def test_a_typed_code_of_anthropic_is_read_from_the_details(server, anthropic_error):
    server.says(429, {"error": {"type": "rate_limit_error", "message": "m", "details": {"error_code": "ramp_limit"}}})
    facts = read_exception(anthropic_error())
    assert (facts.type, facts.code) == ("rate_limit_error", "ramp_limit")


def test_a_warning_that_is_an_error_is_raised_before_anything_is_sent():
    import anthropic
    from anthropic.resources.messages.messages import DEPRECATED_MODELS

    with anthropic.Anthropic(api_key="k", base_url="http://127.0.0.1:9", max_retries=0) as client:
        with pytest.raises(DeprecationWarning) as caught:
            client.messages.create(model=next(iter(DEPRECATED_MODELS)), max_tokens=5, messages=[])
        assert read_exception(caught.value).sent is False
    assert read_exception(DeprecationWarning("of nobody knows where")).sent is None


def test_a_refused_connection_was_never_sent(anthropic_error, openai_error):
    for error in (anthropic_error(base_url="http://127.0.0.1:9"), openai_error(base_url="http://127.0.0.1:9")):
        facts = read_exception(error)
        assert (facts.status, facts.sent, facts.answered) == (None, False, False)
        assert facts.exception_names[0].endswith(".APIConnectionError")
        assert any(name.endswith(".ConnectError") for name in facts.exception_names)


def test_a_transport_error_without_an_sdk_around_it_happened_inside_an_answer():
    assert read_exception(httpx.ReadError("reset")).answered
    assert read_exception(httpx.ReadTimeout("silence")).answered
    assert not read_exception(httpx.ConnectError("refused")).answered


def test_the_error_event_of_a_real_stream_is_read(server, anthropic_error, openai_error):
    sse = 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    server.says(200, sse, content_type="text/event-stream")
    facts = read_exception(anthropic_error())
    assert (facts.status, facts.type, facts.answered) == (200, "overloaded_error", True)
    server.says(
        200, 'data: {"error":{"message":"m","type":"server_error","code":null}}\n\n', content_type="text/event-stream"
    )
    facts = read_exception(openai_error())
    assert (facts.status, facts.type) == (None, "server_error")


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_what_another_error_was_raised_for_is_found(server, openai_error, link):
    server.says(503, {"error": {"message": "m", "type": "server_error", "code": None}})
    error = LookupError("ours")
    setattr(error, link, openai_error())
    assert read_exception(error).status == 503
    error.__suppress_context__ = True
    assert read_exception(error).status == (503 if link == "__cause__" else None)


def test_a_stale_context_is_not_taken_for_the_cause(server, openai_error):
    server.says(503, {"error": {"message": "m", "type": "server_error", "code": None}})
    earlier = openai_error()
    for later in (httpx.ConnectError("refused"), asyncio.CancelledError(), CircuitOpenError("x", 2.0)):
        later.__context__ = earlier
        facts = read_exception(later)
        assert (facts.status, facts.code) == (None, "")
    assert facts.retry_after == 2.0


def test_a_chain_without_an_end_is_followed_for_a_while_only():
    first, second = LookupError("a"), LookupError("b")
    first.__cause__, second.__cause__ = second, first
    assert read_exception(first).status is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("server_error: The server had an error", "server_error"),
        ("ResponseError(code='rate_limit_exceeded', message='x')", "rate_limit_exceeded"),
        ("Invalid input", ""),
        ("note: nothing", ""),
    ],
)
def test_the_value_errors_of_langchain_yield_their_code(text, code):
    assert read_exception(ValueError(text)).code == code
