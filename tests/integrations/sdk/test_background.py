"""Answers in the background: held when they are asked for, settled once when they are retrieved, by whoever does it."""

from __future__ import annotations

import time

import openai
import pytest

from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import Fault
from llm_cost_middleware.testing import FakeClock

ASK = {"model": "gpt-5-mini", "input": "Count.", "max_output_tokens": 40}
DAY = 86_400


def pending(harness):
    return harness.pipeline.ledger.balance("global").pending_nanousd


def ask(client, **more):
    return client.responses.create(**ASK, background=True, **more)


def held(harness):
    """The money is set aside, and nothing is booked."""
    balance = harness.pipeline.ledger.balance("global")
    assert balance.settled_nanousd == 0
    assert balance.pending_nanousd >= harness.sim.bill.total_nanousd > 0
    assert harness.pipeline.records() == ()


@pytest.fixture
def client(harness, clients):
    return harness.wrap(clients)["openai"]


def test_it_is_held_until_it_is_finished_and_booked_once_however_often_it_is_read(harness, client):
    answer = ask(client, extra={"llm_cost": {"team": "night"}})
    held(harness)
    assert client.responses.retrieve(answer.id).status == "in_progress"
    held(harness)
    for _ in range(3):
        assert client.responses.retrieve(answer.id).status == "incomplete"
        harness.agree()
    (record,) = harness.pipeline.records()
    assert (record.model, record.status, record.usage.output) == ("gpt-5-mini", "exact", 40)
    assert harness.pipeline.ledger.balance("team:night").settled_nanousd == harness.sim.bill.total_nanousd
    assert [row.kind for row in harness.pipeline.ledger.rows()] == ["reserve", "settle"]


def test_it_is_settled_by_a_raw_read_and_by_a_stream_of_it(harness, client):
    for read in (
        lambda answer: client.responses.with_raw_response.retrieve(answer.id).parse(),
        lambda answer: list(client.responses.retrieve(answer.id, stream=True)),
    ):
        answer = ask(client)
        client.responses.retrieve(answer.id)
        assert pending(harness) > 0
        read(answer)
        harness.agree()
    assert len(harness.pipeline.records()) == 2


async def test_an_asynchronous_client_settles_it_too(harness, async_clients):
    client = harness.wrap(async_clients)["openai"]
    for streamed in (False, True):
        answer = await client.responses.create(**ASK, background=True)
        assert (await client.responses.retrieve(answer.id)).status == "in_progress"
        assert pending(harness) > 0
        if streamed:
            assert [event async for event in await client.responses.retrieve(answer.id, stream=True)]
        else:
            await client.responses.retrieve(answer.id)
        harness.agree()


def test_one_that_is_streamed_to_its_end_is_booked_by_its_stream(harness, client):
    assert list(ask(client, stream=True))[-1].type == "response.incomplete"
    harness.agree()


@pytest.mark.parametrize("how", ["left", "cut"])
def test_one_whose_stream_is_left_goes_on_and_is_settled_when_it_is_retrieved(harness, client, how):
    if how == "cut":
        harness.sim.script(Fault.cut(after=4))
    answer = None
    with ask(client, stream=True) as stream:
        try:
            for event in stream:
                answer = event.response if event.type == "response.created" else answer
                if how == "left" and event.type == "response.in_progress":
                    break
        except (openai.APIError, OSError):
            pass
    assert answer is not None
    assert pending(harness) > 0
    assert harness.pipeline.records() == ()
    body = client.responses.retrieve(answer.id)
    assert body.usage is not None
    assert harness.settled > 0
    (record,) = harness.pipeline.records()
    assert record.usage.output == 40


def test_one_that_is_cancelled_costs_at_most_what_was_set_aside(harness, client):
    answer = ask(client)
    before = pending(harness)
    assert client.responses.cancel(answer.id).status == "cancelled"
    assert harness.settled == before >= harness.sim.bill.total_nanousd
    assert harness.statuses == ["unconfirmed"], "nobody says what it cost until then"
    client.responses.retrieve(answer.id)
    assert harness.settled == before


def test_one_that_is_finished_when_it_is_cancelled_is_booked_at_its_cost(harness, client):
    answer = ask(client)
    client.responses.retrieve(answer.id)
    client.responses.cancel(answer.id)
    harness.agree()


def test_one_that_nobody_retrieves_is_charged_after_two_days(sim, clients):
    clock = FakeClock(time.time())
    pipeline = CostPipeline({"budgets": [{"scope": "global", "limit": "100"}]}, clock=clock)
    ask(wrap_openai(clients["openai"], pipeline))
    reserved = pipeline.ledger.balance("global").pending_nanousd
    clock.advance(1.9 * DAY)
    assert pipeline.ledger.balance("global").pending_nanousd == reserved
    clock.advance(0.2 * DAY)
    pipeline.ledger.sweep()
    assert pipeline.ledger.balance("global").settled_nanousd == reserved
    pipeline.close()


@pytest.mark.parametrize("url", ["sqlite:///{}/ledger.db"])
def test_another_process_settles_it_once_by_the_ledger(sim, clients, tmp_path, url):
    config = {"ledger": {"url": url.format(tmp_path)}, "budgets": [{"scope": "global", "limit": "100"}]}
    with CostPipeline(config) as one, CostPipeline(config) as two, CostPipeline(config) as three:
        answer = ask(wrap_openai(clients["openai"], one))
        clients["openai"].responses.retrieve(answer.id)  # by a client that nobody wrapped
        assert one.ledger.balance("global").settled_nanousd == 0
        for _ in range(2):
            wrap_openai(clients["openai"], two).responses.retrieve(answer.id)
        wrap_openai(clients["openai"], three).responses.retrieve(answer.id)
        wrap_openai(clients["openai"], one).responses.retrieve(answer.id)
        for pipeline in (one, two, three):
            balance = pipeline.ledger.balance("global")
            assert (balance.pending_nanousd, balance.settled_nanousd) == (0, sim.bill.total_nanousd)
        assert [len(pipeline.records()) for pipeline in (one, two, three)] == [0, 1, 0]


def test_an_observer_books_it_at_its_bound_and_corrects_it(sim, clients):
    with CostPipeline({"mode": "observe", "budgets": [{"scope": "global", "limit": "0.0000001"}]}) as pipeline:
        client = wrap_openai(clients["openai"], pipeline)
        answer = ask(client)
        assert pipeline.ledger.balance("global").settled_nanousd > sim.bill.total_nanousd
        for _ in range(3):
            client.responses.retrieve(answer.id)
        assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd


def test_a_response_that_is_no_bill_of_ours_passes(harness, client, clients):
    foreign = clients["openai"].responses.create(**ASK)
    assert client.responses.retrieve(foreign.id).id == foreign.id
    assert list(harness.pipeline.ledger.rows()) == []
