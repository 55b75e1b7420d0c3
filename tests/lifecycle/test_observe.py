"""Observe mode: nothing is refused, nothing is changed on the wire, and everything is booked."""

from __future__ import annotations

import pytest

from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.simulator import Fault

PROVIDERS = ("anthropic", "openai")
LONG = "a rule that never changes. " * 1_500
NOTHING = [{"scope": "global", "limit": "0.000001"}]


@pytest.fixture
def observing(make_harness):
    """A harness that only watches, with a budget that fits nothing."""
    return make_harness(mode="observe", budgets=NOTHING, routing={"text_threshold": 1})


class Exhaust:
    @staticmethod
    def sync(stream):
        return [*stream]

    @staticmethod
    async def asynchronous(stream):
        return [chunk async for chunk in stream]


def _wire(request):
    """What decides the answer and its price; the names of connections and processes differ from call to call."""
    headers = {name: value for name, value in request.headers.items() if "timeout" in name or name == "anthropic-beta"}
    return request.path, request.body, headers


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("long", [False, True])
def test_the_request_goes_out_as_the_caller_wrote_it(observing, provider, long):
    body = observing.body(provider, model={"anthropic": "claude-sonnet-4-6", "openai": "gpt-5.1"}[provider])
    body["messages"] = [{"role": "user", "content": LONG if long else "hello"}]
    if provider == "openai":
        del body["max_completion_tokens"]
    observing.caller.ask(observing.caller.plain(provider), provider, **body)
    observing.caller.ask(observing.caller.client(provider, observing.pipeline), provider, **body)
    plain, observed = observing.sim.requests
    assert _wire(observed) == _wire(plain)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_goes_out_as_it_was_written_and_only_asks_for_its_usage(observing, provider):
    body = observing.body(provider)
    chunks = observing.caller.stream(observing.caller.plain(provider), provider, Exhaust, **body)
    observed = observing.caller.stream(observing.caller.client(provider, observing.pipeline), provider, Exhaust, **body)
    assert len(observed) == len(chunks)  # the chunk that carries the usage is not the caller's
    (path, plain, timeout), (other_path, sent, other_timeout) = map(_wire, observing.sim.requests)
    assert sent.pop("stream_options", None) == ({"include_usage": True} if provider == "openai" else None)
    assert (other_path, sent, other_timeout) == (path, plain, timeout)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_does_not_fit_is_sent_booked_and_reported(observing, provider):
    for _ in range(3):
        observing.ask(provider)
    assert len(observing.sim.requests) == 3
    assert observing.resolutions == ("exact",) * 3
    assert observing.balance.settled_nanousd == observing.sim.bill.total_nanousd
    assert observing.balance.available < 0
    refusals = observing.reported("BudgetRefused")
    assert [(event.enforced, event.scope) for event in refusals] == [(False, "global")] * 3
    assert not observing.reported("CallFailed", "OutputCapReached")


def test_adjustments_are_reported_and_not_made(make_harness):
    harness = make_harness(mode="observe", budgets=[{"scope": "global", "limit": "0.02"}])
    harness.ask("openai", model="gpt-5.1", max_completion_tokens=4_000)
    (adjusted,) = harness.reported("RequestAdjusted")
    assert (adjusted.action, adjusted.before, adjusted.enforced) == ("cap_output", "4000", False)
    assert harness.sim.requests[0].body["max_completion_tokens"] == 4_000
    assert not harness.reported("BudgetRefused")


def test_the_decision_is_reported_and_the_model_that_was_asked_for_is_kept(make_harness):
    """An unpinned call that names a real model, as a guarded chat model makes it."""
    observing = make_harness(mode="observe", budgets=NOTHING)
    request = CallRequest("openai", "gpt-5.1", (Message("user", (Part("text", "hi"),)),), endpoint="chat.completions")
    sent = []

    def send(attempt):
        sent.append(attempt)
        return CallResult("an answer", _reading())

    async def asend(attempt):
        return send(attempt)

    observing.caller.run(
        lambda: observing.pipeline.run(request, send, providers=frozenset(PROVIDERS)),
        lambda: observing.pipeline.arun(request, asend, providers=frozenset(PROVIDERS)),
    )
    assert (str(sent[0].target), sent[0].max_tokens, sent[0].cache_plan, sent[0].timeout_s) == (
        "openai/gpt-5.1", None, None, None,
    )  # fmt: skip
    (routed,) = observing.reported("Routed")
    assert routed.requested == "gpt-5.1"
    assert observing.pipeline.decisions()[0].target != sent[0].target
    assert observing.pipeline.records()[0].model == "gpt-5.1"


def test_a_name_that_means_choose_one_is_routed_all_the_same(observing):
    observing.call(model="smart", max_tokens=64)
    assert observing.attempts[0].target.model in {"claude-sonnet-4-6", "gpt-5.1"}


def test_a_request_that_no_model_of_the_tiers_may_take_is_sent_to_the_named_model(observing):
    audio = Part("audio", media={"seconds": 3})
    request = CallRequest(
        "openai", "gpt-audio", (Message("user", (Part("text", "hi"), audio)),), endpoint="chat.completions",
        params={"modalities": ["text"]},
    )  # fmt: skip
    sent = []

    def send(attempt):
        sent.append(attempt.target)
        return CallResult("an answer", _reading())

    async def asend(attempt):
        return send(attempt)

    observing.caller.run(
        lambda: observing.pipeline.run(request, send, providers=frozenset(PROVIDERS)),
        lambda: observing.pipeline.arun(request, asend, providers=frozenset(PROVIDERS)),
    )
    assert str(sent[0]) == "openai/gpt-audio"


def test_a_limit_of_the_call_itself_is_only_reported(make_harness):
    harness = make_harness(mode="observe")
    harness.ask("openai", extra_body={"llm_cost": {"max_cost": "0.0000001"}})
    (refused,) = harness.reported("BudgetRefused")
    assert (refused.scope, refused.enforced) == ("call", False)
    harness.check()


def test_failures_are_retried_where_they_happened_and_nowhere_else(make_harness):
    harness = make_harness(mode="observe")
    harness.sim.script(Fault.status(500), times=3)
    with pytest.raises(Exception, match="500"):
        harness.call(model="smart", max_tokens=64)
    assert len({attempt.target for attempt in harness.attempts}) == 1
    assert harness.resolutions == ("void",) * 3
    harness.check()


def test_a_target_that_keeps_failing_is_not_cut_off(make_harness):
    harness = make_harness(mode="observe", retry={"max_attempts": 1})
    harness.sim.script(Fault.status(500), times=30)
    for _ in range(30):
        with pytest.raises(Exception, match="500"):
            harness.ask("openai")
    assert len(harness.sim.requests) == 30


def _reading():
    from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

    return UsageReport(items=(BilledItem(TokenUsage(uncached_input=10, output=5)),), complete=True)
