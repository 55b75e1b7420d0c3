from __future__ import annotations

import psycopg
import pytest
from leased import Leased

from llm_cost_middleware.budget.backends.postgres import AsyncPostgresBackend, PostgresBackend
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import BlockingFacade, LedgerBackendTests

_DATABASES = iter(range(10**6))


class TestPostgres(LedgerBackendTests):
    @pytest.fixture(autouse=True)
    def server(self, postgres_server):
        self.url = postgres_server.url
        self.tenant = f"t{next(_DATABASES)}"

    def open(self, clock):
        return PostgresBackend(self.url, clock, self.tenant)

    def raw_rows(self, backend):
        query = (
            "SELECT seq, kind, e.id, at, amount, scopes, status, created, memo FROM llm_cost.entry e"
            " JOIN llm_cost.tenant t ON t.id = e.tenant WHERE t.name = %s ORDER BY seq"
        )
        with psycopg.connect(self.url) as db:
            for seq, kind, id_, at, amount, scopes, status, created, memo in db.execute(query, (self.tenant,)):
                when = at / 1000, NanoUSD(amount), tuple(scopes.split()), status, created / 1000
                yield Row(seq, kind, id_, *when, bytes(memo))


class TestPostgresFromAnEventLoop(TestPostgres):
    threads = 1  # one loop

    def open(self, clock):
        return BlockingFacade(AsyncPostgresBackend(self.url, clock, self.tenant))


class LosesReplies(PostgresBackend):
    """The reply to each verb of money is lost, and the function called again, as after a lost connection."""

    def __init__(self, *args):
        super().__init__(*args)
        statements = self.protocol.statements

        def twice(flow):
            steps, answer = statements(flow), None
            while True:
                try:
                    query = steps.send(answer)
                except StopIteration as end:
                    return end.value
                answer = yield query
                if any(f"llm_cost.{name}(" in query.text for name in ("reserve", "resolve", "extend", "reduce")):
                    answer = yield query

        self.protocol.statements = twice


class TestPostgresWithLostReplies(TestPostgres):
    def open(self, clock):
        return LosesReplies(self.url, clock, self.tenant)


class TestPostgresWithLeases(Leased, TestPostgres):
    pass
