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
async def test_a_batch_that_is_expected_not_to_fit_sends_nothing(later, house, claude, sim):
    books = house(limit="0.01")
    with pytest.raises(BudgetExceededError, match="budget of batch exceeded") as caught:
        await ask(guard(claude(), books.pipeline), ["hi"] * 50, later=later)
    assert caught.value.is_retryable is False
    assert caught.value.requested > caught.value.budget_limit
    assert sim.request_count == 0


@pytest.mark.parametrize("later", [False, True])
async def test_a_batch_in_a_chain_is_looked_at_as_well(later, house, claude, sim):
    chain = instrument(PROMPT | claude(), house(limit="0.01").pipeline)
    with pytest.raises(BudgetExceededError):
        await ask(chain, [{"q": "hi"}] * 50, later=later)
    assert sim.request_count == 0


@pytest.mark.parametrize("later", [False, True])
async def test_every_scope_of_its_calls_is_looked_at(later, house, claude, sim):
    books = house(budgets=[{"scope": "global", "limit": "1"}, {"scope": "user:poor", "limit": "0.0001"}])
    configs = [{"metadata": {"llm_cost": {"user": name}}} for name in ("rich", "poor")]
    with pytest.raises(BudgetExceededError):
        await ask(guard(claude(), books.pipeline), ["hi", "hi"], later=later, config=configs)
    assert sim.request_count == 0


async def test_who_wants_what_fits_gets_it_with_the_refusals(house, claude, sim):
    books = house(limit="0.1", output={"on_insufficient": ["raise"]})
    answers = guard(claude(), books.pipeline, pinned=True).batch(["hi"] * 50, return_exceptions=True)
    assert 0 < sum(isinstance(answer, BudgetExceededError) for answer in answers) < 50
    books.check()


@pytest.mark.parametrize("later", [False, True])
async def test_progress_is_shown_on_request(later, house, claude, sim, capsys):
    books = house(retry={"max_attempts": 1})
    guarded = guard(claude(), books.pipeline)
    await ask(guarded, ["hi"] * 3, later=later)
    assert capsys.readouterr().err == ""
    sim.script(Fault.status(400))
    await ask(guarded, ["hi"] * 3, later=later, progress=True, return_exceptions=True)
    assert "3/3" in capsys.readouterr().err
    with batch_progress(2) as bar:
        await ask(PROMPT | guarded, [{"q": "hi"}] * 2, later=later, config={"callbacks": [bar]})
    assert "2/2" in capsys.readouterr().err
    books.check()


def test_an_empty_batch_is_empty(house, claude):
    assert guard(claude(), house().pipeline).batch([]) == []
