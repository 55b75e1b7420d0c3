"""Answers in the background: held when they are asked for, settled once when they are retrieved, by whoever does it."""

from __future__ import annotations

import time

import httpx
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


WITHOUT_BILL = {"create", "parse", "compact", "connect", "delete", "input_items", "input_tokens"}
"""Methods that ask for an answer of their own, or show none: of an answer that is deleted, nobody says the bill."""
READS = {
    "retrieve": lambda r, name: r.retrieve(name),
    "retrieve stream": lambda r, name: list(r.retrieve(name, stream=True)),
    "retrieve stream, left at its end": lambda r, name: left_at_the_end(r.retrieve(name, stream=True)),
    "stream": lambda r, name: listed(r.stream(response_id=name)),
    "raw retrieve": lambda r, name: r.with_raw_response.retrieve(name).parse(),
    "raw retrieve, not parsed": lambda r, name: r.with_raw_response.retrieve(name),
    "raw retrieve stream": lambda r, name: list(r.with_raw_response.retrieve(name, stream=True).parse()),
    "unread retrieve": lambda r, name: read(r.with_streaming_response.retrieve(name), lambda each: each.parse()),
    "unread retrieve, read": lambda r, name: read(r.with_streaming_response.retrieve(name), lambda each: each.read()),
    "unread retrieve, lines": lambda r, name: read(
        r.with_streaming_response.retrieve(name), lambda each: list(each.iter_lines())
    ),
    "unread retrieve stream": lambda r, name: read(
        r.with_streaming_response.retrieve(name, stream=True), lambda each: list(each.parse())
    ),
    "unread retrieve stream, left at its end": lambda r, name: read(
        r.with_streaming_response.retrieve(name, stream=True), lambda each: left_at_the_end(each.parse())
    ),
    "cancel": lambda r, name: r.cancel(name),
    "raw cancel": lambda r, name: r.with_raw_response.cancel(name).parse(),
    "unread cancel": lambda r, name: read(r.with_streaming_response.cancel(name), lambda each: each.parse()),
    "get": lambda r, name: r._client.get(f"/responses/{name}", cast_to=object),
}


def listed(manager):
    with manager as stream:
        return list(stream)


def read(manager, how):
    with manager as response:
        return how(response)


def left_at_the_end(stream):
    with stream:
        return next(event for event in stream if event.type == "response.incomplete")


def test_every_method_that_shows_an_answer_is_tried(clients):
    methods = {name for name in dir(clients["openai"].responses) if not name.startswith(("_", "with_"))}
    tried = {"retrieve", "stream", "cancel"}
    assert methods == tried | WITHOUT_BILL
    assert {word for name in READS for word in name.split()} >= tried


@pytest.mark.parametrize("how", READS)
def test_however_it_is_read_it_is_settled_once(harness, client, how):
    answer = ask(client)
    client.responses.retrieve(answer.id)  # it is finished now, and nobody has read it
    held(harness)
    assert READS[how](client.responses, answer.id)
    harness.agree()
    client.responses.retrieve(answer.id)
    harness.agree()
    (record,) = harness.pipeline.records()
    assert (record.status, record.usage.output) == ("exact", 40)


async def aread(manager, how):
    async with manager as response:
        return await how(response)


async def alisted(stream):
    return [event async for event in stream]


async def alast(stream):
    async with stream:
        async for event in stream:
            if event.type == "response.incomplete":
                return event
    return None


AREADS = {
    "retrieve": lambda r, name: r.retrieve(name),
    "retrieve stream": lambda r, name: then(r.retrieve(name, stream=True), alisted),
    "retrieve stream, left at its end": lambda r, name: then(r.retrieve(name, stream=True), alast),
    "raw retrieve": lambda r, name: r.with_raw_response.retrieve(name),
    "raw retrieve stream": lambda r, name: then(
        r.with_raw_response.retrieve(name, stream=True), lambda raw: alisted(raw.parse())
    ),
    "unread retrieve": lambda r, name: aread(r.with_streaming_response.retrieve(name), lambda each: each.parse()),
    "unread retrieve stream": lambda r, name: aread(
        r.with_streaming_response.retrieve(name, stream=True), lambda each: then(each.parse(), alisted)
    ),
    "cancel": lambda r, name: r.cancel(name),
    "unread cancel": lambda r, name: aread(r.with_streaming_response.cancel(name), lambda each: each.parse()),
}


async def then(waiting, following):
    return await following(await waiting)


@pytest.mark.parametrize("how", AREADS)
async def test_however_an_asynchronous_client_reads_it_it_is_settled_once(harness, async_clients, how):
    client = harness.wrap(async_clients)["openai"]
    answer = await client.responses.create(**ASK, background=True)
    assert (await client.responses.retrieve(answer.id)).status == "in_progress"
    held(harness)
    assert await AREADS[how](client.responses, answer.id)
    harness.agree()
    await client.responses.retrieve(answer.id)
    harness.agree()
    assert len(harness.pipeline.records()) == 1


def test_one_that_is_left_before_it_was_read_stays_set_aside(harness, client):
    answer = ask(client)
    client.responses.retrieve(answer.id)
    with client.responses.with_streaming_response.retrieve(answer.id):
        pass
    held(harness)
    with client.responses.retrieve(answer.id, stream=True) as stream:
        next(iter(stream))
    held(harness)
    client.responses.retrieve(answer.id)
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
        except (openai.APIError, OSError, httpx.HTTPError):  # older SDKs pass the connection error on
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


def test_another_pipeline_settles_it_once_by_the_ledger(sim, clients, tmp_path):
    config = {"ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"}, "budgets": [{"scope": "global", "limit": "100"}]}
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
