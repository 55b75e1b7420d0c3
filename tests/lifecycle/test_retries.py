"""Attempts, waits, fallbacks and circuits: each attempt is booked at its own model, each retry is an event."""

from __future__ import annotations

import pytest
from openai import InternalServerError

from llm_cost_middleware import CircuitOpenError
from llm_cost_middleware.simulator import Fault

OPENAI, ANTHROPIC = "openai/gpt-5-mini", "anthropic/claude-haiku-4-5-20251001"


def _at(provider):
    return lambda exchange: exchange.provider == provider


def _targets(harness):
    return [str(attempt.target) for attempt in harness.attempts]


def test_every_retry_is_an_event_with_its_reason_and_its_delay(make_harness):
    harness = make_harness(retry={"fallback": False})
    harness.sim.script(Fault.status(500), times=2)
    harness.call(max_tokens=64)
    retried = harness.reported("Retried")
    assert [(event.attempt, event.kind) for event in retried] == [(1, "server_error"), (2, "server_error")]
    assert [event.delay_s for event in retried] == harness.clock.slept
    assert all("status 500" in event.reason for event in retried)
    assert harness.resolutions == ("void", "void", "exact")
    harness.check()


def test_a_fallback_books_each_attempt_at_its_own_model(make_harness):
    harness = make_harness(retry={"max_attempts": 2})
    harness.sim.script(Fault.reset(billed=True), match=_at("openai"))
    harness.call(max_tokens=64)
    assert _targets(harness) == [OPENAI, ANTHROPIC]
    first, second = harness.pipeline.records()
    assert (first.model, first.status) == ("gpt-5-mini", "unconfirmed")
    assert (second.model, second.status) == ("claude-haiku-4-5-20251001", "exact")
    scopes = {standing.scope: standing.balance.settled_nanousd for standing in harness.pipeline.ledger.balances()}
    assert scopes["provider:openai"] == first.cost_nanousd
    assert scopes["model:claude-haiku-4-5-20251001"] == second.cost_nanousd
    assert harness.reported("Retried")[0].next_model == ANTHROPIC
    harness.check()


def test_a_wait_beyond_the_cap_goes_elsewhere(make_harness):
    harness = make_harness()
    harness.sim.script(Fault.status(429, retry_after=600), match=_at("openai"))
    harness.call(max_tokens=64)
    assert _targets(harness) == [OPENAI, ANTHROPIC]
    assert harness.clock.slept == []
    harness.check()


def test_a_wait_beyond_the_cap_with_nowhere_to_go_is_raised_with_its_time(make_harness):
    harness = make_harness()
    harness.sim.script(Fault.status(429, retry_after=600))
    with pytest.raises(Exception, match="429") as caught:
        harness.ask("openai")
    assert any("600 s" in note for note in caught.value.__notes__)
    assert (harness.clock.slept, len(harness.sim.requests)) == ([], 1)
    harness.check()


@pytest.mark.parametrize("cut", [False, True], ids=["runs on", "cut"])
def test_the_deadline_lets_no_attempt_begin_and_cuts_one_only_where_asked(make_harness, cut):
    retry = {"deadline_s": 100, "fallback": False, "cut_at_deadline": cut}
    harness = make_harness(retry=retry, providers={"openai": {"timeout_s": 90}})
    harness.sim.script(Fault.status(429, retry_after=55), times=2)
    with pytest.raises(Exception, match="429"):
        harness.call(max_tokens=64, providers=["openai"])
    first, second = harness.attempts
    (slept,) = harness.clock.slept
    assert 55 <= slept <= 70
    assert (first.timeout_s, second.timeout_s) == (90, 90)
    assert (first.limit_s(chosen=False), first.limit_s(chosen=True)) == (90, 100 if cut else None)
    assert second.limit_s(chosen=False) == (pytest.approx(100 - slept) if cut else 90)
    (failed,) = harness.reported("CallFailed")
    assert "deadline" in failed.reason
    harness.check()


def test_a_target_that_keeps_failing_is_cut_off(make_harness):
    harness = make_harness(retry={"max_attempts": 1})
    harness.sim.script(Fault.status(500), times=100)
    refused = None
    for _ in range(30):
        try:
            harness.ask("openai")
        except CircuitOpenError as error:
            refused = error
            break
        except InternalServerError:
            continue
    assert refused is not None
    assert refused.deployment == OPENAI
    assert 0 < refused.retry_after <= 10
    assert len(harness.sim.requests) < 30
    harness.check()


def test_around_an_open_circuit_leads_another_model(make_harness):
    harness = make_harness(retry={"max_attempts": 1})
    harness.sim.script(Fault.status(500), times=100, match=_at("openai"))
    while True:
        try:
            harness.call(max_tokens=64)
        except InternalServerError:
            continue
        else:
            break
    assert _targets(harness)[-2:] == [OPENAI, ANTHROPIC]
    harness.attempts.clear()
    harness.call(max_tokens=64)
    assert _targets(harness) == [ANTHROPIC]
    harness.check()


def test_without_fallback_an_open_circuit_is_an_error(make_harness):
    harness = make_harness(retry={"max_attempts": 1, "fallback": False})
    harness.sim.script(Fault.status(500), times=100, match=_at("openai"))
    with pytest.raises(CircuitOpenError):
        for _ in range(30):
            try:
                harness.call(max_tokens=64)
            except InternalServerError:
                continue
    assert set(_targets(harness)) == {OPENAI}
    harness.check()


def test_the_circuit_closes_when_the_target_recovers(make_harness):
    harness = make_harness(retry={"max_attempts": 1, "fallback": False})
    harness.sim.script(Fault.status(500), times=10)
    for _ in range(10):
        with pytest.raises(Exception, match="500"):
            harness.ask("openai")
    with pytest.raises(CircuitOpenError) as caught:
        harness.ask("openai")
    harness.clock.advance(caught.value.retry_after + 1)
    for _ in range(10):
        harness.ask("openai")
        harness.clock.advance(1)
    harness.check()


def test_a_second_attempt_that_does_not_fit_is_refused_and_says_what_the_first_met(make_harness):
    from llm_cost_middleware import BudgetExceededError

    harness = make_harness(budgets=[{"scope": "global", "limit": "0.0002"}], output={"on_insufficient": ["raise"]})
    harness.sim.script(Fault.reset(billed=True))
    with pytest.raises(BudgetExceededError) as caught:
        harness.ask("openai")
    assert "Connection" in type(caught.value.__cause__).__name__
    assert harness.resolutions == ("unconfirmed",)
    harness.check()


def test_an_answer_that_was_billed_and_cannot_be_read_is_booked_at_what_it_cost(make_harness):
    from llm_cost_middleware.request import CallRequest, Message, Part
    from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport, attach_usage

    harness = make_harness()
    request = CallRequest("openai", "gpt-5-mini", (Message("user", (Part("text", "hi"),)),), model_pinned=True)

    def send(_):
        error = ValueError("no JSON in it")
        items = (BilledItem(TokenUsage(uncached_input=10, output=5)),)
        attach_usage(error, UsageReport(items, model="gpt-5-mini", complete=True))
        raise error

    async def asend(attempt):
        send(attempt)

    with pytest.raises(ValueError, match="no JSON"):
        harness.caller.run(lambda: harness.pipeline.run(request, send), lambda: harness.pipeline.arun(request, asend))
    (record,) = harness.pipeline.records()
    assert (record.status, record.input_tokens, record.output_tokens) == ("exact", 10, 5)
    assert harness.balance.settled_nanousd == record.cost_nanousd > 0
