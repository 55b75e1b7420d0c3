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


async def _arrived(harness, count=1):
    """Until so many requests have reached the provider."""
    async with asyncio.timeout(60):
        while harness.sim.request_count < count:  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.005)


async def _ask(harness, provider, **more):
    client = harness.caller.client(provider, harness.pipeline)
    create = client.messages.create if provider == "anthropic" else client.chat.completions.create
    return await create(**harness.body(provider, **more))


def _run(harness, coroutine):
    return harness.caller.run(None, lambda: coroutine)


def test_a_cancelled_call_is_booked_unconfirmed(harness, provider):
    harness.sim.script(Fault.hang(billed=True))

    async def cancel():
        task = asyncio.ensure_future(_ask(harness, provider))
        await _arrived(harness)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    _run(harness, cancel())
    assert harness.resolutions == ("unconfirmed",)
    harness.check()


def test_a_time_limit_of_the_callers_own_is_a_cancellation(harness, provider):
    harness.sim.script(Fault.hang(billed=True))

    async def strike(limit):
        await _arrived(harness)
        limit.reschedule(asyncio.get_running_loop().time())

    async def limit():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60) as limit:
                striking = asyncio.ensure_future(strike(limit))
                await _ask(harness, provider)
        await striking

    _run(harness, limit())
    assert harness.resolutions == ("unconfirmed",)
    harness.check()


def test_a_call_cancelled_while_it_waits_for_its_next_attempt_has_nothing_pending(make_harness, provider):
    harness = make_harness()
    harness.sim.script(Fault.status(529), times=2)

    async def forever(_):
        await asyncio.sleep(60)

    harness.clock.asleep = forever

    async def cancel():
        task = asyncio.ensure_future(_ask(harness, provider))
        await _arrived(harness)
        while not harness.reported("Retried"):  # noqa: ASYNC110 - events are told, not awaited
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    _run(harness, cancel())
    assert harness.resolutions == ("void",)
    harness.check()


def test_a_call_cancelled_again_and_again_is_booked_all_the_same(harness, provider):
    harness.sim.script(Fault.hang(billed=True))

    async def cancel():
        task = asyncio.ensure_future(_ask(harness, provider))
        await _arrived(harness)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)

    _run(harness, cancel())
    gc.collect()
    assert harness.balance.pending_nanousd == 0
    assert harness.balance.settled_nanousd >= harness.sim.bill.total_nanousd


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 30])
def test_a_call_cancelled_at_any_step_of_the_loop_leaves_nothing_pending(harness, provider, step):
    async def cancel():
        task = asyncio.ensure_future(_ask(harness, provider))
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    _run(harness, cancel())
    balance = harness.balance
    assert balance.pending_nanousd == 0
    time.sleep(0.02)  # a request that had left is billed when it arrives
    assert balance.settled_nanousd >= harness.sim.bill.total_nanousd


def test_a_stream_cancelled_while_it_waits_is_settled(harness, provider):
    harness.sim.script(Fault.stall(after=4))

    begun = asyncio.Event()

    async def read():
        async for _ in await _ask(harness, provider, stream=True):
            begun.set()

    async def cancel():
        task = asyncio.ensure_future(read())
        async with asyncio.timeout(60):
            await begun.wait()
        await asyncio.sleep(0.05)  # most likely it waits by now; in its midst it is in any case
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    _run(harness, cancel())
    assert harness.resolutions == ("estimated",)
    harness.check()


def test_a_coroutine_that_is_closed_while_it_waits_is_booked(harness, provider):
    harness.sim.script(Fault.hang(billed=True))

    async def close():
        coroutine = _ask(harness, provider)
        task = asyncio.ensure_future(coroutine)
        await _arrived(harness)
        for _ in range(10):
            try:
                coroutine.close()
            except RuntimeError:  # the transport awaits while it tidies up, which a coroutine may not at its end
                continue
            break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    _run(harness, close())
    assert harness.resolutions == ("unconfirmed",)
    harness.check()


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts, as in a terminal: what is started in the background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("kind", ["memory-sync", "sqlite-sync"])
def test_ctrl_c_while_waiting_is_booked_unconfirmed(harness, provider):
    left = threading.Event()

    def interrupt(request):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        left.wait(60)
        return fill(request)

    harness.sim.responder = interrupt
    with pytest.raises(KeyboardInterrupt):
        harness.ask(provider)
    left.set()
    assert harness.resolutions == ("unconfirmed",)
    for _ in range(6_000):  # the answer is billed although nobody waits for it
        if harness.sim.bill.lines:
            break
        time.sleep(0.01)
    assert harness.sim.bill.lines
    harness.check()


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("kind", ["memory-sync", "sqlite-sync"])
def test_ctrl_c_in_a_stream_is_settled(harness, provider):
    class Interrupted:
        @staticmethod
        def sync(stream):
            with pytest.raises(KeyboardInterrupt):
                for number, _ in enumerate(stream):
                    if number == 2:
                        signal.raise_signal(signal.SIGINT)

    harness.stream(provider, Interrupted)
    assert harness.resolutions == ("estimated",)
    harness.check()


@pytest.mark.parametrize("kind", ["sqlite-sync"])
@pytest.mark.parametrize("verb", ["reserve_for_call", "settle_for_call"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_inside_the_ledger_leaves_nothing_pending(harness, provider, verb, when, monkeypatch):
    """The verb may have happened or not; it is repeated, or undone, by its id."""
    ledger = harness.pipeline._runtimes.ledger
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
        harness.ask(provider)
    assert harness.balance.pending_nanousd == 0
    assert harness.balance.settled_nanousd == harness.sim.bill.total_nanousd
    assert len(harness.sim.requests) == (verb == "settle_for_call")
    assert len(harness.pipeline.records()) == (verb == "settle_for_call")
    harness.check() if verb == "settle_for_call" else None


@pytest.mark.parametrize("kind", ["sqlite-async"])
def test_a_call_cancelled_while_the_ledger_writes_is_finished_first(harness, provider, tmp_path):
    """The cancellation is delivered, and the books say what happened."""

    async def cancel():
        await _ask(harness, provider)  # warm: connection, threads
        before = harness.sim.request_count
        with sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, timeout=5) as other:
            task = asyncio.ensure_future(_ask(harness, provider))
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.sleep(0.05)
            other.execute("COMMIT")
        other.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        return before

    _run(harness, cancel())
    assert harness.balance.pending_nanousd == 0
    assert harness.balance.settled_nanousd >= harness.sim.bill.total_nanousd
    assert len(harness.pipeline.records()) == len([s for s in harness.resolutions if s != "void"])
