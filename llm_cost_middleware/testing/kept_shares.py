"""Conformance of kept shares (``Budget.reserve``): the last part of a limit goes to the scopes it is kept for alone."""

# ruff: noqa: S101, D102 - what tests are made of: asserts, sentences as names

from __future__ import annotations

from contextlib import ExitStack, closing

import pytest

from llm_cost_middleware.budget.backend import Backend
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.clock import FakeClock

TTL = 900_000
PLAIN, CRITICAL = ("global", "tag:other"), ("global", "tag:checkout")


class KeptShareTests:
    """Part of ``LedgerBackendTests``."""

    def open(self, clock: FakeClock) -> Backend:
        """Open the storage."""
        raise NotImplementedError

    def _hold(self, backend: Backend, id_: str, amount: int, scopes: tuple[str, ...]) -> None:
        backend.reserve(id_, amount, scopes, TTL, b"", fresh=False)

    @pytest.mark.parametrize("window", ["none", "day", "3600s"])
    def test_the_last_share_is_for_its_own_scope(self, backend: Backend, window: str) -> None:
        backend.set_budget(Budget("global", NanoUSD(100), window, reserve={"tag:checkout": "0.2"}))
        self._hold(backend, "a", 80, PLAIN)
        with pytest.raises(BudgetExceededError) as caught:
            self._hold(backend, "b", 1, PLAIN)
        refusal = caught.value
        assert (refusal.budget_limit, refusal.kept) == (NanoUSD(100).usd, NanoUSD(20).usd)
        assert refusal.available == 0
        self._hold(backend, "c", 20, CRITICAL)
        with pytest.raises(BudgetExceededError) as caught:
            self._hold(backend, "d", 1, CRITICAL)
        assert caught.value.kept is None

    def test_a_refusal_for_a_kept_share_stays_and_says_the_same(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(100), reserve={"tag:checkout": "0.2"}))
        told = []
        for _ in range(2):
            with pytest.raises(BudgetExceededError) as caught:
                self._hold(backend, "a", 81, PLAIN)
            told.append(str(caught.value))
        assert told[0] == told[1]
        assert "kept for other scopes" in told[0]

    def test_spending_of_the_scope_counts_as_any_other(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(100), reserve={"tag:checkout": "0.2"}))
        self._hold(backend, "a", 50, CRITICAL)
        self._hold(backend, "b", 30, PLAIN)
        with pytest.raises(BudgetExceededError):
            self._hold(backend, "c", 1, PLAIN)

    def test_several_shares_and_templates_add_up(self, backend: Backend) -> None:
        backend.set_budget(Budget("team:a", NanoUSD(100), reserve={"tag:checkout": "0.2", "user:*": "0.3"}))
        team = ("global", "team:a")
        self._hold(backend, "a", 50, team)
        with pytest.raises(BudgetExceededError):
            self._hold(backend, "b", 1, team)
        self._hold(backend, "c", 20, (*team, "tag:checkout"))
        with pytest.raises(BudgetExceededError):
            self._hold(backend, "d", 11, (*team, "user:7"))
        self._hold(backend, "e", 10, (*team, "user:7"))
        self._hold(backend, "f", 20, (*team, "user:7", "tag:checkout"))

    def test_a_kept_share_may_be_set_changed_and_taken_back(self, backend: Backend, clock: FakeClock) -> None:
        budget = Budget("global", NanoUSD(100))
        with ExitStack() as opened:  # closed at the end: it may be the same storage
            for share, room in (({"tag:checkout": "0.2"}, 80), ({"tag:checkout": "0.5"}, 50), ({}, 100)):
                backend.set_budget(Budget(budget.scope, budget.limit, reserve=share))
                again = opened.enter_context(closing(self.open(clock)))
                stored = again.read(GLOBAL).budget_index.budgets[0]
                assert {scope: str(part) for scope, part in stored.shares} == share
                with pytest.raises(BudgetExceededError):
                    self._hold(backend, f"{room}+", room + 1, PLAIN)
                self._hold(backend, f"{room}", room, PLAIN)
                backend.resolve("void", f"{room}", 0, status="void")


GLOBAL = ("global",)
