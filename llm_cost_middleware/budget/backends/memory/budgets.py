"""The budgets of a ledger in memory, and their register."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_cost_middleware.budget.backend import BudgetStep
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules import (
    BudgetChange,
    BudgetIndex,
    Overlay,
    budget_changes,
    removing,
    scope_matches,
    setting,
    window_at,
)

if TYPE_CHECKING:
    from llm_cost_middleware.budget.backends.memory.accounts import Account
    from llm_cost_middleware.budget.backends.memory.backend import _SharedState


class MemoryBudgets:
    """The part of ``MemoryBackend`` that keeps budgets. Every verb runs under the lock of the state."""

    _state: _SharedState
    _now: Callable[[], float]
    _account: Callable[[str, str], Account]
    _set_warn_threshold: Callable[[Account], None]

    def set_budget(self, budget: Budget) -> None:
        """See ``Backend``. It counts what is open and the last ``KEEP`` resolved ids."""
        self._amend(setting(budget))

    def remove_budget(self, scope: str, window: str) -> bool:
        """See ``Backend``."""
        return self._amend(removing((scope, window)))

    def amend(self, decide: BudgetStep) -> None:
        """See ``SupportsRegister``."""
        self._amend(decide)

    def register(self) -> bytes:
        """See ``SupportsRegister``."""
        return self._state.register

    def _amend(self, decide: BudgetStep) -> bool:
        """Do what ``decide`` says; return whether it changed any budget."""
        state = self._state
        with state.lock:
            amended = decide(state.register, state.budget_index.budgets, int(self._now() * 1000))
            if amended is None:
                return False
            changes = budget_changes(state.budget_index.budgets, amended.budgets)
            index = BudgetIndex(amended.budgets, Overlay.read(amended.document))
            warned = {key: account.warned for key, account in state.accounts.items()}
            try:
                state.register, state.budget_index = amended.document, index  # in one: it decides
                self._book_again(changes, warned)
            except BaseException:  # Ctrl-C: what is booked again is booked again from the start
                if state.budget_index is index:
                    self._book_again(changes, warned)
                raise
            return bool(changes)

    def _book_again(self, changes: tuple[BudgetChange, ...], warned: dict[tuple[str, str], int]) -> None:
        """Where a window is new or gone, book again what was booked under it."""
        state = self._state
        state.routes.clear()
        for change in changes:
            if change.moved:
                self._refill(*change.key, warned)
        for account in state.accounts.values():
            self._set_warn_threshold(account)

    def _refill(self, pattern: str, window: str, warned: dict[tuple[str, str], int]) -> None:
        accounts, index = self._state.accounts, self._state.budget_index

        def is_stale(key: tuple[str, str]) -> bool:
            return key[1] == window and scope_matches(pattern, key[0])

        stale = [key for key in accounts if is_stale(key)]
        for key in stale:
            del accounts[key]
        for record in (*self._state.open.values(), *self._state.closed.values()):
            if record.refusal is not None:
                continue
            cells = [cell for cell in record.cells if not is_stale(cell.account.key)]
            for scope in record.scopes:
                budget = index.for_scope(scope).get(window) if scope_matches(pattern, scope) else None
                if budget is not None:
                    cell = self._account(scope, window).cell(window_at(window, budget.timezone, record.created).cell)
                    cell.settled += record.charged
                    cell.pending += record.amount if record.state == "pending" else 0
                    cells.append(cell)
            record.cells = tuple(cells)
        for key in filter(is_stale, accounts):
            accounts[key].warned = warned.get(key, -1)  # or a raised limit would warn twice in one window
