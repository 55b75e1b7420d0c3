"""Random histories on PostgreSQL; the oracle reads the rows with a connection of its own."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from llm_cost_middleware.budget.backends.postgres import AsyncPostgresBackend, PostgresBackend
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import BlockingFacade, ledger_state_machine

HISTORIES = settings(max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
_ROWS = (
    "SELECT seq, kind, e.id, at, amount, scopes, status, created, memo FROM llm_cost.entry e"
    " JOIN llm_cost.tenant t ON t.id = e.tenant WHERE t.name = %s ORDER BY seq"
)


@pytest.mark.parametrize("face", ["blocking", "async"])
def test_random_histories_agree_with_the_reference(postgres_url, face):
    opened, tenants = [], [0]
    db = psycopg.connect(postgres_url, autocommit=True)

    def open_(clock):
        if face == "blocking":
            opened.append(PostgresBackend(postgres_url, clock, f"t{tenants[0]}"))
        else:
            opened.append(BlockingFacade(AsyncPostgresBackend(postgres_url, clock, f"t{tenants[0]}")))
        return opened[-1]

    def raw_rows(_):
        return [
            Row(seq, kind, id_, at / 1000, NanoUSD(amount), tuple(scopes.split()), status, created / 1000, bytes(memo))
            for seq, kind, id_, at, amount, scopes, status, created, memo in db.execute(_ROWS, (f"t{tenants[0]}",))
        ]

    def dispose():
        while opened:
            opened.pop().close()
        tenants[0] += 1  # an empty ledger in the same tables

    run_state_machine_as_test(ledger_state_machine(open_, raw_rows, dispose=dispose), settings=HISTORIES)
    db.close()
