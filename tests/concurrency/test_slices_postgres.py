"""Slices on PostgreSQL under many writers: each holds what it has left, and nobody waits in a circle."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

import psycopg

from llm_cost_middleware.budget.backends.postgres import PostgresBackend
from llm_cost_middleware.budget.model import LIFETIME, Budget
from llm_cost_middleware.budget.rules.slices import held_by, slice_scope
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.money import NanoUSD

TTL = 900_000
RUN = ("global", "run:r")
CHILD = slice_scope("child", NanoUSD(6_000), "a1")
GRANDCHILD = slice_scope("grandchild", NanoUSD(2_000), "b2")
PLACES = RUN, (*RUN, CHILD), (*RUN, CHILD, GRANDCHILD)
_ALONE = (
    "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
)
_ROWS = "SELECT sum(settled), sum(pending) FROM llm_cost.entry WHERE strpos(' ' || scopes || ' ', %s) > 0"


def call(backends, number):
    """A call somewhere in the tree, some of them for a person with a limit; any process goes on with it."""
    rng, id_ = Random(number), f"call-{number}"
    scopes = (*rng.choice(PLACES), *rng.choice(((), ("user:a",), ("user:b",))))
    try:
        rng.choice(backends).reserve(id_, rng.randrange(1, 300), scopes, TTL, b"", fresh=False)
    except BudgetExceededError:
        return
    if rng.random() < 0.3:
        rng.choice(backends).reduce([(id_, rng.randrange(1, 50))])
    if (end := rng.choice(("settle", "void", "open"))) != "open":
        rng.choice(backends).resolve(end, id_, rng.randrange(20), status="exact")


def test_many_writers_leave_every_slice_right(postgres_url):
    backends = [PostgresBackend(postgres_url, None, "sliced") for _ in range(3)]
    for scope, window in (("global", LIFETIME), ("run:r", LIFETIME), ("user:*", "day")):
        backends[0].set_budget(Budget(scope, NanoUSD(10_000), window))
    backends[0].reserve(CHILD, 6_000, RUN, TTL, b"", fresh=False)
    backends[0].reserve(GRANDCHILD, 2_000, PLACES[1], TTL, b"", fresh=False)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: call(backends, number), range(300)))
    totals = {one.scope: one for one in backends[0].read(PLACES[2]).totals if one.window == LIFETIME}
    for backend in backends:
        backend.close()
    with psycopg.connect(postgres_url, autocommit=True) as db:
        for scope, total in totals.items():
            assert db.execute(_ROWS, (f" {scope} ",)).fetchone() == (total.settled, total.pending)
        for scope in (CHILD, GRANDCHILD):
            (held,) = db.execute("SELECT amount FROM llm_cost.reservation WHERE id = %s", (scope,)).fetchone()
            assert held == held_by(scope, totals[scope][2:4])
        while db.execute(_ALONE).fetchone() != (True,):  # what they counted is known when they have gone
            time.sleep(0.02)
        found = db.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
        assert found == (0,)
