"""Random histories on every Redis at hand; the oracle reads the stream with a client of its own."""

from __future__ import annotations

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from redis_servers import server_binaries

from llm_cost_middleware.budget.backends.redis import AsyncRedisBackend, RedisBackend
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import BlockingFacade, ledger_state_machine

HISTORIES = settings(max_examples=150, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))


def raw_rows(client):
    def number(stream_id):
        return int(stream_id.split(b"-")[0])

    return [
        Row(
            number(stream_id),
            line[b"kind"].decode(),
            line[b"id"].decode(),
            int(line[b"at"]) / 1000,
            NanoUSD(line[b"amount"]),
            tuple(line[b"scopes"].decode().split()),
            line[b"status"].decode(),
            int(line[b"created"]) / 1000,
            line[b"memo"],
        )
        for stream_id, line in client.xrange("{llm-cost:default}:rows")
    ]


@pytest.mark.parametrize("face", ["blocking", "async"])
@pytest.mark.parametrize("name", sorted(server_binaries()))
def test_random_histories_agree_with_the_reference(redis_servers, name, face):
    server = redis_servers[name]
    client = redis.Redis.from_url(server.url)

    opened = []

    def open_(clock):
        if face == "blocking":
            opened.append(RedisBackend(server.url, clock, "default"))
        else:
            opened.append(BlockingFacade(AsyncRedisBackend(server.url, clock, "default")))
        return opened[-1]

    def dispose():
        while opened:
            opened.pop().close()
        client.flushall()

    machine = ledger_state_machine(open_, lambda _: raw_rows(client), dispose=dispose)
    run_state_machine_as_test(machine, settings=HISTORIES)
    client.close()
