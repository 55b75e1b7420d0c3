"""Conformance of slices: a part of what is left, set aside for one child, never more than its parents have."""

# ruff: noqa: S101, D102, PLR2004 - what tests are made of: asserts, sentences as names, expected values

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_cost_middleware.budget.backend import Backend
from llm_cost_middleware.budget.model import Budget, Verb
from llm_cost_middleware.budget.rules.slices import slice_scope
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.clock import FakeClock

TTL = 900_000
RUN = ("global", "run:r")
CHILD = slice_scope("child", NanoUSD(60), "a1")
GRANDCHILD = slice_scope("grandchild", NanoUSD(20), "b2")
IN_CHILD, IN_GRANDCHILD = (*RUN, CHILD), (*RUN, CHILD, GRANDCHILD)


class SliceTests:
    """Part of ``LedgerBackendTests``; a backend without slices is left out."""

    sums: Callable[..., tuple[int, int]]
    audit: Callable[[Backend], None]
    open: Callable[[FakeClock], Backend]

    @pytest.fixture
    def sliced(self, backend: Backend) -> Backend:
        """A run of 100 with a slice of 60."""
        if not getattr(getattr(backend, "backend", backend), "slices", False):
            pytest.skip("this backend has no slices")
        for scope in RUN:
            backend.set_budget(Budget(scope, NanoUSD(100)))
        backend.reserve(CHILD, 60, RUN, TTL, b"", fresh=False)
        return backend

    def _spend_in(self, backend: Backend, id_: str, amount: int, scopes: tuple[str, ...]) -> bool:
        try:
            backend.reserve(id_, amount, scopes, TTL, b"m", fresh=False)
        except BudgetExceededError:
            return False
        return True

    def test_a_call_of_a_slice_changes_no_sum_of_its_parents(self, sliced: Backend) -> None:
        assert self._spend_in(sliced, "a", 45, IN_CHILD)
        assert [self.sums(sliced, scope) for scope in IN_CHILD] == [(0, 60), (0, 60), (0, 45)]
        assert self._spend_in(sliced, "a", 45, IN_CHILD)  # sent twice
        sliced.resolve("settle", "a", 30, status="exact")
        assert [self.sums(sliced, scope) for scope in IN_CHILD] == [(30, 30), (30, 30), (30, 0)]
        assert self._spend_in(sliced, "other", 40, RUN)
        assert not self._spend_in(sliced, "another", 1, RUN)  # what the slice keeps is nobody else's
        assert self._spend_in(sliced, "b", 30, IN_CHILD)

    def test_a_slice_refuses_what_it_has_not(self, sliced: Backend) -> None:
        with pytest.raises(BudgetExceededError) as refused:
            sliced.reserve("a", 61, IN_CHILD, TTL, b"", fresh=False)
        assert refused.value.scope == CHILD
        assert refused.value.budget_limit * 10**9 == 60
        assert [self.sums(sliced, scope) for scope in RUN] == [(0, 60), (0, 60)]

    def test_no_slice_is_larger_than_what_is_left(self, sliced: Backend) -> None:
        assert not self._spend_in(sliced, slice_scope("too large", NanoUSD(41), "c3"), 41, RUN)
        assert self._spend_in(sliced, slice_scope("fits", NanoUSD(40), "d4"), 40, RUN)
        assert not self._spend_in(sliced, slice_scope("nothing left", NanoUSD(1), "e5"), 1, RUN)

    def test_an_end_gives_back_what_was_not_spent(self, sliced: Backend) -> None:
        self._spend_in(sliced, "a", 45, IN_CHILD)
        self._spend_in(sliced, "open", 5, IN_CHILD)
        sliced.resolve("settle", "a", 25, status="exact")
        sliced.resolve("void", CHILD, 0, status="void")
        assert self.sums(sliced, "run:r") == (25, 5)
        sliced.resolve("settle", "open", 4, status="exact")
        assert self.sums(sliced, "run:r") == (29, 0)
        assert not self._spend_in(sliced, "late", 1, IN_CHILD)  # whoever still runs in it has no money
        assert self._spend_in(sliced, "other", 71, RUN)

    def test_slices_nest(self, sliced: Backend) -> None:
        assert self._spend_in(sliced, GRANDCHILD, 20, IN_CHILD)
        assert self._spend_in(sliced, "a", 15, IN_GRANDCHILD)
        assert not self._spend_in(sliced, "b", 6, IN_GRANDCHILD)
        assert [self.sums(sliced, scope) for scope in IN_GRANDCHILD] == [(0, 60), (0, 60), (0, 20), (0, 15)]
        sliced.resolve("settle", "a", 10, status="exact")
        assert [self.sums(sliced, scope) for scope in IN_GRANDCHILD] == [(10, 50), (10, 50), (10, 10), (10, 0)]
        sliced.resolve("void", GRANDCHILD, 0, status="void")
        assert self._spend_in(sliced, "c", 50, IN_CHILD)
        assert not self._spend_in(sliced, "d", 1, IN_CHILD)

    def test_an_overrun_is_paid_by_the_slice_then_by_its_parents(self, sliced: Backend) -> None:
        self._spend_in(sliced, GRANDCHILD, 20, IN_CHILD)
        self._spend_in(sliced, "a", 20, IN_GRANDCHILD)
        self._spend_in(sliced, "b", 30, IN_CHILD)
        sliced.resolve("settle", "a", 25, status="exact")
        assert [self.sums(sliced, scope) for scope in IN_GRANDCHILD] == [(25, 35), (25, 35), (25, 30), (25, 0)]
        sliced.resolve("settle", "b", 40, status="exact")
        assert [self.sums(sliced, scope) for scope in RUN] == [(65, 0), (65, 0)]
        sliced.resolve("reconcile", "b", 5, status="exact")
        assert self.sums(sliced, "run:r") == (30, 30)

    def test_a_refusal_of_another_scope_takes_nothing_from_the_slice(self, sliced: Backend) -> None:
        sliced.set_budget(Budget("model:m", NanoUSD(5)))
        assert not self._spend_in(sliced, "a", 6, (*IN_CHILD, "model:m"))
        assert self._spend_in(sliced, "b", 60, IN_CHILD)

    @pytest.mark.parametrize("charge", [True, False])
    def test_a_slice_that_nobody_spends_from_returns_its_rest(
        self, sliced: Backend, clock: FakeClock, charge: bool
    ) -> None:
        """After a crash: the attempts in flight are charged or released, the rest of the slice always is released."""
        clock.advance(800)
        self._spend_in(sliced, "in flight", 20, IN_CHILD)
        clock.advance(800)
        assert sliced.sweep(charge=charge, limit=10) == 0  # that call kept it alive
        clock.advance(200)
        assert sliced.sweep(charge=charge, limit=10) == 2
        assert self.sums(sliced, "run:r") == (20 if charge else 0, 0)
        assert not self._spend_in(sliced, "late", 1, IN_CHILD)

    def test_a_reduction_and_a_booking_are_the_slices_too(self, sliced: Backend) -> None:
        self._spend_in(sliced, "a", 60, IN_CHILD)
        sliced.reduce([("a", 10)])  # type: ignore[attr-defined]  # where there are slices, there are reductions
        assert self.sums(sliced, "run:r") == (0, 60)
        sliced.resolve("book", "b", 20, scopes=IN_CHILD, status="exact")
        assert [self.sums(sliced, scope) for scope in IN_CHILD] == [(20, 40), (20, 40), (20, 10)]
        assert not self._spend_in(sliced, "c", 31, IN_CHILD)
        assert self._spend_in(sliced, "d", 30, IN_CHILD)

    def test_a_window_that_turns_needs_room_of_its_own(self, sliced: Backend, clock: FakeClock) -> None:
        sliced.set_budget(Budget("run:r", NanoUSD(70), "hour"))
        clock.advance(3600)
        sliced.reserve("other", 30, RUN, TTL, b"", fresh=False)
        sliced.extend(CHILD, TTL * 10)
        assert self._spend_in(sliced, "a", 40, IN_CHILD)
        assert self.sums(sliced, "run:r", "hour") == (0, 70)

    def test_parallel_calls_never_take_more_than_the_slice(self, sliced: Backend) -> None:
        with ThreadPoolExecutor(getattr(self, "threads", 8)) as pool:
            taken = sum(pool.map(lambda n: self._spend_in(sliced, f"c{n}", 7, IN_CHILD), range(30)))
            others = sum(pool.map(lambda n: self._spend_in(sliced, f"o{n}", 7, RUN), range(30)))
        assert (taken, others) == (8, 5)

    def test_another_process_spends_from_the_same_slice(self, sliced: Backend, clock: FakeClock) -> None:
        other = self.open(clock)
        assert self._spend_in(other, "a", 40, IN_CHILD)
        other.resolve("settle", "a", 5, status="exact")
        assert self._spend_in(sliced, "b", 55, IN_CHILD)
        assert not self._spend_in(other, "c", 1, IN_CHILD)
        other.close()

    @pytest.mark.parametrize("verb", ["settle", "void"])
    def test_a_resolution_that_is_sent_twice_counts_once(self, sliced: Backend, verb: Verb) -> None:
        self._spend_in(sliced, "a", 50, IN_CHILD)
        for _ in range(2):
            sliced.resolve(verb, "a", 0, status="exact")
        assert [self.sums(sliced, scope) for scope in IN_CHILD] == [(0, 60), (0, 60), (0, 0)]
