"""Batches on trio: sent, collected and booked as on asyncio; a failure leaves nothing held."""

from __future__ import annotations

import pytest
from batch_bodies import chat_bodies, claude_bodies

from llm_cost_middleware.batches import BatchPendingError
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.simulator import BatchPace, Fault

trio = pytest.importorskip("trio", reason="needs trio; the extra test brings it")
HOUR_S = 3_600


def on_trio(desk, main):
    async def around():
        async with desk.aclaude, desk.agpt:
            return await main()

    return trio.run(around)


def test_batches_are_answered_and_booked_as_billed(desk):
    desk.sim.batch_pace = BatchPace(delay_s=HOUR_S)
    pipeline = desk.pipeline()
    bodies = [*claude_bodies(12), *chat_bodies(12), *chat_bodies(1, model="gpt-5")]
    answers = on_trio(desk, lambda: pipeline.abatch(bodies, client=desk.aclients))
    assert answers.lanes == {"batch": 24, "standard": 1}
    desk.agree(pipeline)


def test_one_that_is_not_answered_in_time_stays_held_and_is_collected(desk):
    desk.sim.batch_pace = BatchPace(delay_s=HOUR_S)
    pipeline = desk.pipeline()

    async def main():
        with pytest.raises(BatchPendingError) as caught:
            await pipeline.abatch(claude_bodies(12), client=desk.aclients, timeout=60)
        assert pipeline.ledger.balance("global").pending_nanousd > 0
        desk.clock.advance(2 * HOUR_S)
        return await pipeline.acollect_batch(caught.value.batch_id, client=desk.aclients)

    on_trio(desk, main)
    assert [one.state for one in pipeline.batches()] == ["settled"]
    desk.agree(pipeline)


@pytest.mark.parametrize("fault", [Fault.status(400), Fault.status(401), Fault.insufficient_quota()])
def test_one_that_is_refused_leaves_nothing_held(desk, fault):
    desk.sim.script(fault, times=100)
    pipeline = desk.pipeline()
    answers = on_trio(desk, lambda: pipeline.abatch(claude_bodies(12), client=desk.aclients))
    assert {type(answer).__module__ for answer in answers} == {"anthropic"}  # errors of the SDK's
    balance = pipeline.ledger.balance("global")
    assert (balance.pending_nanousd, balance.settled_nanousd, desk.sim.bill.total_nanousd) == (0, 0, 0)


def test_one_that_does_not_fit_is_not_sent(desk):
    pipeline = desk.pipeline(budgets=[{"scope": "global", "limit": "0.0001"}])
    with pytest.raises(BudgetExceededError):
        on_trio(desk, lambda: pipeline.abatch(claude_bodies(12), client=desk.aclients))
    assert pipeline.ledger.balance("global").pending_nanousd == 0
    assert desk.created() == []
