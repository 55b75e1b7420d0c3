"""A provider that is registered after everything was imported is one like the others."""

from __future__ import annotations

import pytest

from llm_cost_middleware import providers
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.provider import FailureKind
from llm_cost_middleware.retry.classify import classify_error

RULES = {
    "RateLimitError": FailureKind.RATE_LIMITED,
    "APITimeoutError": FailureKind.TIMEOUT,
    "APIConnectionError": FailureKind.CONNECTION,
    "AuthenticationError": FailureKind.AUTHENTICATION,
}


def raised_by(sdk, name):
    return type(name, (Exception,), {"__module__": sdk})("x")


@pytest.mark.parametrize("name", RULES)
def test_the_errors_of_its_sdk_are_read_like_those_of_the_others(name, monkeypatch, toy_provider):
    assert CostPipeline is not None  # imported before the provider was registered
    error = raised_by(toy_provider, name)
    for sdk in ("openai", toy_provider):
        assert classify_error(raised_by(sdk, name)).kind is RULES[name], sdk
    assert classify_error(error).kind is RULES[name]


def test_an_error_that_was_seen_before_it_was_known_is_read_anew(toy_provider):
    error = raised_by("latecomer", "RateLimitError")
    assert classify_error(error).kind is FailureKind.UNKNOWN
    providers.register("latecomer", "toy_provider")
    try:
        assert classify_error(error).kind is FailureKind.RATE_LIMITED
    finally:
        providers._PACKAGES.pop("latecomer")
