from __future__ import annotations

from contextlib import closing

import pytest
import redis
from leased import Leased
from redis_servers import server_binaries

from llm_cost_middleware.budget.backends.redis import AsyncRedisBackend, RedisBackend
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.scripted.commands import Script
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import BlockingFacade, LedgerBackendTests


@pytest.mark.parametrize("server", sorted(server_binaries()), indirect=True)
class TestRedis(LedgerBackendTests):
    @pytest.fixture(autouse=True)
    def server(self, redis_servers, request):
        self.url = redis_servers[request.param].url
        yield
        with closing(redis.Redis.from_url(self.url)) as client:
            client.flushall()

    def open(self, clock):
        return RedisBackend(self.url, clock, "default")

    def raw_rows(self, backend):
        with closing(redis.Redis.from_url(self.url)) as client:
            for stream_id, line in client.xrange("{llm-cost:default}:rows"):
                text = {name.decode(): value.decode() for name, value in line.items() if name != b"memo"}
                yield Row(
                    int(stream_id.split(b"-")[0]), text["kind"], text["id"], int(text["at"]) / 1000,
                    NanoUSD(text["amount"]), tuple(text["scopes"].split()), text["status"], int(text["created"]) / 1000,
                    line[b"memo"],
                )  # fmt: skip


class TestRedisFromAnEventLoop(TestRedis):
    threads = 1  # one loop

    def open(self, clock):
        return BlockingFacade(AsyncRedisBackend(self.url, clock, "default"))


class LosesReplies(RedisBackend):
    """The reply to each verb of money is lost, and the script sent again, as redis-py does after a reconnect."""

    def execute(self, line, patience=None):
        if isinstance(line, Script) and line.name.partition("+")[0] in {"reserve", "resolve", "extend", "reduce"}:
            super().execute(line, patience)
        return super().execute(line, patience)


class TestRedisWithLostReplies(TestRedis):
    def open(self, clock):
        return LosesReplies(self.url, clock, "default")


class TestRedisWithLeases(Leased, TestRedis):
    pass
