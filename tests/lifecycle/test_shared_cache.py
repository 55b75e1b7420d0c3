"""What was learned of prompt caches lives with the ledger: new and other processes know it, and it costs no call."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import anthropic
import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.simulator import Answer, SimClock, Simulator

MODEL = "claude-sonnet-4-6"
MARK = {"type": "ephemeral"}
SYSTEM = [{"type": "text", "text": "You book and change flights for passengers, by the rules of the house. " * 100}]
TOOLS = [
    {"name": name, "description": f"{name} a booking. " * 60, "input_schema": {"type": "object", "properties": {}}}
    for name in ("find", "change")
]


class Watch:
    """The simulator's clock as a pipeline wants one."""

    def __init__(self, clock):
        self.now = self.monotonic = clock.now
        self.sleep = clock.advance

    async def asleep(self, seconds):
        self.sleep(seconds)


@pytest.fixture
def clock():
    return SimClock()


@pytest.fixture
def sim(clock):
    with Simulator(responder=lambda _: Answer(text="ok", output_tokens=1), clock=clock) as made:
        yield made


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def make(sim, clock, url, monkeypatch):
    """Pipelines over one ledger; those that a test leaves open are closed at its end, as a killed process is not."""
    monkeypatch.setenv("SHARED_KEY", "k")
    made = []

    def make(ledger=url):
        config = CostConfig(
            ledger={"url": ledger},
            providers={"anthropic": {"base_url": sim.anthropic_url, "api_key_env": "SHARED_KEY"}},
        )
        made.append(CostPipeline(config, clock=Watch(clock)))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


def bodies(talks=4, turns=6):
    for talk in range(talks):
        messages = []
        for turn in range(turns):
            messages.append({"role": "user", "content": f"Passenger {talk}, {turn}: " + "where is my bag? " * 40})
            yield {"model": MODEL, "max_tokens": 9, "tools": TOOLS, "system": SYSTEM, "messages": list(messages)}
            messages.append({"role": "assistant", "content": f"Answer {turn}. " * 30})


def three_marks(body):
    tools = [*body["tools"][:-1], {**body["tools"][-1], "cache_control": MARK}]
    system = [{**body["system"][-1], "cache_control": MARK}]
    return {**body, "tools": tools, "system": system, "cache_control": MARK}


@pytest.fixture
def play(sim, clock):
    """The bill of the calls, each sent by what ``sender`` returns for its number."""

    def play(sender, calls=None):
        clock.advance(100_000.0)
        sim.reset()
        for number, body in enumerate(calls or bodies()):
            sender(number)(body)
            clock.advance(20.0)
        return sim.bill.total_nanousd

    return play


@pytest.fixture
def client(sim):
    with anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k", max_retries=0) as made:
        yield made


def sending(client, pipeline):
    return lambda body: wrap_anthropic(client, pipeline).messages.create(**body)


def test_a_process_for_each_call_that_is_never_closed_costs_no_more_than_one(play, make, client):
    rule = play(lambda _: lambda body: client.messages.create(**three_marks(body)))
    alone = make("memory://")
    assert play(lambda _: sending(client, alone)) <= 1.01 * rule
    assert play(lambda _: sending(client, make())) <= 1.01 * rule


@pytest.mark.parametrize("workers", [4, 16])
def test_workers_behind_one_balancer_cost_no_more_than_one(play, make, client, workers):
    rule = play(lambda _: lambda body: client.messages.create(**three_marks(body)))
    fleet = [sending(client, make()) for _ in range(workers)]
    assert play(lambda number: fleet[number % workers]) <= 1.01 * rule


def test_workers_on_event_loops_share_as_well(play, make, sim, client):
    rule = play(lambda _: lambda body: client.messages.create(**three_marks(body)))
    fleet = [make() for _ in range(4)]
    with asyncio.Runner() as runner:
        anew = anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="k", max_retries=0)

        def send(number):
            wrapped = wrap_anthropic(anew, fleet[number % 4])
            return lambda body: runner.run(wrapped.messages.create(**body))

        assert play(send) <= 1.01 * rule
        runner.run(anew.close())


def test_what_never_comes_back_is_left_alone_by_all_processes_together(play, make, client):
    """A new process for each call, and a new prompt each time: each alone would risk a write of its own."""
    calls = [
        {
            "model": MODEL,
            "max_tokens": 9,
            "system": [{"type": "text", "text": f"{at} " * 4_000}],
            "messages": [{"role": "user", "content": f"question {at}"}],
        }
        for at in range(120)
    ]
    nothing = play(lambda _: lambda body: client.messages.create(**body), calls)
    assert play(lambda _: sending(client, make()), calls) <= 1.01 * nothing


@pytest.mark.parametrize("later", [False, True], ids=["before the first call", "in between"])
def test_a_storage_that_fails_costs_no_call(play, make, client, tmp_path, later):
    pipeline = make()
    send = sending(client, pipeline)
    calls = list(bodies())
    if later:
        play(lambda _: send, calls[:3])
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db, db:
        db.execute("DROP TABLE shared")
    rule = play(lambda _: lambda body: client.messages.create(**three_marks(body)), calls)
    assert play(lambda _: send, calls) <= 1.05 * rule
    assert len(pipeline.records()) == len(calls) + 3 * later
    assert {record.status for record in pipeline.records()} == {"exact"}


def test_the_shared_values_hold_no_text(play, make, client, tmp_path):
    play(lambda _: sending(client, make()))
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        values = db.execute("SELECT key, data FROM shared").fetchall()
    assert values
    assert not [key for key, data in values if b"flights" in data or b"bag" in data or b"find" in data]
