"""The dearest and the longest rows: SQL and a stream of rows find the same."""

import random

import pytest

from llm_cost_middleware import Ledger
from llm_cost_middleware.budget.rules.largest import SupportsLargest, largest_rows, measured
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock

START = 1_790_000_000


@pytest.fixture
def filled(tmp_path):
    """A ledger whose ids end in every way, and what each finally cost (``None``: nothing was paid)."""
    clock, rng, paid = FakeClock(START), random.Random(5), {}
    with Ledger.open(tmp_path / "ledger.db", clock=clock, durability="normal") as ledger:
        for number in range(300):
            id_ = f"call-{number}"
            amounts = rng.sample(range(1, 10**7), 2)
            ledger.reserve(NanoUSD(10**7), [f"team:{number % 3}"], id=id_, ttl=100)
            clock.advance(rng.randrange(1, 90))
            end = rng.choice(("settle", "settle", "void", "expire", "corrected"))
            if end == "void":
                ledger.void(id_)
                continue
            if end == "expire":
                clock.advance(200)
                ledger.sweep()
                paid[id_] = 10**7
                continue
            ledger.settle(id_, NanoUSD(amounts[0]))
            paid[id_] = amounts[0]
            if end == "corrected":
                clock.advance(50)
                ledger.reconcile(id_, NanoUSD(amounts[1]))
                paid[id_] = amounts[1]
        yield ledger, paid


def test_the_dearest_are_those_that_finally_cost_most(filled):
    ledger, paid = filled
    found = ledger.backend.largest("amount", 20, None, None, lambda _: True)
    assert [row.amount_nanousd for row in found] == sorted(paid.values(), reverse=True)[:20]


@pytest.mark.parametrize("by", ["amount", "duration"])
def test_sql_and_a_stream_find_the_same(filled, by):
    ledger, _ = filled
    assert isinstance(ledger.backend, SupportsLargest)
    for since, until in ((None, None), ((START + 900) * 1000, (START + 9_000) * 1000)):

        def wanted(row):
            return "team:1" in row.scopes

        sql = ledger.backend.largest(by, 15, since, until, wanted)
        stream = largest_rows(
            lambda: ledger.backend.rows(None, None), by, 15, since=since, until=until, wanted=wanted
        )  # fmt: skip
        assert [measured(row, by) for row in sql] == [measured(row, by) for row in stream]
        assert len(sql) >= 10
        assert all("team:1" in row.scopes for row in sql)
