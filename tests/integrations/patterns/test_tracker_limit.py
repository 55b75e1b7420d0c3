"""What is left of a tracker's limit: no attempt that can cost more is sent."""

from decimal import Decimal

import pytest

from llm_cost_middleware import (
    BudgetExceededError,
    CostConfig,
    CostPipeline,
    CostRecord,
    CostTracker,
    aprocess,
    aprocess_many,
    cost_context,
    process,
    process_many,
)
from llm_cost_middleware.patterns.process import PatternCall
from llm_cost_middleware.simulator import Answer

PROVIDERS = ("anthropic", "openai")


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("left", ["0", "0.0000001"])
def test_a_tracker_with_less_left_than_a_call_can_cost_refuses_it(sim, clients, provider, left):
    spent = CostRecord("m", 1, 1, "0.02")
    for tracker in (CostTracker(left), CostTracker(Decimal(left) + spent.cost_usd, [spent])):
        for call in (
            lambda t: process("hello", CostConfig(), t, client=clients[provider]),
            lambda t: process_many(["hello"], CostConfig(), t, client=clients[provider]),
        ):
            with pytest.raises(BudgetExceededError) as caught:
                call(tracker)
            assert (caught.value.total_cost, caught.value.budget_limit) == (tracker.total_cost, tracker.budget_limit)
            assert caught.value.requested > 0
            assert caught.value.scope is None
    batch = process_many(["hello"] * 3, CostConfig(), CostTracker(left), client=clients[provider], anyway=True)
    assert (len(batch.done), batch.exhausted.budget_limit) == (0, Decimal(left))
    assert not sim.requests


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_async_form_refuses_it_too(sim, async_clients, provider):
    with pytest.raises(BudgetExceededError, match="requested"):
        await aprocess("hello", CostConfig(), CostTracker("0"), client=async_clients[provider])
    many = await aprocess_many(
        ["hello"] * 3, CostConfig(), CostTracker("0.0000001"), client=async_clients[provider], anyway=True
    )
    assert many.exhausted is not None
    assert not sim.requests


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_a_tracker_has_left_caps_the_answer_and_is_never_passed(sim, clients, provider):
    tracker = CostTracker("0.004")

    def spend():
        nonlocal tracker
        while True:
            _, tracker = process("hello", CostConfig(), tracker, client=clients[provider])
            assert tracker.total_cost <= tracker.budget_limit

    with pytest.raises(BudgetExceededError) as caught:
        spend()
    assert caught.value.requested > tracker.budget_limit - tracker.total_cost
    assert len(tracker) == len(sim.bill.lines) > 0
    assert tracker.total_cost <= tracker.budget_limit


def test_a_call_that_may_cost_less_than_is_left_is_told_of_its_own_limit(sim, clients):
    with cost_context(max_cost="0.0000001"), pytest.raises(BudgetExceededError) as caught:
        process("hello", CostConfig(), CostTracker("1"), client=clients["openai"])
    assert caught.value.scope == "call"
    assert not sim.requests


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_limit_holds_its_own_call_and_not_what_a_check_calls(sim, clients, provider):
    judge = CostTracker("100")

    def accept(_):
        nonlocal judge
        _, judge = process("judge " * 3000, CostConfig(), judge, client=clients[provider])
        return True

    result, tracker = process("hi", CostConfig(), CostTracker("0.01"), client=clients[provider], accept=accept)
    assert result.text
    assert (len(tracker), len(judge), len(sim.bill.lines)) == (1, 1, 2)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_nor_does_the_async_form(sim, async_clients, clients, provider):
    def accept(_):
        return bool(process("judge " * 3000, CostConfig(), CostTracker("100"), client=clients[provider]))

    _, tracker = await aprocess("hi", CostConfig(), CostTracker("0.01"), client=async_clients[provider], accept=accept)
    assert (len(tracker), len(sim.bill.lines)) == (1, 2)


def test_a_refusal_out_of_a_check_is_told_as_it_is(sim, clients):
    def accept(_):
        with cost_context(max_cost="0.0000001"):
            return bool(process("judge", CostConfig(), CostTracker("100"), client=clients["openai"]))

    with pytest.raises(BudgetExceededError) as caught:
        process("hi", CostConfig(), CostTracker("0.01"), client=clients["openai"], accept=accept)
    assert (caught.value.scope, caught.value.budget_limit) == ("call", Decimal("0.0000001"))
    assert len(sim.bill.lines) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_tracker_that_passed_its_limit_meanwhile_refuses_the_call_as_one_with_nothing_left(sim, clients, provider):
    over = CostTracker("0.01", [CostRecord("m", 1, 1, "0.02")])
    with pytest.raises(BudgetExceededError, match="requested") as caught:
        PatternCall(clients[provider], CostConfig(), "").send("hello", tracker=over)
    assert caught.value.total_cost == Decimal("0.02")
    assert not sim.requests


@pytest.mark.parametrize("limit", ["0.0025", "0.0045", "0.0085", "0.05"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_answers_that_a_check_rejects_pass_no_limit_together(sim, clients, provider, limit):
    sim.responder = lambda _: Answer("word " * 5_000)
    config = CostConfig(routing={"policy": "cascade", "accept": "check"})
    result, tracker = process("hello", config, CostTracker(limit), client=clients[provider], accept=lambda _: False)
    assert tracker.total_cost <= tracker.budget_limit
    assert result.record.call_id == tracker.records[-1].call_id
    assert 1 <= len(tracker) == len(sim.bill.lines)
    assert len(tracker) == 2 or limit != "0.05"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_calls_at_once_pass_the_limit_by_what_runs_beside_the_last_at_most(sim, clients, provider):
    width, texts = 3, ["hello"] * 12
    sim.responder = lambda _: Answer("word " * 200)
    config = CostConfig(output={"default_max_tokens": 500})
    many = process_many(texts, config, CostTracker("0.004"), client=clients[provider], anyway=True, concurrency=width)
    dearest = sorted((record.cost_usd for record in many.tracker.records), reverse=True)
    assert many.tracker.total_cost <= many.tracker.budget_limit + sum(dearest[: width - 1])
    assert many.exhausted is not None or len(many.done) == len(texts)
    assert len(many.tracker) == len(sim.bill.lines) >= width


def test_a_budget_of_the_ledger_holds_calls_at_once_together(sim, clients):
    sim.responder = lambda _: Answer("word " * 200)
    with CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "0.004"}])) as pipeline:
        many = process_many(
            ["hello"] * 12, pipeline, CostTracker("1"), client=clients["openai"], anyway=True, concurrency=3
        )
        assert 0 < many.tracker.total_cost <= Decimal("0.004")
        assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd
