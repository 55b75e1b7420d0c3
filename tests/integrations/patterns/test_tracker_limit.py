"""What is left of a tracker's limit: no attempt that can cost more is sent."""

from decimal import Decimal

import pytest

from llm_cost_middleware import (
    BudgetExceededError,
    CostConfig,
    CostRecord,
    CostTracker,
    aprocess,
    aprocess_many,
    cost_context,
    process,
    process_many,
)

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
