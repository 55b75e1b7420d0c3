"""What is told of a failure and of what follows it is formatted when it is read."""

import copy
import logging
import pickle
from random import Random

import httpx
import openai
import pytest
from held_sentences import holds_little, templates, written_templates

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.events import CallFailed, Retried, Voided
from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.retry.classify import classify, classify_error, classify_response
from llm_cost_middleware.retry.decision import FailedAttempt, decide
from llm_cost_middleware.retry.facts import FailureFacts
from llm_cost_middleware.retry.flex import FlexTry, after_flex
from llm_cost_middleware.retry.policy import RetryPolicy
from llm_cost_middleware.retry.state import RetryState
from llm_cost_middleware.sentences import unread
from llm_cost_middleware.testing import FakeClock

HERE, ABROAD = ModelRef("anthropic", "claude-haiku-4-5-20251001"), ModelRef("openai", "gpt-5-mini")
BUSY = FailureKind.OVERLOADED
LIMITED = {"error": {"type": "requests", "code": "rate_limit_exceeded", "message": "x" * 10_000}}
CASES = {
    "overloaded, and a part of the answer was handed on": lambda: decided(delivered=True),
    "overloaded after 3 of 3 attempts": lambda: decided(attempt=3),
    "a retry does not help against overloaded": lambda: decided(retryable=False),
    "a retry does not help against a failure of an unknown kind": lambda: decided(
        retryable=False, kind=FailureKind.UNKNOWN
    ),
    "overloaded, and one attempt is left: on to openai/gpt-5-mini": lambda: decided(attempt=2, fallbacks=(ABROAD,)),
    "overloaded, again in 0.1 s": lambda: decided(attempt=1),
    "overloaded, and the retry quota of anthropic is used up": lambda: decided(used_up=True),
    "overloaded, and a wait of 61.5 s is asked for, more than 60 s": lambda: decided(retry_after=61.5),
    "overloaded, and the deadline of 300 s leaves no time": lambda: decided(elapsed_s=300.0),
    "flex has no capacity, again in 8.5 s": lambda: flex(left=600.0),
    "overloaded at flex: on to the standard tier": lambda: flex(left=1.0),
    "openai, status 429, requests, rate_limit_exceeded, x-should-retry false: rate_limited by the provider's code or "
    "message": lambda: classify_response("openai", 429, {"x-should-retry": "false"}, LIMITED),
    "anthropic, status 529: overloaded by the status": lambda: classify_response("anthropic", 529, {}, ""),
    "openai, status 200, own.ParseError: unknown": lambda: classify(
        FailureFacts("openai", 200, exception_names=("own.ParseError",))
    ),
    "openai, builtins.TimeoutError: timeout by builtins.TimeoutError": lambda: classify_error(
        TimeoutError(), provider="openai"
    ),
}
"""Every kind of reason, with what has it."""


def decided(*, retryable=True, retry_after=None, used_up=False, kind=BUSY, **facts):
    policy = RetryPolicy(breaker=False)
    state = RetryState(policy, Random(2))
    while used_up and state.acquire(HERE.provider, BUSY) is not None:
        pass
    failure = Failure(kind, retryable, retry_after, "no", "")
    facts = {"attempt": 1, "elapsed_s": 1.0, "now": 100.0, **facts}
    return decide(policy, state, FailedAttempt(failure, HERE, **facts), Random(1))


def flex(*, left):
    return after_flex(FlexTry(Failure(BUSY, True, None, "no", ""), 1, left, 30.0), Random(1))


@pytest.mark.parametrize("said", CASES)
def test_every_kind_of_reason_is_told_as_ever_and_only_when_it_is_read(said):
    read, fresh = CASES[said](), CASES[said]()
    assert type(unread(read, "reason")) is tuple
    holds_little(unread(read, "reason"))
    assert read.reason == unread(read, "reason") == said
    assert type(unread(fresh, "reason")) is tuple
    assert repr(fresh) == repr(read)
    assert CASES[said]() == read
    assert copy.deepcopy(CASES[said]()) == pickle.loads(pickle.dumps(CASES[said]())) == read  # noqa: S301 - made here


def test_no_kind_of_reason_is_missing_above():
    found = [one for make in CASES.values() for one in templates(unread(make(), "reason"))]
    assert set(found) == written_templates("retry")


def test_a_failure_changes_without_being_read():
    changed = classify_response("anthropic", 529, {}, "").changed(billed="unknown")
    assert (type(unread(changed, "reason")), changed.billed) == (tuple, "unknown")
    assert changed.reason == "anthropic, status 529: overloaded by the status"


@pytest.mark.parametrize("status", [429, 400])
def test_who_hears_of_a_failure_but_not_why_formats_nothing(status, caplog):
    caplog.set_level(logging.ERROR, "llm_cost_middleware")  # the log shows it
    events = []

    def fail(_):
        raise classified(status)

    with CostPipeline(CostConfig(), observers=[events.append], clock=FakeClock()) as pipeline:
        body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello"}]}
        request = get_provider("openai").read_request(body, "chat.completions")
        with pytest.raises(openai.APIStatusError):
            pipeline.run(request, fail, providers=frozenset({"openai"}))
    told = [event for event in events if isinstance(event, Voided | Retried | CallFailed)]
    assert {type(event) for event in told} == ({Voided, Retried, CallFailed} if status == 429 else {Voided, CallFailed})
    assert {type(unread(event, "reason")) for event in told} == {tuple}
    assert all(f"openai, status {status}" in event.reason for event in told)
    ends = {429: "rate_limited after 3 of 3 attempts", 400: "a retry does not help against invalid_request"}
    assert told[-1].reason.endswith(f"; {ends[status]}")


def classified(status):
    """What OpenAI's client raises for a status."""
    request = httpx.Request("POST", "https://api.openai.com/v1/chat/completions")
    kind = {429: openai.RateLimitError, 400: openai.BadRequestError}[status]
    return kind("x" * 10_000, response=httpx.Response(status, request=request), body=None)
