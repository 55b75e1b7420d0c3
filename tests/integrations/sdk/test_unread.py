"""``with_streaming_response``: governed however its caller reads the body, or does not."""

from __future__ import annotations

import gc

import pytest

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.simulator import Fault

ASK = [{"role": "user", "content": "Tell me of the sea."}]
CALLS = {
    "chat": (
        "openai", lambda c: c.chat.completions,
        {"model": "gpt-5-mini", "messages": ASK, "max_completion_tokens": 60},
    ),
    "responses": ("openai", lambda c: c.responses, {"model": "gpt-5-mini", "input": ASK, "max_output_tokens": 60}),
    "messages": ("anthropic", lambda c: c.messages, {"model": "claude-sonnet-4-6", "messages": ASK, "max_tokens": 60}),
    "beta": (
        "anthropic", lambda c: c.beta.messages, {"model": "claude-sonnet-4-6", "messages": ASK, "max_tokens": 60},
    ),
}  # fmt: skip
READS = {
    "read": lambda r: r.read(),
    "json": lambda r: r.json(),
    "text": lambda r: r.text(),
    "parse": lambda r: r.parse(),
    "bytes": lambda r: b"".join(r.iter_bytes()),
    "bytes by three": lambda r: b"".join(r.iter_bytes(3)),
    "text pieces": lambda r: "".join(r.iter_text()),
    "lines": lambda r: list(r.iter_lines()),
    "twice": lambda r: (r.read(), r.parse()),
}
STREAMED = {
    "events": lambda r: list(r.parse()),
    "lines": lambda r: list(r.iter_lines()),
    "read": lambda r: r.read(),
    "bytes by three": lambda r: b"".join(r.iter_bytes(3)),
}
AREADS = {
    "read": lambda r: r.read(),
    "parse": lambda r: r.parse(),
    "lines": lambda r: collected(r.iter_lines()),
    "bytes by three": lambda r: collected(r.iter_bytes(3)),
}


async def collected(items):
    return [item async for item in items]


async def aevents(response):
    return await collected(await response.parse())


def opened(clients, name, **more):
    provider, resource, arguments = CALLS[name]
    return resource(clients[provider]).with_streaming_response.create(**arguments, **more)


def comparable(value, text=str):
    """What was read, without ids and times."""
    import re

    return re.sub(r"(id|request_id|created|created_at|item_id|response_id)\W+[\w.-]+", "", text(value))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("read", READS)
def test_an_answer_that_is_read_later_is_the_bare_one_and_booked_exactly(harness, clients, sim, name, read):
    with opened(clients, name) as response:
        bare = comparable(READS[read](response))
    sim.reset()
    with opened(harness.wrap(clients), name) as response:
        assert comparable(READS[read](response)) == bare
        assert response.http_response.is_closed
        assert response.elapsed is not None
    assert harness.statuses == ["exact"]
    harness.agree()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("read", STREAMED)
def test_a_stream_that_is_read_by_its_caller_is_the_bare_one_and_booked_exactly(harness, clients, sim, name, read):
    """The chunk with the usage, which a chat is asked for, does not reach who did not ask for it."""
    with opened(clients, name, stream=True) as response:
        bare = STREAMED[read](response)
    sim.reset()
    with opened(harness.wrap(clients), name, stream=True) as response:
        got = STREAMED[read](response)
    if read in ("events", "lines"):
        assert len(got) == len(bare)
    assert harness.statuses == ["exact"]
    harness.agree()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("read", AREADS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_asynchronous_answer_is_booked_exactly(harness, async_clients, name, read, stream):
    more = {"stream": True} if stream else {}
    async with opened(harness.wrap(async_clients), name, **more) as response:
        got = await (aevents(response) if stream and read == "parse" else AREADS[read](response))
        assert got
    assert harness.statuses == ["exact"]
    harness.agree()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("left", ["unread", "in the middle", "dropped"])
def test_an_answer_that_is_left_is_covered(harness, clients, name, stream, left):
    manager = opened(harness.wrap(clients), name, **({"stream": True} if stream else {}))
    if left == "dropped":
        response = manager.__enter__()
        next(response.iter_bytes(3))
        response.http_response.llm_cost_body[0].close()
        del response, manager
        gc.collect()
    else:
        with manager as response:
            if left == "in the middle":
                next(response.iter_bytes(3))
    assert harness.settled >= harness.sim.bill.total_nanousd


@pytest.mark.parametrize("name", CALLS)
def test_a_refused_call_is_never_opened(make_harness, clients, sim, name):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.0000001"}])
    with pytest.raises(BudgetExceededError), opened(harness.wrap(clients), name):
        pass
    assert sim.request_count == 0


@pytest.mark.parametrize("name", CALLS)
def test_it_is_retried_before_anything_was_read(harness, clients, sim, name):
    sim.script(Fault.status(500), times=1)
    with opened(harness.wrap(clients), name) as response:
        assert response.retries_taken == 1
        assert response.read()
    assert sim.request_count == 2
    harness.agree()
