"""A memory ledger stays small however many names it is given: runs, threads, users of a day."""

from __future__ import annotations

import pytest

from llm_cost_middleware.budget.backends.memory import backend as memory
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules.slices import slice_scope
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.money import NanoUSD


@pytest.fixture
def ledger(monkeypatch):
    monkeypatch.setattr(memory, "KEEP", 100)
    return Ledger.open("memory://")


def accounts(ledger):
    return ledger.backend._state.accounts


def test_scopes_with_ever_new_names_are_forgotten_and_those_in_use_are_not(ledger):
    for number in range(1000):
        ledger.settle(ledger.reserve("0.01", [f"run:{number}", "team:a"]).id, "0.01")
        assert len(accounts(ledger)) <= 102
    assert ledger.balance("team:a").settled == 10
    assert ledger.balance("global").settled == 10
    assert ledger.balance("run:999").settled_nanousd == 10_000_000


def test_a_scope_with_a_budget_or_with_open_money_is_kept(ledger):
    ledger.set_budget(Budget("user:*", "5"))
    held = ledger.reserve("0.01", ["run:held"])
    for number in range(300):
        ledger.settle(ledger.reserve("0.01", [f"user:{number}"]).id, "0.01")
        ledger.settle(ledger.reserve("0.01", [f"run:{number}"]).id, "0.01")
    assert all(ledger.balance(f"user:{number}").settled_nanousd == 10_000_000 for number in range(300))
    ledger.settle(held.id, "0.004")
    assert ledger.balance("run:held").settled_nanousd == 4_000_000
    assert sum(scope.startswith("run:") for scope, _ in accounts(ledger)) <= 100


def test_runs_under_one_budget_for_all_of_them_are_forgotten_and_open_slices_are_not(ledger):
    ledger.set_budget(Budget("run:*", "5"))
    ledger.set_budget(Budget("run:own", "5"))
    ledger.set_budget(Budget("run:*", "1", "day"))
    ledger.settle(ledger.reserve("0.5", ["run:own"]).id, "0.5")
    part = slice_scope("part", NanoUSD(1_000_000_000), "a1")
    ledger.reserve("1", ["team:a"], id=part, ttl="30d")
    ledger.settle(ledger.reserve("0.25", ["team:a", part]).id, "0.25")
    for number in range(1000):
        ledger.settle(ledger.reserve("0.01", [f"run:{number}"]).id, "0.01")
        assert len(accounts(ledger)) <= 108
    assert ledger.balance("run:own", "none").settled_nanousd == 500_000_000
    assert ledger.balance("run:999", "none").settled_nanousd == 10_000_000
    assert ledger.available(["team:a", part]) == 750_000_000
    with pytest.raises(BudgetExceededError):
        ledger.reserve("0.76", ["team:a", part])
