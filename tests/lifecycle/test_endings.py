"""Every way an answer can end: nothing stays pending, and the ledger never says less than the bill."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from llm_cost_middleware.simulator import Fault

EXACT, ESTIMATED, UNCONFIRMED, VOID = "exact", "estimated", "unconfirmed", "void"
PROVIDERS = ("anthropic", "openai")


class Ending(NamedTuple):
    """Faults that a plain call runs into, and what its attempts are booked at."""

    faults: tuple[Fault, ...]
    booked: tuple[str, ...]
    why: str
    fails: bool = False


PLAIN = {
    "complete": Ending((), (EXACT,), "usage was reported"),
    "no usage": Ending((Fault.no_usage(),), (ESTIMATED,), "an answer that does not say what it cost cost the most"),
    "refused once": Ending((Fault.status(500),), (VOID, EXACT), "an error in the answer's place is free"),
    "reset once": Ending((Fault.reset(),), (UNCONFIRMED, EXACT), "the request had left: nobody knows"),
    "reset and billed": Ending((Fault.reset(billed=True),), (UNCONFIRMED, EXACT), "nobody knows, and it was"),
    "cut in the middle": Ending((Fault.cut(after=0),), (UNCONFIRMED, EXACT), "half an answer was billed in full"),
    "proxy error": Ending((Fault.proxy_503(),), (VOID, EXACT), "the proxy never reached the provider"),
    "gateway lost it": Ending(
        (Fault.status(504, body="upstream timed out"),), (UNCONFIRMED, EXACT), "it may have been answered"
    ),
    "bad request": Ending((Fault.status(400),), (VOID,), "free, and a retry does not help", fails=True),
    "three times refused": Ending((Fault.status(529),) * 3, (VOID,) * 3, "three attempts are all", fails=True),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("ending", PLAIN.values(), ids=PLAIN)
def test_a_plain_call(harness, provider, ending):
    for fault in ending.faults:
        harness.sim.script(fault)
    if ending.fails:
        with pytest.raises(Exception, match="Error code"):
            harness.ask(provider)
    else:
        harness.ask(provider)
    assert harness.resolutions == ending.booked, ending.why
    assert len(harness.sim.requests) == len(ending.booked)
    harness.check()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_call_that_times_out_is_booked_at_its_reservation_and_tried_again(make_harness, provider):
    harness = make_harness(providers={name: {"timeout_s": 1} for name in PROVIDERS})
    harness.sim.script(Fault.hang(billed=True))
    harness.ask(provider)
    assert harness.resolutions == (UNCONFIRMED, EXACT)
    harness.check()


UNSENDABLE = {
    "a body that is no JSON": {"extra_body": {"x": object()}},
    "a number that JSON does not know": {"extra_body": {"x": float("nan")}},
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("more", UNSENDABLE.values(), ids=UNSENDABLE)
def test_what_an_sdk_cannot_even_encode_costs_nothing(harness, provider, more):
    with pytest.raises((TypeError, ValueError)):
        harness.ask(provider, **more)
    assert harness.resolutions == (VOID,)
    assert harness.balance.settled_nanousd == harness.balance.pending_nanousd == 0
    assert not harness.sim.requests
    harness.check()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_error_of_the_same_class_once_it_was_sent_is_booked(harness, provider, monkeypatch):
    """Only where it was raised tells the two apart."""

    def unreadable(*_, **__):
        raise TypeError("cannot read the answer")

    monkeypatch.setattr(type(harness.caller.plain(provider)), "_process_response", unreadable)
    with pytest.raises(TypeError, match="cannot read"):
        harness.ask(provider)
    assert harness.resolutions == (UNCONFIRMED,)
    harness.check()


# --- streams ----------------------------------------------------------------------------------------------------------


class LeftError(Exception):
    """Raised in a caller's loop."""


class Exhaust:
    """Read it to its end."""

    @staticmethod
    def sync(stream):
        return [*stream]

    @staticmethod
    async def asynchronous(stream):
        return [chunk async for chunk in stream]


class Close:
    """Walk away after three chunks, and say so."""

    @staticmethod
    def sync(stream):
        for _ in range(3):
            next(stream)
        stream.close()
        stream.close()

    @staticmethod
    async def asynchronous(stream):
        for _ in range(3):
            await anext(stream)
        await stream.close()
        await stream.close()


class CloseUnread:
    """Walk away before the first chunk."""

    @staticmethod
    def sync(stream):
        stream.close()

    @staticmethod
    async def asynchronous(stream):
        await stream.close()


class Context:
    """Fail in the middle of a ``with`` block."""

    @staticmethod
    def sync(stream):
        with pytest.raises(LeftError), stream:
            for number, _ in enumerate(stream):
                if number == 2:
                    raise LeftError

    @staticmethod
    async def asynchronous(stream):
        with pytest.raises(LeftError):
            async with stream:
                number = 0
                async for _ in stream:
                    number += 1
                    if number == 3:
                        raise LeftError


class Loop:
    """Fail in the middle of a loop, with nothing around the stream."""

    @staticmethod
    def sync(stream):
        try:
            for number, _ in enumerate(stream):
                if number == 2:
                    raise LeftError  # noqa: TRY301 - as callers do
        except LeftError:
            pass

    @staticmethod
    async def asynchronous(stream):
        number = 0
        try:
            async for _ in stream:
                number += 1
                if number == 3:
                    raise LeftError  # noqa: TRY301 - as callers do
        except LeftError:
            pass


class Drop:
    """Forget it."""

    @staticmethod
    def sync(stream):
        next(stream)
        del stream

    @staticmethod
    async def asynchronous(stream):
        await anext(stream)
        del stream


