"""Budgets, and their register, in tables of the ledger's file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from llm_cost_middleware.budget.backend import BudgetStep
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules import (
    BudgetIndex,
    EntryDelta,
    Overlay,
    backfill_start,
    budget_changes,
    rebuild_totals,
    scope_matches,
)
from llm_cost_middleware.money import NanoUSD

ADD = (
    "INSERT INTO cell (account, cell, settled, pending) VALUES (?, ?, ?, ?) ON CONFLICT (account, cell)"
    " DO UPDATE SET settled = settled + excluded.settled, pending = pending + excluded.pending"
)
_VERSION = "SELECT version FROM tenant WHERE id = ?"
_BUDGETS = "SELECT scope, window, limit_nanousd, timezone, warn_at, reserve FROM budget WHERE tenant = ?"
_SET_BUDGET = (
    "INSERT OR REPLACE INTO budget (tenant, scope, window, limit_nanousd, timezone, warn_at, reserve)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_REMOVE_BUDGET = "DELETE FROM budget WHERE tenant = ? AND scope = ? AND window = ?"
_REGISTER = "SELECT data FROM budget_register WHERE tenant = ?"


class BudgetTable:
    """The part of ``SQLiteBackend`` that keeps budgets, and the accounts that they are measured by."""

    _file: LedgerFile
    _now: Callable[[], float]
    _tenant: int
    _book: BudgetIndex
    _version: int
    _accounts: dict[tuple[str, str], int]

    def set_budget(self, budget: Budget) -> None:
        """See ``Backend``."""

        def step(db: sqlite3.Connection) -> None:
            others = (known for known in self._current(db).budgets if known.key != budget.key)
            self._replace(db, (*others, budget))

        self._file.write(step)

    def remove_budget(self, scope: str, window: str) -> bool:
        """See ``Backend``."""

        def step(db: sqlite3.Connection) -> bool:
            before = self._current(db).budgets
            return self._replace(db, tuple(known for known in before if known.key != (scope, window)))

        return self._file.write(step)

    def amend(self, decide: BudgetStep) -> None:
        """See ``SupportsRegister``."""

        def step(db: sqlite3.Connection) -> None:
            amended = decide(self._document(db), self._current(db).budgets, int(self._now() * 1000))
            if amended is None:
                return
            db.execute(
                "INSERT OR REPLACE INTO budget_register (tenant, data) VALUES (?, ?)",
                (self._tenant, amended.document),
            )
            if not self._replace(db, amended.budgets):
                self._tell(db)  # what stands over the limits may have changed

        self._file.write(step)

    def register(self) -> bytes:
        """See ``SupportsRegister``."""
        with self._file.reading() as db:
            return self._document(db)

    def _replace(self, db: sqlite3.Connection, budgets: tuple[Budget, ...]) -> bool:
        """Put these budgets in force, for every process; return whether that changed anything."""
        changes = budget_changes(self._current(db).budgets, budgets)
        for change in changes:
            if change.after is None:
                db.execute(_REMOVE_BUDGET, (self._tenant, *change.key))
            else:
                db.execute(_SET_BUDGET, (self._tenant, *write_budget(change.after)))
        if changes:
            self._tell(db)
        for change in changes:
            if change.moved:
                self._refill(db, *change.key, change.timezone)
        return bool(changes)

    def _tell(self, db: sqlite3.Connection) -> None:
        """Tell every process by a new version."""
        db.execute("UPDATE tenant SET version = version + 1 WHERE id = ?", (self._tenant,))

    def _refill(self, db: sqlite3.Connection, pattern: str, window: str, timezone: str) -> None:
        """Rebuild the accounts of a window that is new, moved or removed."""
        index = self._current(db)
        accounts = db.execute(
            "SELECT id, scope FROM account WHERE tenant = ? AND window = ?", (self._tenant, window)
        ).fetchall()
        db.executemany(
            "DELETE FROM cell WHERE account = ?", [(id_,) for id_, scope in accounts if scope_matches(pattern, scope)]
        )
        since = backfill_start(window, timezone, int(self._now() * 1000))
        entries = db.execute(
            "SELECT scopes, created, settled, pending FROM entry WHERE tenant = ? AND created >= ?",
            (self._tenant, since),
        )
        filled = rebuild_totals(
            (EntryDelta(tuple(joined.split(" ")), *rest) for joined, *rest in entries), pattern, window, index
        )
        for scope, cells in filled.items():
            account = self._account(db, scope, window)
            db.executemany(ADD, [(account, cell, settled, pending) for cell, (settled, pending) in cells.items()])

    def _current(self, db: sqlite3.Connection) -> BudgetIndex:
        """Return the budgets as they are in this transaction, read again only if their version changed."""
        (version,) = db.execute(_VERSION, (self._tenant,)).fetchone()
        if version != self._version:
            self._book, self._version = self._load(db), version
        return self._book

    def _account(self, db: sqlite3.Connection, scope: str, window: str) -> int:
        account = self._accounts.get((scope, window))
        if account is None:
            key = self._tenant, scope, window
            # IGNORE: another process may have made it.
            db.execute("INSERT OR IGNORE INTO account (tenant, scope, window) VALUES (?, ?, ?)", key)
            row = db.execute("SELECT id FROM account WHERE tenant = ? AND scope = ? AND window = ?", key).fetchone()
            account = self._accounts[scope, window] = int(row[0])
        return account

    def _load(self, db: sqlite3.Connection) -> BudgetIndex:
        budgets = map(read_budget, db.execute(_BUDGETS, (self._tenant,)).fetchall())
        return BudgetIndex(budgets, Overlay.read(self._document(db)))

    def _document(self, db: sqlite3.Connection) -> bytes:
        found = db.execute(_REGISTER, (self._tenant,)).fetchone()
        return bytes(found[0]) if found is not None else b""


def write_budget(budget: Budget) -> tuple[object, ...]:
    """Return scope, window, limit, time zone, warning and kept shares of a budget as they are stored."""
    warn_at = None if budget.warn_at is None else repr(budget.warn_at)
    kept = json.dumps({scope: f"{share:f}" for scope, share in budget.shares}) if budget.shares else ""
    return (*budget.key, budget.limit_nanousd, budget.timezone, warn_at, kept)


def read_budget(row: tuple[Any, ...]) -> Budget:
    """Return the budget of a stored row."""
    scope, window, limit, timezone, warn_at, kept = row
    shares = {name: Decimal(share) for name, share in json.loads(kept).items()} if kept else {}
    return Budget(scope, NanoUSD(limit), window, timezone, None if warn_at is None else float(warn_at), shares)
