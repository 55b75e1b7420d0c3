"""Attempts, waits, fallbacks and circuits: each attempt is booked at its own model, each retry is an event."""

from __future__ import annotations

import pytest
from openai import InternalServerError

from llm_cost_middleware import CircuitOpenError
from llm_cost_middleware.simulator import Fault

OPENAI, ANTHROPIC = "openai/gpt-5-mini", "anthropic/claude-haiku-4-5-20251001"


def _at(provider):
    return lambda exchange: exchange.provider == provider


def _targets(house):
    return [str(attempt.target) for attempt in house.attempts]


def test_every_retry_is_an_event_with_its_reason_and_its_delay(houses):
    house = houses(retry={"fallback": False})
    house.sim.script(Fault.status(500), times=2)
    house.call(max_tokens=64)
    retried = house.told("Retried")
    assert [(event.attempt, event.kind) for event in retried] == [(1, "server_error"), (2, "server_error")]
    assert [event.delay_s for event in retried] == house.clock.slept
    assert all("status 500" in event.reason for event in retried)
    assert house.resolutions == ("void", "void", "exact")
    house.check()


def test_a_fallback_books_each_attempt_at_its_own_model(houses):
    house = houses(retry={"max_attempts": 2})
    house.sim.script(Fault.reset(billed=True), match=_at("openai"))
    house.call(max_tokens=64)
    assert _targets(house) == [OPENAI, ANTHROPIC]
    first, second = house.pipeline.records()
    assert (first.model, first.status) == ("gpt-5-mini", "unconfirmed")
    assert (second.model, second.status) == ("claude-haiku-4-5-20251001", "exact")
    scopes = {standing.scope: standing.balance.settled_nanousd for standing in house.pipeline.ledger.balances()}
    assert scopes["provider:openai"] == first.cost_nanousd
    assert scopes["model:claude-haiku-4-5-20251001"] == second.cost_nanousd
    assert house.told("Retried")[0].next_model == ANTHROPIC
    house.check()


def test_a_wait_beyond_the_cap_goes_elsewhere(houses):
    house = houses()
    house.sim.script(Fault.status(429, retry_after=600), match=_at("openai"))
    house.call(max_tokens=64)
    assert _targets(house) == [OPENAI, ANTHROPIC]
    assert house.clock.slept == []
    house.check()


def test_a_wait_beyond_the_cap_with_nowhere_to_go_is_raised_with_its_time(houses):
    house = houses()
    house.sim.script(Fault.status(429, retry_after=600))
    with pytest.raises(Exception, match="429") as caught:
        house.ask("openai")
    assert any("600 s" in note for note in caught.value.__notes__)
    assert (house.clock.slept, len(house.sim.requests)) == ([], 1)
    house.check()


def test_an_attempt_may_take_no_longer_than_is_left_of_the_deadline(houses):
    house = houses(retry={"deadline_s": 100, "fallback": False}, providers={"openai": {"timeout_s": 90}})
    house.sim.script(Fault.status(429, retry_after=55), times=2)
    with pytest.raises(Exception, match="429"):
        house.call(max_tokens=64, providers=["openai"])
    first, second = house.attempts
    (slept,) = house.clock.slept
    assert 55 <= slept <= 70
    assert (first.timeout_s, second.timeout_s) == (90, pytest.approx(100 - slept))
    (failed,) = house.told("CallFailed")
    assert "deadline" in failed.reason
    house.check()


def test_a_target_that_keeps_failing_is_cut_off(houses):
    house = houses(retry={"max_attempts": 1})
    house.sim.script(Fault.status(500), times=100)
    refused = None
    for _ in range(30):
        try:
            house.ask("openai")
        except CircuitOpenError as error:
            refused = error
            break
        except InternalServerError:
            continue
    assert refused is not None
    assert refused.deployment == OPENAI
    assert 0 < refused.retry_after <= 10
    assert len(house.sim.requests) < 30
    house.check()


def test_around_an_open_circuit_leads_another_model(houses):
    house = houses(retry={"max_attempts": 1})
    house.sim.script(Fault.status(500), times=100, match=_at("openai"))
    while True:
        try:
            house.call(max_tokens=64)
        except InternalServerError:
            continue
        else:
            break
    assert _targets(house)[-2:] == [OPENAI, ANTHROPIC]
    house.attempts.clear()
    house.call(max_tokens=64)
    assert _targets(house) == [ANTHROPIC]
    house.check()


def test_without_fallback_an_open_circuit_is_an_error(houses):
    house = houses(retry={"max_attempts": 1, "fallback": False})
    house.sim.script(Fault.status(500), times=100, match=_at("openai"))
    with pytest.raises(CircuitOpenError):
        for _ in range(30):
            try:
                house.call(max_tokens=64)
            except InternalServerError:
                continue
    assert set(_targets(house)) == {OPENAI}
    house.check()


def test_the_circuit_closes_when_the_target_is_well_again(houses):
    house = houses(retry={"max_attempts": 1, "fallback": False})
    house.sim.script(Fault.status(500), times=10)
    for _ in range(10):
        with pytest.raises(Exception, match="500"):
            house.ask("openai")
    with pytest.raises(CircuitOpenError) as caught:
        house.ask("openai")
    house.clock.advance(caught.value.retry_after + 1)
    for _ in range(10):
        house.ask("openai")
        house.clock.advance(1)
    house.check()


def test_a_second_attempt_that_does_not_fit_is_refused_and_says_what_the_first_met(houses):
    from llm_cost_middleware import BudgetExceededError

    house = houses(budgets=[{"scope": "global", "limit": "0.0005"}], output={"on_insufficient": ["raise"]})
    house.sim.script(Fault.reset(billed=True))
    with pytest.raises(BudgetExceededError) as caught:
        house.ask("openai")
    assert "Connection" in type(caught.value.__cause__).__name__
    assert house.resolutions == ("unconfirmed",)
    house.check()


def test_an_answer_that_was_billed_and_cannot_be_read_is_booked_at_what_it_cost(houses):
    from llm_cost_middleware.request import CallRequest, Message, Part
    from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport, attach_usage

    house = houses()
    request = CallRequest("openai", "gpt-5-mini", (Message("user", (Part("text", "hi"),)),), model_pinned=True)

    def send(_):
        error = ValueError("no JSON in it")
        items = (BilledItem(TokenUsage(uncached_input=10, output=5)),)
        attach_usage(error, UsageReport(items, model="gpt-5-mini", complete=True))
        raise error

    async def asend(attempt):
        send(attempt)

    with pytest.raises(ValueError, match="no JSON"):
        house.face.run(lambda: house.pipeline.run(request, send), lambda: house.pipeline.arun(request, asend))
    (record,) = house.pipeline.records()
    assert (record.status, record.input_tokens, record.output_tokens) == ("exact", 10, 5)
    assert house.balance.settled_nanousd == record.cost_nanousd > 0
