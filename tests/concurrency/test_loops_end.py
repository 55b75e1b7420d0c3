"""The connections of an event loop end with it, however many loops a program runs one after the other."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from contextlib import closing

import pytest
from plain_call import COST, answer, request
from redis_servers import server_binaries

from llm_cost_middleware import CostConfig, CostPipeline

# What a loop is not told to finish, drivers and asyncio warn of.
unfinished = pytest.mark.filterwarnings("ignore::ResourceWarning")
pytestmark = pytest.mark.parametrize("shared_url", ["postgres", *sorted(server_binaries())], indirect=True)


@pytest.fixture
def pipeline(shared_url):
    with CostPipeline(CostConfig(ledger=shared_url, budgets=[{"scope": "global", "limit": "10"}])) as opened:
        yield opened


async def send(attempt):
    await asyncio.sleep(0)
    return answer()


async def calls(pipeline):
    await asyncio.gather(*(pipeline.arun(request(), send) for _ in range(3)))


def connections(url):
    """How many the server has of the package."""
    if url.startswith("redis"):
        import redis

        with closing(redis.Redis.from_url(url)) as client:
            return len(client.client_list()) - 1
    import psycopg

    with psycopg.connect(url) as db:
        mine = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return db.execute(f"SELECT count(*) {mine}").fetchone()[0]


def became(url, expected):
    """Whether there are so many in the end: a server learns a little later that a connection was closed."""
    for _ in range(500):
        if connections(url) == expected:
            return True
        time.sleep(0.01)
    return False


def test_nothing_of_a_loop_that_has_ended_stays(pipeline, shared_url):
    for _ in range(5):
        asyncio.run(calls(pipeline))
    assert became(shared_url, 1)  # the blocking one
    assert pipeline.ledger.balance("global").settled_nanousd == 15 * COST


@unfinished
def test_a_loop_whose_generators_nobody_finished_is_let_go_at_the_next(pipeline, shared_url):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(calls(pipeline))
    loop.close()
    closed = weakref.ref(loop)
    del loop
    asyncio.run(calls(pipeline))
    gc.collect()
    assert closed() is None
    assert became(shared_url, 1)


@unfinished
def test_calls_of_other_generators_that_end_with_the_loop_are_booked(pipeline, shared_url):
    kept = []

    async def one_more():
        try:
            yield
        finally:
            await pipeline.arun(request(), send)

    async def main():
        await calls(pipeline)
        for _ in range(5):
            kept.append(one_more())
            await anext(kept[-1])

    asyncio.run(main())
    balance = pipeline.ledger.balance("global")
    assert (balance.settled_nanousd, balance.pending_nanousd) == (8 * COST, 0)
    asyncio.run(calls(pipeline))  # what those opened when the loop's were closed is let go at the next
    gc.collect()
    assert became(shared_url, 1)
