"""An error event after any number of events of a stream: what is booked covers the bill, and exact rows equal it.

No provider states that a stream which opened with status 200 and then failed is free, wherever in it the error stands.
Microsoft states the opposite of its own service (learn.microsoft.com, "Plan to manage costs": "if the service performs
processing, you may be charged even if the status code isn't successful").
"""

from __future__ import annotations

import anthropic
import openai
import pytest

from llm_cost_middleware.metering import price_response
from llm_cost_middleware.providers.anthropic.errors import ERROR_RULES as ANTHROPIC_RULES
from llm_cost_middleware.providers.openai.errors import ERROR_RULES as OPENAI_RULES
from llm_cost_middleware.simulator import Answer, Fault

ASK = [{"role": "user", "content": "Count to five."}]
UNIMPRESSED = {"breaker": False, "quota": False}  # by what fails time and again
ERRORS = (anthropic.APIError, openai.APIError)


def messages(clients):
    return clients["anthropic"].messages, {"model": "claude-haiku-4-5", "max_tokens": 40, "messages": ASK}


def beta(clients):
    return clients["anthropic"].beta.messages, {"model": "claude-sonnet-4-6", "max_tokens": 40, "messages": ASK}


def chat(clients):
    return clients["openai"].chat.completions, {"model": "gpt-5-mini", "max_completion_tokens": 40, "messages": ASK}


def responses(clients):
    return clients["openai"].responses, {"model": "gpt-5.1", "max_output_tokens": 40, "input": "Count to five."}


CODES = {
    door: tuple(dict.fromkeys(code for rule in rules for code in rule.codes))
    for doors, rules in (((messages, beta), ANTHROPIC_RULES), ((chat, responses), OPENAI_RULES))
    for door in doors
}
every_door = pytest.mark.parametrize("door", CODES, ids=lambda door: door.__name__)
every_reader = pytest.mark.parametrize("raw", [False, True], ids=["events", "bytes"])


def read(door, clients, *, raw):
    spending, body = door(clients)
    try:
        if not raw:
            return list(spending.create(stream=True, **body))
        with spending.with_streaming_response.create(stream=True, **body) as response:
            return b"".join(response.iter_bytes()).strip().split(b"\n\n")
    except ERRORS:
        return []


async def aread(door, clients, *, raw):
    spending, body = door(clients)
    try:
        if not raw:
            return [event async for event in await spending.create(stream=True, **body)]
        async with spending.with_streaming_response.create(stream=True, **body) as response:
            return [chunk async for chunk in response.iter_bytes()]
    except ERRORS:
        return []


@pytest.fixture
def places(sim, clients):
    """The faults of a door: an error after each number of events, and each error that is known at the start."""
    sim.responder = lambda _: Answer("one two three four five")

    def of(door, *, raw):
        last = len(read(door, clients, raw=True))
        assert last > 4
        yield from (Fault.error_event(after=after) for after in range(last + 1))
        if not raw:  # else nobody but the caller looks at what the error is
            yield from (Fault.error_event(after=0, error_type=code) for code in CODES[door])

    return of


class Comparison:
    """Whether the ledger covers the bill, attempt by attempt, and says exact only of what it knows."""

    def __init__(self, harness):
        self.harness, self.seen = harness, 0

    def begin(self, fault):
        self.harness.sim.reset()
        self.harness.sim.script(fault)

    def end(self, fault):
        told = f"{fault.preset or 'an error'} after {fault.after} events"
        assert self.harness.settled > 0, told  # nothing is pending
        rows, lines = self.harness.pipeline.records()[self.seen :], self.harness.sim.bill.lines
        self.seen += len(rows)
        assert len(rows) == len(lines) >= 1, told
        for row, line in zip(rows, lines, strict=True):
            assert row.cost_nanousd >= line.cost_nanousd > 0, told
            assert row.status != "exact" or row.cost_nanousd == line.cost_nanousd, told
        assert rows[0].status != "exact" or fault.after > 1, f"{told}: nothing had been counted"


@every_door
@every_reader
def test_what_is_booked_covers_the_bill(door, raw, places, make_harness, clients):
    compared = Comparison(harness := make_harness(retry=UNIMPRESSED))
    wrapped = harness.wrap(clients)
    for fault in places(door, raw=raw):
        compared.begin(fault)
        read(door, wrapped, raw=raw)
        compared.end(fault)


@every_door
@every_reader
async def test_what_is_booked_covers_the_bill_of_an_asynchronous_stream(
    door, raw, places, make_harness, clients, async_clients
):
    compared = Comparison(harness := make_harness(retry=UNIMPRESSED))
    wrapped = harness.wrap(async_clients)
    for fault in places(door, raw=raw):
        compared.begin(fault)
        await aread(door, wrapped, raw=raw)
        compared.end(fault)


@every_door
def test_the_text_of_such_a_stream_has_no_price(door, sim, clients):
    sim.script(Fault.error_event(after=0))
    text = b"\n\n".join(read(door, clients, raw=True)) + b"\n\n"
    price = price_response("anthropic" if door in (messages, beta) else "openai", text)
    assert (price.status, price.cost_nanousd) == ("unknown", None)
    assert price.notes
