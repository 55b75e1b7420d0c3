"""Budgets, and their register, in tables of the ledger's file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal
from functools import partial
from typing import Any

from llm_cost_middleware.budget.backend import BudgetStep
from llm_cost_middleware.budget.backends.sqlite.filling import AccountFilling, Filled
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.resting import wake
from llm_cost_middleware.budget.model import LIFETIME, Budget
from llm_cost_middleware.budget.rules import (
    Amended,
    BudgetChange,
    BudgetIndex,
    Overlay,
    budget_changes,
    removing,
    setting,
)
from llm_cost_middleware.budget.rules.accounts import COME_AND_GO
from llm_cost_middleware.errors import LedgerUnavailableError
from llm_cost_middleware.money import NanoUSD

_VERSION = "SELECT version FROM tenant WHERE id = ?"
_BUDGETS = "SELECT scope, window, limit_nanousd, timezone, warn_at, reserve, carry_over FROM budget WHERE tenant = ?"
_SET_BUDGET = (
    "INSERT OR REPLACE INTO budget (tenant, scope, window, limit_nanousd, timezone, warn_at, reserve,"
    " carry_over) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_REMOVE_BUDGET = "DELETE FROM budget WHERE tenant = ? AND scope = ? AND window = ?"
_SET_REGISTER = "INSERT OR REPLACE INTO budget_register (tenant, data) VALUES (?, ?)"
_REGISTER = "SELECT data FROM budget_register WHERE tenant = ?"
_TRIES = 100
_MOST_ACCOUNTS = 50_000


class BudgetTable:
    """The part of ``SQLiteBackend`` that keeps budgets, and the accounts that they are measured by."""

    _file: LedgerFile
    _now: Callable[[], float]
    _tenant: int
    _known: tuple[int, BudgetIndex]
    _version: int
    _accounts: dict[tuple[str, str], int]
    _filling: AccountFilling

    def set_budget(self, budget: Budget) -> None:
        """See ``Backend``."""
        self._amend(setting(budget))

    def remove_budget(self, scope: str, window: str) -> bool:
        """See ``Backend``."""
        return self._amend(removing((scope, window)))

    def amend(self, decide: BudgetStep) -> None:
        """See ``SupportsRegister``."""
        self._amend(decide)

    def _amend(self, decide: BudgetStep) -> bool:
        """Do what ``decide`` says; return whether it changed anything. Reads first: often it does not."""
        with ExitStack() as stack:
            alone = False
            for _ in range(_TRIES):  # another process may change the budgets meanwhile
                with self._file.reading() as db:
                    version, index = self._indexed(db)
                    document, before = self._document(db), index.budgets
                now = int(self._now() * 1000)
                amended = decide(document, before, now)
                changes = () if amended is None else budget_changes(before, amended.budgets)
                if amended is None or (not changes and amended.document == document):
                    return False
                if not alone and any(change.moved for change in changes):
                    stack.enter_context(self._filling.turn())
                    alone = True  # decided anew: what was waited for may have changed the budgets
                    continue
                index = BudgetIndex(amended.budgets)
                filled = self._filling.prepare(changes, before, index, now)
                if self._file.write(partial(self._put, version, amended, changes, filled)):
                    return True
        raise LedgerUnavailableError(self._file.url, "its budgets change faster than one can be set")

    def _put(
        self,
        version: int,
        amended: Amended,
        changes: tuple[BudgetChange, ...],
        filled: list[Filled],
        db: sqlite3.Connection,
    ) -> bool:
        """Put budgets in force, for every process; return false where others were put in force meanwhile."""
        if db.execute(_VERSION, (self._tenant,)).fetchone() != (version,):
            return False
        if amended.document:
            db.execute(_SET_REGISTER, (self._tenant, amended.document))
        for change in changes:
            if change.after is None:
                db.execute(_REMOVE_BUDGET, (self._tenant, *change.key))
            else:
                db.execute(_SET_BUDGET, (self._tenant, *write_budget(change.after)))
        for each in filled:
            self._filling.switch(db, each)
        # Every process compares this number with the one of the budgets that it knows.
        db.execute("UPDATE tenant SET version = version + 1 WHERE id = ?", (self._tenant,))
        return True

    def register(self) -> bytes:
        """See ``SupportsRegister``."""
        with self._file.reading() as db:
            return self._document(db)

    def _current(self, db: sqlite3.Connection) -> BudgetIndex:
        """Return the budgets as they are in this transaction, read again only if their version changed."""
        version, index = self._indexed(db)
        if version != self._version:
            self._version, self._accounts = version, {}  # one of them may have another name by now
        return index

    def _indexed(self, db: sqlite3.Connection) -> tuple[int, BudgetIndex]:
        """Return the budgets and their version, read again only if that changed. Any thread may ask."""
        (version,) = db.execute(_VERSION, (self._tenant,)).fetchone()
        known = self._known
        if version != known[0]:
            known = self._known = version, self._load(db)
        return known

    def _account(self, db: sqlite3.Connection, scope: str, window: str) -> int:
        account = self._accounts.get((scope, window))
        if account is None:
            key = self._tenant, scope, window
            # IGNORE: another process may have made it.
            made = db.execute("INSERT OR IGNORE INTO account (tenant, scope, window) VALUES (?, ?, ?)", key)
            row = db.execute("SELECT id FROM account WHERE tenant = ? AND scope = ? AND window = ?", key).fetchone()
            if made.rowcount > 0 and window == LIFETIME and scope.startswith(COME_AND_GO):
                wake(db, self._tenant, scope, int(row[0]))
            if len(self._accounts) >= _MOST_ACCOUNTS:  # scopes with ever new names must not fill the memory
                self._accounts.clear()
            account = self._accounts[scope, window] = int(row[0])
        return account

    def _current_account(self, db: sqlite3.Connection, scope: str, window: str) -> int:
        """The same, for a step that has not asked for the budgets: those known may be of accounts that left."""
        self._current(db)
        return self._account(db, scope, window)

    def _load(self, db: sqlite3.Connection) -> BudgetIndex:
        budgets = map(read_budget, db.execute(_BUDGETS, (self._tenant,)).fetchall())
        return BudgetIndex(budgets, Overlay.read(self._document(db)))

    def _document(self, db: sqlite3.Connection) -> bytes:
        found = db.execute(_REGISTER, (self._tenant,)).fetchone()
        return bytes(found[0]) if found is not None else b""


def write_budget(budget: Budget) -> tuple[object, ...]:
    """Return scope, window, limit, time zone, warning, kept shares and carry-over of a budget as they are stored."""
    warn_at = None if budget.warn_at is None else json.dumps(budget.warn_at)
    kept = json.dumps({scope: f"{share:f}" for scope, share in budget.shares}) if budget.shares else ""
    carried = json.dumps(budget.carry_over) if budget.carry_over else ""
    return (*budget.key, budget.limit_nanousd, budget.timezone, warn_at, kept, carried)


def read_budget(row: tuple[Any, ...]) -> Budget:
    """Return the budget of a stored row."""
    scope, window, limit, timezone, warn_at, kept, carried = row
    shares = {name: Decimal(share) for name, share in json.loads(kept).items()} if kept else {}
    warns = None if warn_at is None else json.loads(warn_at)
    return Budget(scope, NanoUSD(limit), window, timezone, warns, shares, json.loads(carried or "false"))
