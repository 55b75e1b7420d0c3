"""Conformance of the register of budgets: decisions are one step, raises end, pauses stop every reserve."""

# ruff: noqa: S101, D102 - what tests are made of: asserts, sentences as names

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llm_cost_middleware.budget.backend import Backend, SupportsRegister
from llm_cost_middleware.budget.ledger.administration import RegisterStep
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules import BudgetRegister
from llm_cost_middleware.errors import BudgetExceededError, ScopePausedError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.clock import FakeClock

TTL = 900_000
GLOBAL, TEAM = ("global",), ("global", "team:a")


class RegisterTests:
    """Part of ``LedgerBackendTests``; a backend without a register is left out."""

    def open(self, clock: FakeClock) -> Backend:
        """Open the storage."""
        raise NotImplementedError

    @pytest.fixture
    def register(self, backend: Backend, clock: FakeClock) -> Iterator[Any]:
        if not isinstance(backend, SupportsRegister):
            pytest.skip("this backend keeps no register")
        other = self.open(clock)  # another process: it must heed what this one decides
        yield other
        other.close()

    def _decide(self, backend: Any, change: Callable[[BudgetRegister], Any]) -> Any:
        step = RegisterStep(change)
        backend.amend(step)
        return step.result

    def _take(self, backend: Backend, id_: str, amount: int, scopes: tuple[str, ...] = TEAM) -> None:
        backend.reserve(id_, amount, scopes, TTL, b"", fresh=False)

    def test_a_raise_holds_until_its_end_and_no_longer(self, backend: Backend, clock: FakeClock, register: Any) -> None:
        self._decide(backend, lambda book: book.set(Budget("team:a", NanoUSD(10), "month")))
        self._decide(backend, lambda book: book.raise_(("team:a", "month"), NanoUSD(15), book.now + 60_000))
        self._take(register, "a", 15)
        with pytest.raises(BudgetExceededError) as caught:
            self._take(register, "b", 1)
        assert caught.value.budget_limit == NanoUSD(15).usd
        backend.resolve("void", "a", 0, status="void")
        clock.advance(60)
        with pytest.raises(BudgetExceededError) as caught:
            self._take(register, "c", 11)
        assert caught.value.budget_limit == NanoUSD(10).usd
        self._take(register, "d", 10)

    @pytest.mark.parametrize("scope", ["team:a", "team:*"])
    def test_a_refusal_and_its_replay_say_whether_the_budget_is_the_scope_s_own(
        self, backend: Backend, register: Any, scope: str
    ) -> None:
        self._decide(backend, lambda book: book.set(Budget(scope, NanoUSD(10), "month")))
        for _ in range(2):  # by a process that knows the budgets: not every storage keeps this with a refusal
            with pytest.raises(BudgetExceededError) as caught:
                self._take(register, "a", 11)
            assert caught.value.by_template is (scope == "team:*")

    @pytest.mark.parametrize("scope", ["global", "team:a", "team:*"])
    def test_a_pause_stops_every_process_until_it_ends(
        self, backend: Backend, clock: FakeClock, register: Any, scope: str
    ) -> None:
        self._take(register, "before", 1)
        self._decide(backend, lambda book: book.pause(scope, book.now + 60_000, "incident 7"))
        for fresh in (True, False):
            with pytest.raises(ScopePausedError, match="incident 7") as caught:
                register.reserve("x", 1, TEAM, TTL, b"", fresh=fresh)
            assert caught.value.scope == ("global" if scope == "global" else "team:a")
        register.resolve("settle", "before", 1, status="exact")  # what is under way ends as it would
        assert sum(line.pending for line in register.read(TEAM).totals) == 0
        clock.advance(60)
        self._take(register, "x", 1)  # the id is not spent

    def test_a_reading_shows_what_is_paused(self, backend: Backend, register: Any) -> None:
        """What is not reserved is stopped by it (``Ledger.check_paused``)."""
        assert register.read(()).budget_index.overlay.pause(TEAM, 0) is None
        self._decide(backend, lambda book: book.pause("team:*", None, "incident 7"))
        snapshot = register.read(())
        scope, pause = snapshot.budget_index.overlay.pause(TEAM, snapshot.now)
        assert (scope, pause.scope, pause.reason) == ("team:a", "team:*", "incident 7")
        self._decide(backend, lambda book: book.resume("team:*"))
        assert register.read(()).budget_index.overlay.pause(TEAM, 0) is None

    def test_a_pause_ends_when_it_is_resumed(self, backend: Backend, register: Any) -> None:
        self._decide(backend, lambda book: book.pause("team:a", None, ""))
        with pytest.raises(ScopePausedError):
            self._take(register, "a", 1)
        self._take(register, "b", 1, ("global", "team:b"))
        assert self._decide(register, lambda book: book.resume("team:a"))
        self._take(backend, "a", 1)
        assert not self._decide(register, lambda book: book.resume("team:a"))

    def test_a_decision_is_one_step(self, backend: Backend, register: Any) -> None:
        """Budgets and their register never part, and of decisions at the same moment none is lost."""

        def one(number: int) -> None:
            self._decide(
                (backend, register)[number % 2],
                lambda book: book.set(Budget(f"team:t{number}", NanoUSD(number + 1), ("none", "day")[number % 2])),
            )

        threads = getattr(self, "threads", 4)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, range(12)))
        lives = self._decide(register, BudgetRegister.lives)
        assert {life.budget for life in lives} == set(backend.read(()).budget_index.budgets)
        assert len(lives) == len(self._decide(backend, BudgetRegister.history)) == 12  # noqa: PLR2004 - as many as threads set

    def test_what_was_booked_counts_under_every_budget_that_a_decision_sets(
        self, backend: Backend, register: Any
    ) -> None:
        self._take(backend, "a", 7)
        lines = [Budget("team:a", NanoUSD(10), "day"), Budget("global", NanoUSD(9), "3600s")]
        self._decide(register, lambda book: book.configure("default", 1, lines))
        with pytest.raises(BudgetExceededError) as caught:
            self._take(backend, "b", 3)
        assert caught.value.scope == "global"
        self._take(backend, "c", 2)
