"""Conformance of reductions: a hold shrinks once more is known, and never grows."""

# ruff: noqa: S101, D102, PLR2004 - what tests are made of: asserts, sentences as names, expected values

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_cost_middleware.budget.backend import Backend
from llm_cost_middleware.budget.model import Budget, Reduction
from llm_cost_middleware.errors import BudgetExceededError, ReservationConflictError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.clock import FakeClock

TTL = 900_000
TEAM = ("global", "team:a")


class ReductionTests:
    """Part of ``LedgerBackendTests``; a backend that cannot reduce is left out."""

    sums: Callable[..., tuple[int, int]]
    threads = 8

    def open(self, clock: FakeClock) -> Backend:
        """Open the storage; a second call in one test opens the same one again."""
        raise NotImplementedError

    def _reduce(self, backend: Backend, id_: str, amount: int) -> Reduction:
        if not hasattr(getattr(backend, "backend", backend), "reduce"):  # a façade has its verbs by ``__getattr__``
            pytest.skip("this backend keeps a hold as it was made")
        made: tuple[Reduction, ...] = backend.reduce([(id_, amount)])  # type: ignore[attr-defined]  # just looked at
        return made[0]

    def _open_hold(self, backend: Backend, id_: str, amount: int, scopes: tuple[str, ...] = TEAM) -> None:
        backend.reserve(id_, amount, scopes, TTL, b"m", fresh=False)

    @pytest.mark.parametrize("window", ["none", "day", "3600s"])
    def test_a_reduction_makes_room_in_every_scope(self, backend: Backend, window: str) -> None:
        for scope in TEAM:
            backend.set_budget(Budget(scope, NanoUSD(100), window))
        self._open_hold(backend, "a", 90)
        assert self._reduce(backend, "a", 30) == ("a", 30, 60, "pending")
        assert [self.sums(backend, scope, window) for scope in TEAM] == [(0, 30), (0, 30)]
        self._open_hold(backend, "b", 70)
        with pytest.raises(BudgetExceededError):
            self._open_hold(backend, "c", 1)

    def test_a_reduction_never_raises_a_hold_and_may_be_sent_twice(self, backend: Backend) -> None:
        self._open_hold(backend, "a", 50)
        assert self._reduce(backend, "a", 60) == ("a", 50, 0, "pending")
        assert self._reduce(backend, "a", 20).amount_nanousd == 20
        assert self._reduce(backend, "a", 20) == ("a", 20, 0, "pending")
        assert self._reduce(backend, "a", 40) == ("a", 20, 0, "pending")
        assert self._reduce(backend, "a", 0) == ("a", 0, 20, "pending")
        assert self.sums(backend, "global") == (0, 0)

    def test_what_is_unknown_or_resolved_is_left_alone_and_said(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(100)))
        self._open_hold(backend, "settled", 50)
        backend.resolve("settle", "settled", 40, status="exact")
        self._open_hold(backend, "voided", 50)
        backend.resolve("void", "voided", 0, status="void")
        with pytest.raises(BudgetExceededError):
            self._open_hold(backend, "refused", 90)
        backend.resolve("book", "booked", 5, scopes=TEAM, status="exact")
        before = self.sums(backend, "global")
        states = [self._reduce(backend, id_, 1) for id_ in ("settled", "voided", "refused", "booked", "nobody")]
        assert [made.state for made in states] == ["settled", "voided", "refused", "settled", "unknown"]
        assert not any(made.released_nanousd or made.amount_nanousd for made in states)
        assert self.sums(backend, "global") == before

    @pytest.mark.parametrize(("verb", "amount", "left"), [("settle", 35, 35), ("void", 0, 0)])
    def test_a_reduced_hold_is_resolved_as_any_other(self, backend: Backend, verb: str, amount: int, left: int) -> None:
        self._open_hold(backend, "a", 50)
        self._reduce(backend, "a", 30)
        receipt = backend.resolve(verb, "a", amount, status="exact")  # type: ignore[arg-type]  # one of two verbs
        assert (receipt.reserved_nanousd, receipt.overrun_nanousd) == (30, max(amount - 30, 0))
        assert self.sums(backend, "team:a") == (left, 0)

    @pytest.mark.parametrize("charge", [True, False])
    def test_a_reduced_hold_expires_at_what_it_holds(self, backend: Backend, clock: FakeClock, charge: bool) -> None:
        self._open_hold(backend, "a", 50)
        self._reduce(backend, "a", 30)
        clock.advance(TTL / 1000 + 1)
        assert backend.sweep(charge=charge, limit=10) == 1
        assert self.sums(backend, "global") == (30 if charge else 0, 0)
        assert self._reduce(backend, "a", 1).state == "expired"

    def test_the_same_reserve_finds_its_reduced_hold(self, backend: Backend, clock: FakeClock) -> None:
        self._open_hold(backend, "a", 50)
        self._reduce(backend, "a", 40)
        self._reduce(backend, "a", 30)
        other = self.open(clock)
        for opened in (backend, other):
            assert opened.reserve("a", 50, TEAM, TTL, b"m", fresh=False).amount_nanousd == 30
            for wrong in (40, 49, 51):
                with pytest.raises(ReservationConflictError):
                    self._open_hold(opened, "a", wrong)
            assert self.sums(opened, "global") == (0, 30)
        other.close()

    def test_a_settle_elsewhere_knows_of_the_reduction(self, backend: Backend, clock: FakeClock) -> None:
        other = self.open(clock)
        self._open_hold(backend, "a", 50)
        self._reduce(other, "a", 30)
        assert backend.resolve("settle", "a", 20, status="exact").reserved_nanousd == 30
        assert self.sums(backend, "global") == self.sums(other, "global") == (20, 0)
        self._open_hold(other, "b", 50)
        self._reduce(other, "b", 30)
        assert self._reduce(backend, "b", 10).released_nanousd == 20
        assert other.resolve("void", "b", 0, status="void").reserved_nanousd == 10
        assert self.sums(backend, "global") == (20, 0)
        other.close()

    def test_several_are_reduced_at_once(self, backend: Backend) -> None:
        for number in range(5):
            self._open_hold(backend, f"{number}", 10)
        self._reduce(backend, "0", 9)
        made = backend.reduce([(f"{number}", number) for number in (4, 2, 9)])  # type: ignore[attr-defined]  # looked at above
        assert [(one.id, one.released_nanousd) for one in made] == [("4", 6), ("2", 8), ("9", 0)]
        assert self.sums(backend, "global") == (0, 50 - 1 - 14)

    def test_reductions_and_settles_race(self, backend: Backend) -> None:
        ids = [f"{number}" for number in range(20)]
        for id_ in ids:
            self._open_hold(backend, id_, 50)
        self._reduce(backend, ids[0], 49)
        work = [(id_, amount) for id_ in ids for amount in (40, 30, None)]

        def one(item: tuple[str, int | None]) -> None:
            id_, amount = item
            if amount is None:
                backend.resolve("settle", id_, 7, status="exact")
            else:
                self._reduce(backend, id_, amount)

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(one, work))
        assert self.sums(backend, "global") == (7 * len(ids), 0)

    def test_a_window_set_later_counts_what_is_left_of_a_hold(self, backend: Backend) -> None:
        self._open_hold(backend, "a", 50)
        self._reduce(backend, "a", 30)
        backend.set_budget(Budget("team:a", NanoUSD(40), "day"))
        assert self.sums(backend, "team:a", "day") == (0, 30)
        self._open_hold(backend, "b", 10)
        with pytest.raises(BudgetExceededError):
            self._open_hold(backend, "c", 1)
