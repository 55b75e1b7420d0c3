"""A hold shrinks once more is known: the verb of both façades, and what a later report makes of its rows."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace

import pytest
from row_totals import of_rows

from llm_cost_middleware import AsyncLedger, ConfigurationError, Ledger
from llm_cost_middleware.budget.backends.memory import MemoryBackend
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.testing import FakeClock


def test_both_facades_reduce():
    ledger = Ledger.open("memory://", clock=FakeClock())
    ledger.set_budget("global", "0.10")
    held = ledger.reserve("0.09", ["user:a"])
    made = ledger.reduce(held.id, "0.02")
    assert (made.amount, made.released, made.state) == (Decimal("0.02"), Decimal("0.07"), "pending")
    again = asyncio.run(AsyncLedger.over(ledger).reduce(held.id, 0.01))
    assert again.released == Decimal("0.01")
    assert ledger.reduces
    assert AsyncLedger.over(ledger).reduces
    assert ledger.balance("global").pending == Decimal("0.01")
    assert ledger.settle(held.id, "0.005").reserved_nanousd.usd == Decimal("0.01")
    assert [row.kind for row in ledger.rows()] == ["reserve", "reduce", "reduce", "settle"]


def test_a_storage_that_cannot_says_so():
    whole = MemoryBackend(FakeClock())
    names = "blocks", "reserve", "resolve", "extend", "sweep", "read", "rows", "set_budget", "remove_budget", "close"
    ledger = Ledger(SimpleNamespace(**{name: getattr(whole, name) for name in names}))
    held = ledger.reserve("0.09")
    assert not ledger.reduces
    assert not AsyncLedger.over(ledger).reduces
    with pytest.raises(ConfigurationError, match="as it was made"):
        ledger.reduce(held.id, "0.02")
    with pytest.raises(ConfigurationError, match="as it was made"):
        asyncio.run(AsyncLedger.over(ledger).reduce(held.id, "0.02"))


def test_a_reduced_hold_that_is_open_is_no_spending():
    ledger = Ledger.open("memory://", clock=FakeClock())
    held = ledger.reserve("0.09")
    ledger.reduce(held.id, "0.02")
    assert of_rows(ledger.rows()) == {}


def test_reduced_attempts_are_archived_whole(tmp_path):
    clock = FakeClock()
    ledger = Ledger.open(tmp_path / "l.db", clock=clock)
    for number in range(3):
        held = ledger.reserve("0.09", ["user:a"])
        ledger.reduce(held.id, "0.02")
        ledger.settle(held.id, f"0.00{number + 1}")
    clock.advance(3 * 86_400)
    moved = ledger.archive(clock.now() - 86_400, MemoSummary())
    assert (moved.rows, ledger.balance("user:a").settled) == (9, Decimal("0.006"))
