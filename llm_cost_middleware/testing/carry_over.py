"""Conformance of carry-over (``Budget.carry_over``): what a window left unused is added to the next limit."""

# ruff: noqa: S101, D102, PLR2004 - what tests are made of: asserts, sentences as names, expected values

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from llm_cost_middleware.budget.backend import Backend, SupportsRegister
from llm_cost_middleware.budget.ledger.administration import RegisterStep
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules import headroom, scope_balances
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.clock import FakeClock

DAY = 86_400
TTL = 10 * DAY * 1000
GLOBAL = ("global",)


class CarryOverTests:
    """Part of ``LedgerBackendTests``; a backend without a register cannot know since when a budget stands."""

    def open(self, clock: FakeClock) -> Backend:
        """Open the storage."""
        raise NotImplementedError

    def _carrying(self, backend: Backend, limit: int = 100, **fields: Any) -> None:
        if not isinstance(backend, SupportsRegister):
            pytest.skip("this backend keeps no register")
        budget = Budget("global", NanoUSD(limit), fields.pop("window", "day"), **{"carry_over": True, **fields})
        backend.amend(RegisterStep(lambda register: register.set(budget)))

    def _booked(self, backend: Backend, id_: str, amount: int) -> None:
        backend.resolve("book", id_, amount, scopes=GLOBAL, status="exact")

    def _fills(self, backend: Backend, id_: str, room: int) -> BudgetExceededError:
        """Check that exactly so much fits; return the refusal of one more. Nothing stays held."""
        with pytest.raises(BudgetExceededError) as caught:
            backend.reserve(f"{id_}+", room + 1, GLOBAL, TTL, b"", fresh=False)
        backend.reserve(id_, room, GLOBAL, TTL, b"", fresh=False)
        backend.resolve("void", id_, 0, status="void")
        with pytest.raises(BudgetExceededError) as again:
            backend.reserve(f"{id_}+", room + 1, GLOBAL, TTL, b"", fresh=False)
        assert str(again.value) == str(caught.value)
        return caught.value

    @pytest.mark.parametrize(("cap", "carried"), [(True, 70), ("50%", 50), ("$0.00000002", 20), (False, 0)])
    def test_the_unused_rest_is_added_up_to_its_cap(
        self, backend: Backend, clock: FakeClock, cap: bool | str, carried: int
    ) -> None:
        self._carrying(backend, carry_over=cap)
        clock.advance(DAY)
        self._booked(backend, "a", 30)
        clock.advance(DAY)
        error = self._fills(backend, "b", 100 + carried)
        nano = NanoUSD(1).usd
        assert (error.budget_limit, error.carried) == (nano * (100 + carried), nano * carried if carried else None)
        assert ("carried over from the day before" in str(error)) == bool(carried)
        with closing(self.open(clock)) as again:
            (found,) = scope_balances(*again.read(GLOBAL))
        assert (found.balance.limit_nanousd, found.balance.carried_nanousd) == (100 + carried, carried)
        room = headroom(*backend.read(GLOBAL))
        assert room is not None
        assert room.available_nanousd == 100 + carried

    def test_a_budget_carries_nothing_of_a_window_in_which_it_did_not_stand(
        self, backend: Backend, clock: FakeClock
    ) -> None:
        clock.advance(3600)
        self._carrying(backend)
        self._fills(backend, "a", 100)
        clock.advance(DAY)
        self._fills(backend, "b", 100)  # it began within the day before
        clock.advance(DAY)
        self._fills(backend, "c", 200)

    def test_one_window_back_and_nothing_compounds(self, backend: Backend, clock: FakeClock) -> None:
        self._carrying(backend)
        clock.advance(5 * DAY)
        self._fills(backend, "a", 200)
        self._booked(backend, "b", 120)  # more than the limit of the day, which leaves nothing
        clock.advance(DAY)
        self._fills(backend, "c", 100)

    def test_what_is_pending_counts_as_spent_and_a_late_settle_changes_what_is_carried(
        self, backend: Backend, clock: FakeClock
    ) -> None:
        self._carrying(backend)
        clock.advance(DAY)
        for id_, amount in (("settled", 60), ("void", 10)):
            backend.reserve(id_, amount, GLOBAL, TTL, b"", fresh=False)
        clock.advance(DAY)
        self._fills(backend, "a", 130)
        backend.resolve("settle", "settled", 20, status="exact")
        self._fills(backend, "b", 170)
        backend.resolve("void", "void", 0, status="void")
        self._fills(backend, "c", 180)
        backend.reserve("held", 170, GLOBAL, TTL, b"", fresh=False)
        backend.resolve("reconcile", "settled", 95, status="exact")  # what is held stays, and nothing more fits
        with pytest.raises(BudgetExceededError) as caught:
            backend.reserve("d", 1, GLOBAL, TTL, b"", fresh=False)
        assert caught.value.budget_limit == NanoUSD(105).usd
        assert caught.value.available < 0

    def test_the_least_limit_that_stood_decides(self, backend: Backend, clock: FakeClock) -> None:
        self._carrying(backend, 100)
        clock.advance(DAY + 3600)
        self._carrying(backend, 40)
        self._carrying(backend, 300)
        clock.advance(DAY)
        self._fills(backend, "a", 340)
        self._carrying(backend, 500)
        self._fills(backend, "b", 540)
        clock.advance(DAY)
        self._fills(backend, "c", 800)  # 300 stood when the day began, then 500

    def test_shares_are_kept_of_the_limit_itself(self, backend: Backend, clock: FakeClock) -> None:
        self._carrying(backend, reserve={"tag:checkout": "0.2"})
        clock.advance(2 * DAY)
        error = self._fills(backend, "a", 180)
        assert (error.budget_limit, error.kept) == (NanoUSD(200).usd, NanoUSD(20).usd)

    def test_a_race_fills_what_is_carried_exactly(self, backend: Backend, clock: FakeClock) -> None:
        self._carrying(backend, 10)
        clock.advance(DAY)
        self._booked(backend, "before", 4)
        clock.advance(DAY)

        def take(number: int) -> bool:
            try:
                backend.reserve(f"call-{number}", 1, GLOBAL, TTL, b"", fresh=False)
            except BudgetExceededError:
                return False
            return True

        with ThreadPoolExecutor(getattr(self, "threads", 4)) as pool:
            assert sum(pool.map(take, range(24))) == 16
