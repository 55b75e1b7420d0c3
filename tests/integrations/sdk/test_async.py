"""The life of a call through wrapped asynchronous clients, and every way a task can leave it."""

from __future__ import annotations

import asyncio
import gc

import anthropic
import httpx
import httpx2
import openai
import pytest

from llm_cost_middleware.context import cost_context
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.provider import FailureKind
from llm_cost_middleware.retry.classify import classify_error
from llm_cost_middleware.simulator import Fault

BROKEN = (httpx.HTTPError, httpx2.HTTPError, openai.APIConnectionError)
"""What a stream that breaks raises: openai dresses the transport's error since 3.0, anthropic and older ones do not."""
ASK = [{"role": "user", "content": "Count to forty."}]


def messages(clients, **kwargs):
    return clients["anthropic"].messages.create(model="claude-haiku-4-5", max_tokens=40, messages=ASK, **kwargs)


def beta(clients, **kwargs):
    return clients["anthropic"].beta.messages.create(model="claude-sonnet-4-6", max_tokens=40, messages=ASK, **kwargs)


def chat(clients, **kwargs):
    return clients["openai"].chat.completions.create(
        model="gpt-5-mini", max_completion_tokens=40, messages=ASK, **kwargs
    )


def responses(clients, **kwargs):
    return clients["openai"].responses.create(model="gpt-5.1", max_output_tokens=40, input="Count to forty.", **kwargs)


every_door = pytest.mark.parametrize("door", [messages, beta, chat, responses], ids=lambda door: door.__name__)


@every_door
async def test_an_answer_and_a_stream_are_the_sdks_own_and_booked_at_their_price(door, harness, async_clients):
    plain = await door(async_clients)
    stream = await door(async_clients, stream=True)
    kinds = [type(chunk) async for chunk in stream]
    harness.sim.reset()
    wrapped = harness.wrap(async_clients)
    assert type(await door(wrapped)) is type(plain)
    governed = await door(wrapped, stream=True)
    assert type(governed) is type(stream)
    assert [type(chunk) async for chunk in governed] == kinds
    harness.agree()
    assert len(harness.statuses) == 2


@pytest.mark.parametrize(
    ("door", "leave"),
    [
        pytest.param(door, leave, marks=() if (i + j) % 2 == 0 else pytest.mark.soak, id=f"{door.__name__}-{leave}")
        for i, door in enumerate([messages, beta, chat, responses])
        for j, leave in enumerate(["break", "close", "with", "drop", "cancel", "never"])
    ],
)
async def test_a_stream_left_early_is_settled_however_it_is_left(door, leave, harness, async_clients):
    async def consume():
        stream = await door(harness.wrap(async_clients), stream=True)
        if leave == "with":
            async with stream:
                await anext(stream)
        elif leave == "cancel":
            harness.sim.script(Fault.stall(after=2))
            stalled = await door(harness.wrap(async_clients), stream=True)
            await stream.close()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(_exhaust(stalled), 0.2)
        elif leave != "never":
            async for _ in stream:
                break
            if leave == "close":
                await stream.close()
                await stream.close()

    await asyncio.create_task(consume())
    await _collected()
    harness.cover()


async def _exhaust(stream):
    async for _ in stream:
        pass


async def _collected():
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0.01)


@every_door
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_cancelled_in_flight_is_booked_because_it_may_be_billed(door, stream, harness, async_clients):
    harness.sim.script(Fault.hang(billed=True))
    asking = asyncio.ensure_future(door(harness.wrap(async_clients), stream=stream))
    await harness.reached()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert harness.statuses == ["unconfirmed"]
    assert harness.settled >= harness.sim.bill.total_nanousd > 0


@every_door
async def test_a_cut_stream_is_booked_as_an_estimate(door, harness, async_clients):
    harness.sim.script(Fault.cut(after=4))
    with pytest.raises(BROKEN) as caught:
        await _exhaust(await door(harness.wrap(async_clients), stream=True))
    assert classify_error(caught.value).kind == FailureKind.INTERRUPTED_STREAM
    harness.cover()


@every_door
async def test_a_passing_fault_is_retried_here_and_never_by_the_sdk(door, harness, async_clients):
    harness.sim.script(Fault.overloaded())
    await _exhaust(await door(harness.wrap(async_clients), stream=True))
    assert harness.sim.request_count == 2
    harness.agree()


@every_door
@pytest.mark.parametrize("stream", [False, True])
async def test_raw_responses_are_governed(door, stream, harness, async_clients):
    wrapped = harness.wrap(async_clients)
    claude, gpt = wrapped["anthropic"], wrapped["openai"]
    raw = await {
        messages: lambda: claude.messages.with_raw_response.create(
            model="smart", max_tokens=40, messages=ASK, stream=stream
        ),
        beta: lambda: claude.beta.messages.with_raw_response.create(
            model="smart", max_tokens=40, messages=ASK, stream=stream
        ),
        chat: lambda: gpt.chat.completions.with_raw_response.create(
            model="smart", max_completion_tokens=40, messages=ASK, stream=stream
        ),
        responses: lambda: gpt.responses.with_raw_response.create(
            model="smart", max_output_tokens=40, input="hi", stream=stream
        ),
    }[door]()
    parsed = raw.parse()
    parsed = await parsed if asyncio.iscoroutine(parsed) else parsed
    if stream:
        await _exhaust(parsed)
    harness.agree()


async def test_the_stream_helpers_are_governed(harness, async_clients):
    wrapped = harness.wrap(async_clients)
    async with wrapped["anthropic"].messages.stream(model="smart", max_tokens=40, messages=ASK) as stream:
        assert await stream.get_final_text()
    async with wrapped["openai"].chat.completions.stream(
        model="smart", messages=ASK, max_completion_tokens=40
    ) as stream:
        await stream.until_done()
    async with wrapped["openai"].responses.stream(model="smart", input="hi", max_output_tokens=40) as stream:
        await stream.until_done()
    harness.agree()
    assert len(harness.statuses) == 3


async def test_a_context_block_names_the_scopes_of_its_tasks(harness, async_clients):
    with cost_context(user="7"):
        await asyncio.gather(*(messages(harness.wrap(async_clients)) for _ in range(3)))
    assert harness.pipeline.ledger.balance("user:7").settled_nanousd == harness.sim.bill.total_nanousd


async def test_copies_and_sqlite_ledgers_work_on_a_loop(make_harness, async_clients, tmp_path):
    harness = make_harness(ledger={"url": f"sqlite:///{tmp_path}/ledger.db"})
    async with harness.pipeline:
        client = harness.wrap(async_clients)["anthropic"].with_options(timeout=9)
        await asyncio.gather(*(client.messages.create(model="smart", max_tokens=9, messages=ASK) for _ in range(5)))
        harness.agree()


async def test_what_does_not_fit_is_refused_before_it_is_sent(make_harness, async_clients):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.000001"}])
    for door in (messages, beta, chat, responses):
        with pytest.raises(BudgetExceededError):
            await door(harness.wrap(async_clients), stream=True)
    assert harness.sim.request_count == 0


async def test_errors_are_the_sdks_own(harness, async_clients):
    harness.sim.script(Fault.status(400), times=2)
    with pytest.raises(anthropic.BadRequestError):
        await messages(harness.wrap(async_clients))
    with pytest.raises(openai.BadRequestError):
        await chat(harness.wrap(async_clients))
    assert harness.settled == 0
