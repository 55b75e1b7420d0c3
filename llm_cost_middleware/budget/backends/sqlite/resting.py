"""Accounts of runs that are over, in SQLite: one short line is left of them, from which they are made again.

A run, a slice, a thread or an agent is at rest where nothing was booked for long, nothing is held, and it has no budget
of its own. Its accounts leave; what it has spent in all stays as a number beside a digest of its name. Whoever books in
it again, or corrects what was booked, finds the account made anew from that line in the same transaction: it has spent
what it had spent. Windows are no matter: it rests no sooner than none of them counts it. Rows stay as they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import partial
from hashlib import blake2b

from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.moments import first_row
from llm_cost_middleware.budget.model import LIFETIME
from llm_cost_middleware.budget.rules import BudgetIndex, idle_from, window_at
from llm_cost_middleware.budget.rules.accounts import COME_AND_GO

BLOCK = 500
"""Accounts that are looked at in one transaction: it bounds how long the writers of the ledger wait."""

_KINDS = " OR ".join(f"scope GLOB '{kind}*'" for kind in COME_AND_GO)
_FOUND = (
    f"SELECT scope FROM account WHERE tenant = ? AND scope > ? AND ({_KINDS})"  # noqa: S608 - fixed texts
    " GROUP BY scope ORDER BY scope LIMIT ?"
)
_USED = "SELECT DISTINCT scopes FROM entry WHERE tenant = ? AND seq > ? AND at >= ?"
_OPEN = "SELECT id, scopes FROM reservation WHERE tenant = ? AND state = 'pending'"
_SUMS = (
    "SELECT coalesce(sum(CASE WHEN window = ? THEN settled END), 0), coalesce(max(pending != 0), 0),"
    " coalesce(max(CASE WHEN window = ? THEN warned END), -1)"
    " FROM account LEFT JOIN cell ON cell.account = account.id WHERE tenant = ? AND scope = ?"
)
_REST = (
    "INSERT INTO at_rest (tenant, scope, settled, warned) VALUES (?, ?, ?, ?) ON CONFLICT (tenant, scope)"
    " DO UPDATE SET settled = settled + excluded.settled, warned = max(warned, excluded.warned)"
)
_LEAVE = (
    "DELETE FROM cell WHERE account IN (SELECT id FROM account WHERE tenant = ? AND scope = ?)",
    "DELETE FROM account WHERE tenant = ? AND scope = ?",
)


def digest(scope: str) -> bytes:
    """Return what stands for a scope that is at rest."""
    return blake2b(scope.encode(), digest_size=16).digest()


def resting_sum(db: sqlite3.Connection, tenant: int, scope: str) -> int:
    """Return what a scope spent before it came to rest; 0 where it never did."""
    found = db.execute("SELECT settled FROM at_rest WHERE tenant = ? AND scope = ?", (tenant, digest(scope))).fetchone()
    return int(found[0]) if found else 0


def wake_up(db: sqlite3.Connection, tenant: int, scope: str) -> None:
    """Make the account of a scope again, where it is at rest."""
    if resting_sum(db, tenant, scope):
        made = db.execute("INSERT INTO account (tenant, scope, window) VALUES (?, ?, ?)", (tenant, scope, LIFETIME))
        wake(db, tenant, scope, int(made.lastrowid or 0))


def wake(db: sqlite3.Connection, tenant: int, scope: str, account: int) -> None:
    """Put into an account that was just made what its scope spent before it came to rest."""
    cell = window_at(LIFETIME, "UTC", 0).cell
    key = tenant, digest(scope)
    found = db.execute("SELECT settled, warned FROM at_rest WHERE tenant = ? AND scope = ?", key).fetchone()
    if found is None:
        return
    db.execute("INSERT INTO cell (account, cell, settled, pending) VALUES (?, ?, ?, 0)", (account, cell, found[0]))
    db.execute("UPDATE account SET warned = ? WHERE id = ?", (found[1], account))
    db.execute("DELETE FROM at_rest WHERE tenant = ? AND scope = ?", key)


class Resting:
    """Lays accounts of one tenant to rest. No budget may be filled meanwhile."""

    def __init__(self, file: LedgerFile, tenant: int) -> None:
        self._file, self._tenant = file, tenant

    def run(self, index: BudgetIndex, now: int, idle: int) -> int:
        """Lay to rest what was idle for so long (ms); return how many scopes."""
        since = idle_from(index.budgets, now, idle)
        with self._file.snapshot() as db:
            (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM entry WHERE tenant = ?", (self._tenant,)).fetchone()
            used = self._used(db, first_row(db, self._tenant, since) - 1, since)
        done, after = 0, ""
        while True:
            with self._file.reading() as db:
                scopes = [scope for (scope,) in db.execute(_FOUND, (self._tenant, after, BLOCK))]
            idle_ones = [scope for scope in scopes if index.comes_and_goes(scope) and scope not in used]
            if idle_ones:
                done += self._file.write(partial(self._lay, idle_ones, last))
            if len(scopes) < BLOCK:
                return done
            after = scopes[-1]

    def _used(self, db: sqlite3.Connection, after: int, since: int) -> set[str]:
        """Scopes that something was booked in, or is held in."""
        used = {scope for (joined,) in db.execute(_USED, (self._tenant, after, since)) for scope in joined.split(" ")}
        for id_, joined in db.execute(_OPEN, (self._tenant,)):
            used.update((id_, *joined.split(" ")))  # the id of a slice is its scope
        return used

    def _lay(self, scopes: Iterable[str], last: int, db: sqlite3.Connection) -> int:
        used, done = self._used(db, last, 0), 0
        for scope in scopes:
            settled, held, warned = db.execute(_SUMS, (LIFETIME, LIFETIME, self._tenant, scope)).fetchone()
            if held or scope in used:
                continue
            if settled:
                db.execute(_REST, (self._tenant, digest(scope), settled, warned))
            for statement in _LEAVE:
                db.execute(statement, (self._tenant, scope))
            done += 1
        if done:  # every process reads the numbers of accounts anew
            db.execute("UPDATE tenant SET version = version + 1 WHERE id = ?", (self._tenant,))
        return done
