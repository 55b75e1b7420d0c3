"""Batches: refused before their first call when they cannot fit, and shown while they run."""

from __future__ import annotations

import pytest
from langchain_core.prompts import ChatPromptTemplate

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.integrations.langchain import batch_progress, guard, instrument
from llm_cost_middleware.simulator import Fault

PROMPT = ChatPromptTemplate.from_messages([("human", "{q}")])


async def ask(model, inputs, *, later, **kwargs):
    return await model.abatch(inputs, **kwargs) if later else model.batch(inputs, **kwargs)


@pytest.mark.parametrize("later", [False, True])
async def test_a_batch_that_is_expected_not_to_fit_sends_nothing(later, make_harness, claude, sim):
    harness = make_harness(limit="0.01")
    with pytest.raises(BudgetExceededError, match="what is left for the batch exceeded") as caught:
        await ask(guard(claude(), harness.pipeline), ["hi"] * 50, later=later)
    assert caught.value.is_retryable is False
    assert caught.value.requested > caught.value.budget_limit
    assert sim.request_count == 0


@pytest.mark.parametrize("later", [False, True])
async def test_a_batch_in_a_chain_is_examined_as_well(later, make_harness, claude, sim):
    chain = instrument(PROMPT | claude(), make_harness(limit="0.01").pipeline)
    with pytest.raises(BudgetExceededError):
        await ask(chain, [{"q": "hi"}] * 50, later=later)
    assert sim.request_count == 0


@pytest.mark.parametrize("later", [False, True])
async def test_every_scope_of_its_calls_is_examined(later, make_harness, claude, sim):
    harness = make_harness(budgets=[{"scope": "global", "limit": "1"}, {"scope": "user:poor", "limit": "0.0001"}])
    configs = [{"metadata": {"llm_cost": {"user": name}}} for name in ("rich", "poor")]
    with pytest.raises(BudgetExceededError):
        await ask(guard(claude(), harness.pipeline), ["hi", "hi"], later=later, config=configs)
    assert sim.request_count == 0


async def test_a_batch_can_return_what_fits_together_with_the_refusals(make_harness, claude, sim):
    harness = make_harness(limit="0.1", output={"on_insufficient": ["raise"]})
    answers = guard(claude(), harness.pipeline, pinned=True).batch(["hi"] * 50, return_exceptions=True)
    assert 0 < sum(isinstance(answer, BudgetExceededError) for answer in answers) < 50
    harness.check()


@pytest.mark.parametrize("later", [False, True])
async def test_progress_is_shown_on_request(later, make_harness, claude, sim, capsys):
    harness = make_harness(retry={"max_attempts": 1})
    guarded = guard(claude(), harness.pipeline)
    await ask(guarded, ["hi"] * 3, later=later)
    assert capsys.readouterr().err == ""
    sim.script(Fault.status(400))
    await ask(guarded, ["hi"] * 3, later=later, progress=True, return_exceptions=True)
    assert "3/3" in capsys.readouterr().err
    with batch_progress(2) as bar:
        await ask(PROMPT | guarded, [{"q": "hi"}] * 2, later=later, config={"callbacks": [bar]})
    assert "2/2" in capsys.readouterr().err
    harness.check()


def test_an_empty_batch_is_empty(make_harness, claude):
    assert guard(claude(), make_harness().pipeline).batch([]) == []
