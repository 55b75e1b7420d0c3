"""Batches through wrapped clients: held when created, settled when their results are fetched, by whichever process."""

from __future__ import annotations

import io
import json
import time

import anthropic
import openai
import pytest

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import Fault
from llm_cost_middleware.testing import FakeClock

ASK = [{"role": "user", "content": "Count."}]


def claude_requests():
    return [
        {"custom_id": str(at), "params": {"model": model, "max_tokens": 30, "messages": ASK}}
        for at, model in enumerate(["claude-haiku-4-5", "claude-sonnet-4-6", "claude-haiku-4-5"])
    ]


def gpt_file(url="/v1/chat/completions", **more):
    body = {"model": "gpt-5-mini", "messages": ASK, "max_completion_tokens": 30, **more}
    lines = [json.dumps({"custom_id": str(at), "method": "POST", "url": url, "body": body}) for at in range(3)]
    return "in.jsonl", io.BytesIO("\n".join(lines).encode())


def pending(harness):
    return harness.pipeline.ledger.balance("global").pending_nanousd


def settled(harness):
    balance = harness.pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    return balance.settled_nanousd


def test_a_batch_of_claude_is_held_then_settled_at_batch_price(harness, clients):
    client = harness.wrap(clients)["anthropic"]
    batch = client.messages.batches.create(requests=claude_requests(), extra_body={"llm_cost": {"team": "night"}})
    held = pending(harness)
    assert held >= harness.sim.bill.total_nanousd > 0
    results = list(client.messages.batches.results(batch.id))
    assert {type(result).__name__ for result in results} == {"MessageBatchIndividualResponse"}
    assert settled(harness) == harness.sim.bill.total_nanousd
    assert harness.pipeline.ledger.balance("team:night").settled_nanousd == harness.sim.bill.total_nanousd
    assert all("llm_cost" not in repr(request.body) for request in harness.sim.requests)
    list(client.messages.batches.results(batch.id))
    assert settled(harness) == harness.sim.bill.total_nanousd


async def test_an_asynchronous_batch_of_claude_is_settled_too(harness, async_clients):
    client = harness.wrap(async_clients)["anthropic"]
    batch = await client.messages.batches.create(requests=claude_requests())
    results = [result async for result in await client.messages.batches.results(batch.id)]
    assert len(results) == 3
    assert settled(harness) == harness.sim.bill.total_nanousd > 0


def test_a_batch_of_openai_is_held_then_settled_at_batch_price(harness, clients):
    client = harness.wrap(clients)["openai"]
    uploaded = client.files.create(file=gpt_file(), purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert pending(harness) >= harness.sim.bill.total_nanousd > 0
    ended = client.batches.retrieve(batch.id)
    assert client.files.content(ended.output_file_id).text.count("\n") >= 2
    assert settled(harness) == harness.sim.bill.total_nanousd


async def test_an_asynchronous_batch_of_openai_is_settled_too(harness, async_clients):
    client = harness.wrap(async_clients)["openai"]
    uploaded = await client.files.create(file=gpt_file(), purpose="batch")
    batch = await client.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    ended = await client.batches.retrieve(batch.id)
    await client.files.content(ended.output_file_id)
    assert settled(harness) == harness.sim.bill.total_nanousd > 0


def test_a_batch_shows_in_the_records_once_by_the_models_that_answered(harness, clients):
    client = harness.wrap(clients)["anthropic"]
    batch = client.messages.batches.create(requests=claude_requests())
    assert harness.pipeline.records() == ()
    for _ in range(2):
        list(client.messages.batches.results(batch.id))
    tracker = harness.pipeline.tracker
    assert tracker.total_cost.scaleb(9) == settled(harness) == harness.sim.bill.total_nanousd > 0
    assert [(record.model[:14], record.status) for record in tracker] == [
        ("claude-haiku-4", "exact"), ("claude-sonnet-", "exact"),
    ]  # fmt: skip
    assert [record.output_tokens for record in tracker] == [60, 30]
    assert {record.call_id for record in tracker} == {[*harness.pipeline.ledger.rows()][-1].id}


async def test_a_batch_of_openai_shows_in_the_records_once_in_the_process_that_settles_it(
    make_harness, async_clients, tmp_path
):
    ledger = {"url": f"sqlite:///{tmp_path}/ledger.db"}
    first, second = make_harness(ledger=ledger), make_harness(ledger=ledger)
    clock = FakeClock(time.time())
    for harness in (first, second):
        harness.pipeline.close()
        harness.pipeline = CostPipeline(harness.pipeline.config, clock=clock)
    async with first.pipeline, second.pipeline:
        maker, reader = (harness.wrap(async_clients)["openai"] for harness in (first, second))
        uploaded = await maker.files.create(file=gpt_file(), purpose="batch")
        batch = await maker.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        for client in (reader, maker):
            ended = await client.batches.retrieve(batch.id)
            await client.files.content(ended.output_file_id)
            clock.advance(60)
        (record,) = second.pipeline.records()
        assert record.cost_usd.scaleb(9) == first.sim.bill.total_nanousd == settled(second)
        assert (record.provider, record.output_tokens, record.status) == ("openai", 90, "exact")
        assert first.pipeline.records() == ()
        (row,) = second.pipeline.report(by="model").rows
        assert str(row.keys[0]).startswith("gpt-5-mini")


def test_a_batch_that_does_not_fit_is_refused_before_it_is_created(make_harness, clients):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.0001"}])
    with pytest.raises(BudgetExceededError):
        harness.wrap(clients)["anthropic"].messages.batches.create(requests=claude_requests())
    assert harness.sim.request_count == 0


def test_a_batch_that_cannot_be_created_costs_nothing(harness, clients):
    harness.sim.script(Fault.status(400), times=3)
    with pytest.raises(anthropic.BadRequestError):
        harness.wrap(clients)["anthropic"].messages.batches.create(requests=claude_requests())
    assert settled(harness) == 0


def test_a_batch_may_be_fetched_by_another_process(make_harness, clients, tmp_path):
    ledger = {"url": f"sqlite:///{tmp_path}/ledger.db"}
    first, second = make_harness(ledger=ledger), make_harness(ledger=ledger)
    with first.pipeline, second.pipeline:
        batch = first.wrap(clients)["anthropic"].messages.batches.create(requests=claude_requests())
        list(second.wrap(clients)["anthropic"].messages.batches.results(batch.id))
        assert settled(second) == second.sim.bill.total_nanousd > 0


def test_a_batched_request_without_a_cap_is_held_at_its_models_own(harness, clients):
    client = harness.wrap(clients)["openai"]
    uploaded = client.files.create(file=gpt_file(max_completion_tokens=None), purpose="batch")
    client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert pending(harness) > 3 * 100_000 * 1_000  # 128,000 tokens of output at a dollar a million
    assert isinstance(client, openai.OpenAI)
