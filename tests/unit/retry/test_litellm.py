"""LiteLLM invents statuses and hides headers; what the provider said is recovered from behind its exceptions.

The tests are coroutines although nothing is awaited: without a running loop, LiteLLM opens one and leaves it open.
"""

from __future__ import annotations

import pytest

from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.retry.classify import classify_error
from llm_cost_middleware.retry.facts import read_exception

pytestmark = [
    pytest.mark.litellm,
    pytest.mark.filterwarnings("ignore"),  # its own; raised inside it, they would be the error under test
]


def _anthropic(kind, message="m", code=None):
    return {"type": "error", "error": {"type": kind, "message": message, "details": {"error_code": code}}}


def _openai(kind, code):
    return {"error": {"type": kind, "message": "m", "param": None, "code": code}}


CASES = {
    "anthropic/claude-haiku-4-5": [
        (429, _anthropic("rate_limit_error"), K.RATE_LIMITED),
        (429, _anthropic("rate_limit_error", code="enforced_spend_limit_reached"), K.SPEND_LIMIT),
        (400, _anthropic("invalid_request_error", "Your credit balance is too low to access"), K.QUOTA_EXHAUSTED),
        (400, _anthropic("invalid_request_error", "prompt is too long: 9 > 8"), K.CONTEXT_OVERFLOW),
        (401, _anthropic("authentication_error"), K.AUTHENTICATION),
        (413, _anthropic("request_too_large"), K.REQUEST_TOO_LARGE),
        (500, _anthropic("api_error"), K.SERVER_ERROR),
        (529, _anthropic("overloaded_error"), K.OVERLOADED),
    ],
    "openai/gpt-4o-mini": [
        (429, _openai("requests", "rate_limit_exceeded"), K.RATE_LIMITED),
        (429, _openai("insufficient_quota", "insufficient_quota"), K.QUOTA_EXHAUSTED),
        (400, _openai("invalid_request_error", "context_length_exceeded"), K.CONTEXT_OVERFLOW),
        (401, _openai("invalid_request_error", "invalid_api_key"), K.AUTHENTICATION),
        (403, _openai("x", "unsupported_country_region_territory"), K.PERMISSION),
        (404, _openai("invalid_request_error", "model_not_found"), K.NOT_FOUND),
        (409, _openai("x", "y"), K.CONFLICT),
        (500, _openai("server_error", "server_error"), K.SERVER_ERROR),
        (529, _openai("x", "y"), K.OVERLOADED),
    ],
}


def _raised(model, url):
    import litellm

    litellm.suppress_debug_info = True
    with pytest.raises(Exception) as raised:
        litellm.completion(
            model=model,
            messages=[{"role": "user", "content": "x"}],
            api_key="k",
            api_base=url,
            max_retries=0,
            timeout=60,
        )
    return raised.value


@pytest.mark.parametrize("model", CASES)
async def test_status_code_and_headers_are_recovered(server, model):
    for status, body, kind in CASES[model]:
        server.says(status, body, retry_after="3", x_should_retry="true", request_id="req_1", x_request_id="req_1")
        error = _raised(model, server.url)
        facts, failure = read_exception(error), classify_error(error)
        assert type(error).__module__ == "litellm.exceptions"
        assert (facts.provider, facts.status, failure.kind) == (model.split("/")[0], status, kind), error
        assert (facts.retry_after, facts.should_retry, facts.request_id) == (3.0, True, "req_1"), error
        assert failure.billed == "no"


@pytest.mark.parametrize("model", CASES)
async def test_a_refused_connection_is_not_the_server_error_that_litellm_makes_of_it(model):
    error = _raised(model, "http://127.0.0.1:9")
    failure = classify_error(error)
    assert error.status_code == 500
    assert (failure.kind, failure.retryable, failure.billed) == (K.CONNECTION, True, "no")


async def test_without_a_cause_the_error_itself_decides(server):
    server.says(429, _anthropic("rate_limit_error", code="enforced_spend_limit_reached"), retry_after="3")
    error = _raised("anthropic/claude-haiku-4-5", server.url)
    error.__cause__ = error.__context__ = None
    failure = classify_error(error)
    assert (failure.kind, failure.retry_after) == (K.SPEND_LIMIT, 3.0)


async def test_a_router_without_a_deployment_gives_the_seconds_to_wait():
    from litellm.types.router import RouterRateLimitError

    failure = classify_error(RouterRateLimitError("m", 4.0, enable_pre_call_checks=False, cooldown_list=[]))
    assert (failure.kind, failure.retryable, failure.retry_after, failure.billed) == (K.OVERLOADED, True, 4.0, "no")
