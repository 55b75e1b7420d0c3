"""What breaks in from outside: cancellation, time limits, Ctrl-C, a coroutine that is closed. Nothing stays pending."""

from __future__ import annotations

import asyncio
import gc
import signal
import sqlite3
import threading
import time

import pytest

from llm_cost_middleware.simulator import Fault, fill

PROVIDERS = ("anthropic", "openai")
pytestmark = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture(params=["memory", "sqlite"])
def kind(request):
    return f"{request.param}-async"


async def _arrived(house, count=1):
    """Until so many requests have reached the provider."""
    async with asyncio.timeout(60):
        while house.sim.request_count < count:  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.005)


async def _ask(house, provider, **more):
    client = house.face.client(provider, house.pipeline)
    create = client.messages.create if provider == "anthropic" else client.chat.completions.create
    return await create(**house.body(provider, **more))


def _run(house, coroutine):
    return house.face.run(None, lambda: coroutine)


def test_a_cancelled_call_is_booked_unconfirmed(house, provider):
    house.sim.script(Fault.hang(billed=True))

    async def cancel():
        task = asyncio.ensure_future(_ask(house, provider))
        await _arrived(house)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    _run(house, cancel())
    assert house.resolutions == ("unconfirmed",)
    house.check()


def test_a_time_limit_of_the_callers_own_is_a_cancellation(house, provider):
    house.sim.script(Fault.hang(billed=True))

    async def strike(limit):
        await _arrived(house)
        limit.reschedule(asyncio.get_running_loop().time())

    async def limit():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60) as limit:
                striking = asyncio.ensure_future(strike(limit))
                await _ask(house, provider)
        await striking

    _run(house, limit())
    assert house.resolutions == ("unconfirmed",)
    house.check()


def test_a_call_cancelled_while_it_waits_for_its_next_attempt_has_nothing_pending(houses, provider):
    house = houses()
    house.sim.script(Fault.status(529), times=2)

    async def forever(_):
        await asyncio.sleep(60)

    house.clock.asleep = forever

    async def cancel():
        task = asyncio.ensure_future(_ask(house, provider))
        await _arrived(house)
        while not house.told("Retried"):  # noqa: ASYNC110 - events are told, not awaited
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    _run(house, cancel())
    assert house.resolutions == ("void",)
    house.check()


def test_a_call_cancelled_again_and_again_is_booked_all_the_same(house, provider):
    house.sim.script(Fault.hang(billed=True))

    async def cancel():
        task = asyncio.ensure_future(_ask(house, provider))
        await _arrived(house)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)

    _run(house, cancel())
    gc.collect()
    assert house.balance.pending_nanousd == 0
    assert house.balance.settled_nanousd >= house.sim.bill.total_nanousd


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 30])
def test_a_call_cancelled_at_any_step_of_the_loop_leaves_the_books_closed(house, provider, step):
    async def cancel():
        task = asyncio.ensure_future(_ask(house, provider))
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    _run(house, cancel())
    balance = house.balance
    assert balance.pending_nanousd == 0
    time.sleep(0.02)  # a request that had left is billed when it arrives
    assert balance.settled_nanousd >= house.sim.bill.total_nanousd


def test_a_stream_cancelled_while_it_waits_is_settled(house, provider):
    house.sim.script(Fault.stall(after=4))

    begun = asyncio.Event()

    async def read():
        async for _ in await _ask(house, provider, stream=True):
            begun.set()

    async def cancel():
        task = asyncio.ensure_future(read())
        async with asyncio.timeout(60):
            await begun.wait()
        await asyncio.sleep(0.05)  # most likely it waits by now; in its midst it is in any case
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    _run(house, cancel())
    assert house.resolutions == ("estimated",)
    house.check()


def test_a_coroutine_that_is_closed_while_it_waits_is_booked(house, provider):
    house.sim.script(Fault.hang(billed=True))

    async def close():
        coroutine = _ask(house, provider)
        task = asyncio.ensure_future(coroutine)
        await _arrived(house)
        for _ in range(10):
            try:
                coroutine.close()
            except RuntimeError:  # the transport awaits while it tidies up, which a coroutine may not at its end
                continue
            break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    _run(house, close())
    assert house.resolutions == ("unconfirmed",)
    house.check()


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts, as in a terminal: what is started in the background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("kind", ["memory-sync", "sqlite-sync"])
def test_ctrl_c_while_waiting_is_booked_unconfirmed(house, provider):
    left = threading.Event()

    def interrupt(request):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        left.wait(60)
        return fill(request)

    house.sim.responder = interrupt
    with pytest.raises(KeyboardInterrupt):
        house.ask(provider)
    left.set()
    assert house.resolutions == ("unconfirmed",)
    for _ in range(6_000):  # the answer is billed although nobody waits for it
        if house.sim.bill.lines:
            break
        time.sleep(0.01)
    assert house.sim.bill.lines
    house.check()


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("kind", ["memory-sync", "sqlite-sync"])
def test_ctrl_c_in_a_stream_is_settled(house, provider):
    class Interrupted:
        @staticmethod
        def sync(stream):
            with pytest.raises(KeyboardInterrupt):
                for number, _ in enumerate(stream):
                    if number == 2:
                        signal.raise_signal(signal.SIGINT)

    house.stream(provider, Interrupted)
    assert house.resolutions == ("estimated",)
    house.check()


@pytest.mark.parametrize("kind", ["sqlite-sync"])
@pytest.mark.parametrize("verb", ["reserve", "settle"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_inside_the_ledger_leaves_nothing_pending(house, provider, verb, when, monkeypatch):
    """The verb may have happened or not; it is repeated, or undone, by its id."""
    ledger = house.pipeline._runtimes.ledger
    real, calls = getattr(ledger, verb), []

    def interrupted(*args, **kwargs):
        calls.append(verb)
        if len(calls) > 1:
            return real(*args, **kwargs)
        if when == "after":
            real(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger, verb, interrupted)
    with pytest.raises(KeyboardInterrupt):
        house.ask(provider)
    assert house.balance.pending_nanousd == 0
    assert house.balance.settled_nanousd == house.sim.bill.total_nanousd
    assert len(house.sim.requests) == (verb == "settle")
    assert len(house.pipeline.records()) == (verb == "settle")
    house.check() if verb == "settle" else None


@pytest.mark.parametrize("kind", ["sqlite-async"])
def test_a_call_cancelled_while_the_ledger_writes_is_finished_first(house, provider, tmp_path):
    """The cancellation is delivered, and the books say what happened."""

    async def cancel():
        await _ask(house, provider)  # warm: connection, threads
        before = house.sim.request_count
        with sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, timeout=5) as other:
            task = asyncio.ensure_future(_ask(house, provider))
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.sleep(0.05)
            other.execute("COMMIT")
        other.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        return before

    _run(house, cancel())
    assert house.balance.pending_nanousd == 0
    assert house.balance.settled_nanousd >= house.sim.bill.total_nanousd
    assert len(house.pipeline.records()) == len([s for s in house.resolutions if s != "void"])
