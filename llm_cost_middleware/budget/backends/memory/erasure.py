"""Erasure of a person's scope from a ledger in memory."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_cost_middleware.budget.backend import Erasure
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules import BudgetIndex, Overlay, renamed_register

if TYPE_CHECKING:
    from llm_cost_middleware.budget.backends.memory.backend import _MemoryReservation, _SharedState


class MemoryErasure:
    """The part of ``MemoryBackend`` that puts another name in the place of a scope, under the lock of the state."""

    _state: _SharedState

    def erase(self, scope: str) -> Erasure:
        """See ``SupportsErasure``."""
        state, alias = self._state, f"{scope.partition(':')[0]}:erased-{os.urandom(6).hex()}"

        def renamed(scopes: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(alias if name == scope else name for name in scopes)

        with state.lock:
            rows = sum(scope in row[5] for row in state.rows)
            kept = [(*row[:5], renamed(row[5]), *row[6:]) if scope in row[5] else row for row in state.rows]
            state.rows.clear()
            state.rows.extend(kept)
            for record in (*state.open.values(), *state.closed.values()):
                _rename_record(record, scope, alias, renamed(record.scopes))
            for key in [key for key in state.accounts if key[0] == scope]:
                account = state.accounts[alias, key[1]] = state.accounts.pop(key)
                account.key = alias, key[1]
            state.register = renamed_register(state.register, scope, alias)
            budgets = [_rename_budget(budget, scope, alias) for budget in state.budget_index.budgets]
            state.budget_index = BudgetIndex(budgets, Overlay.read(state.register))
            state.routes.clear()  # they lead to what it was called
        state.journal.replace(f'"{scope}"'.encode(), f'"{alias}"'.encode())
        return Erasure(alias, rows, ())


def _rename_record(record: _MemoryReservation, scope: str, alias: str, scopes: tuple[str, ...]) -> None:
    record.scopes = scopes
    record.warnings = tuple((alias if name == scope else name, window) for name, window in record.warnings)
    if record.refusal is not None and record.refusal.scope == scope:
        record.refusal = record.refusal._replace(scope=alias)


def _rename_budget(budget: Budget, scope: str, alias: str) -> Budget:
    shares = {alias if name == scope else name: share for name, share in budget.shares}
    return replace(budget, scope=alias if budget.scope == scope else budget.scope, reserve=shares)