class StreamEnding(NamedTuple):
    """How a stream breaks, how it is left, and what its attempts are booked at."""

    fault: Fault | None
    leave: Any
    booked: tuple[str, ...]
    why: str
    fails: bool = False
    openai: tuple[str, ...] | None = None
    """Where OpenAI differs: its usage comes last, so of a broken stream nothing is known but the most."""


STREAMS = {
    "complete": StreamEnding(None, Exhaust, (EXACT,), "usage was reported"),
    "no usage": StreamEnding(Fault.no_usage(), Exhaust, (ESTIMATED,), "it ended without saying what it cost"),
    "bare delta": StreamEnding(Fault.bare_delta(), Exhaust, (EXACT,), "the first event had told the input"),
    "refused once": StreamEnding(Fault.status(529), Exhaust, (VOID, EXACT), "it never opened"),
    "error first": StreamEnding(
        Fault.error_event(after=0), Exhaust, (UNCONFIRMED, EXACT), "it opened and failed, with nothing handed on"
    ),
    "cut first": StreamEnding(Fault.cut(after=0), Exhaust, (UNCONFIRMED, EXACT), "the same, without a word"),
    "error in the middle": StreamEnding(
        Fault.error_event(after=4), Exhaust, (ESTIMATED,), "a part was handed on: never again", fails=True
    ),
    "reset in the middle": StreamEnding(
        Fault.cut(after=4), Exhaust, (ESTIMATED,), "a part was handed on: never again", fails=True
    ),
    "closed": StreamEnding(None, Close, (ESTIMATED,), "the caller walked away"),
    "closed unread": StreamEnding(None, CloseUnread, (ESTIMATED,), "the caller walked away at once"),
    "failed within a block": StreamEnding(None, Context, (ESTIMATED,), "the caller's own error"),
    "failed within a loop": StreamEnding(None, Loop, (ESTIMATED,), "the stream was dropped with the loop"),
    "dropped": StreamEnding(None, Drop, (ESTIMATED,), "found by the collector, settled on the next look"),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("ending", STREAMS.values(), ids=STREAMS)
def test_a_stream(harness, provider, ending):
    if ending.fault is not None:
        harness.sim.script(ending.fault)
    if ending.fails:
        with pytest.raises(Exception):  # noqa: B017 - the SDK's own, of several classes; what is booked matters
            harness.stream(provider, ending.leave)
    else:
        harness.stream(provider, ending.leave)
    assert harness.resolutions == ending.booked, ending.why
    assert len(harness.reported("CallFailed")) == ending.fails
    harness.check()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_observers_get_the_event_of_a_broken_stream_after_it_was_booked(harness, provider):
    harness.sim.script(Fault.error_event(after=4))
    with pytest.raises(Exception):  # noqa: B017 - as above
        harness.stream(provider, Exhaust)
    *_, settled, failed = harness.reported()
    assert (type(settled).__name__, type(failed).__name__) == ("Settled", "CallFailed")
    assert (failed.attempts, failed.model) == (1, settled.model)
    assert failed.reason.endswith("in the middle of its stream")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_that_ends_too_early_without_an_error_is_not_taken_for_whole(harness, provider):
    harness.sim.script(Fault.cut(after=4, clean=True))
    with suppress(Exception):  # some SDKs notice
        harness.stream(provider, Exhaust)
    assert harness.resolutions == (ESTIMATED,)
    harness.check()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_that_falls_silent_is_settled_when_the_client_gives_up(make_harness, provider):
    harness = make_harness(providers={name: {"timeout_s": 1} for name in PROVIDERS})
    harness.sim.script(Fault.stall(after=4))
    with pytest.raises(Exception) as caught:
        harness.stream(provider, Exhaust)
    assert "Timeout" in type(caught.value).__name__
    assert harness.resolutions == (ESTIMATED,)
    harness.check()


@pytest.mark.parametrize("left_by", [Close, Context, Loop, Drop])
def test_an_interrupted_stream_costs_between_the_bill_and_the_reservation(harness, left_by):
    """Anthropic tells the input first: what may still come is the output that was allowed."""
    harness.stream("anthropic", left_by)
    (record,) = harness.pipeline.records()
    assert harness.sim.bill.total_nanousd <= record.cost_nanousd < record.reserved_nanousd
    assert record.input_tokens == harness.sim.bill.lines[0].tokens.prompt
    harness.check()


def test_a_long_stream_renews_its_hold(make_harness):
    harness = make_harness(ledger={"hold_ttl_s": 100}, retry={"stream_deadline_s": 10_000})

    class Slowly:
        @staticmethod
        def sync(stream):
            for _ in stream:
                harness.clock.advance(60)
                harness.pipeline.ledger.sweep()

        @staticmethod
        async def asynchronous(stream):
            async for _ in stream:
                harness.clock.advance(60)
                harness.pipeline.ledger.sweep()

    harness.stream("openai", Slowly)
    assert harness.resolutions == (EXACT,)
    harness.check()


def test_a_stream_that_outlived_its_lease_is_settled_late(make_harness):
    harness = make_harness(ledger={"hold_ttl_s": 100}, retry={"stream_deadline_s": 10_000})

    class Paused:
        @staticmethod
        def sync(stream):
            for number, _ in enumerate(stream):
                if number == 1:
                    harness.clock.advance(500)
                    assert harness.pipeline.ledger.sweep() == 1

        @staticmethod
        async def asynchronous(stream):
            number = 0
            async for _ in stream:
                number += 1
                if number == 2:
                    harness.clock.advance(500)
                    assert harness.pipeline.ledger.sweep() == 1

    harness.stream("openai", Paused)
    assert harness.resolutions == (UNCONFIRMED, EXACT)  # the expiry, and the truth
    assert harness.balance.settled_nanousd == harness.sim.bill.total_nanousd
    assert harness.balance.pending_nanousd == 0
