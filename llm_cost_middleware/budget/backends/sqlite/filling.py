"""Filling of a budget's accounts before it counts: a new budget must find what its window already holds.

The rows are added up by SQL from a snapshot, while others write; under the write lock only the rows that came since are
added, and the budget is switched on. Where its accounts are those of a budget that counts already (another time zone, a
scope beside its template), the sums are computed before and replaced under the lock. Killed half-way, nothing counts.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from llm_cost_middleware.budget.backends.sqlite.connection import translate_errors
from llm_cost_middleware.budget.backends.sqlite.group_commit import FileLock
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.moments import NONE, first_row
from llm_cost_middleware.budget.model import Budget, rolling_seconds, scope_matches
from llm_cost_middleware.budget.rules import (
    QUARTER,
    SLOTS,
    BudgetChange,
    BudgetIndex,
    EntryDelta,
    backfill_start,
    rebuild_totals,
)
from llm_cost_middleware.errors import LedgerUnavailableError

Cells = dict[str, dict[int, list[int]]]
AccountOf = Callable[[sqlite3.Connection, str, str], int]

ADD = (
    "INSERT INTO cell (account, cell, settled, pending) VALUES (?, ?, ?, ?) ON CONFLICT (account, cell)"
    " DO UPDATE SET settled = settled + excluded.settled, pending = pending + excluded.pending"
)
_CHUNK = 1_000
"""Cells written, or rows added up, in one transaction: it bounds how long the writers of the ledger wait."""
_PATIENCE_S, _POLL_S = 120.0, 0.02
_SUMS = (
    "SELECT coalesce((SELECT list.scopes FROM scope_list AS list WHERE list.id = listed), written), stretch, settled,"
    " pending FROM (SELECT scope_list AS listed, scopes AS written, created / :width AS stretch,"
    " sum(settled) AS settled, sum(pending) AS pending FROM entry_row WHERE tenant = :tenant AND seq > :after"
    " AND seq <= :last AND created >= :since AND (instr(' ' || scopes || ' ', :pattern) > 0 OR scope_list IN"
    " (SELECT id FROM scope_list WHERE tenant = :tenant AND instr(' ' || scopes || ' ', :pattern) > 0))"
    " GROUP BY listed, written, stretch)"
)
_LAST = "SELECT coalesce(max(seq), 0) FROM entry"
_STALE = (
    "SELECT account, cell FROM cell WHERE account IN"
    " (SELECT id FROM account WHERE tenant = ? AND window = ? AND (scope = ? OR scope GLOB ?)) LIMIT ?"
)
_DROP = "DELETE FROM cell WHERE account = ? AND cell = ?"


class Filled(NamedTuple):
    """Accounts of a changed budget, ready to be switched on."""

    change: BudgetChange
    budgets: BudgetIndex
    """As they will be."""
    since: int
    """The rows from this time (ms) on count."""
    last: int
    """The rows up to this one are added up."""
    cells: Cells | None
    """Sums that replace those of accounts that count now; ``None``: they are written."""
    apart: frozenset[str]
    """Scopes of its template whose own budgets are filled by themselves."""


class AccountFilling:
    """Fills accounts of one tenant. ``account`` returns the number of an account, made where it is missing."""

    def __init__(self, file: LedgerFile, tenant: int, account: AccountOf) -> None:
        self._file, self._tenant, self._account = file, tenant, account

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep other processes from filling meanwhile.

        Raises:
            LedgerUnavailableError: Another one has been at it for very long: a million rows take some seconds.
        """
        lock = FileLock(self._file.path.with_name(f"{self._file.path.name}-filling"), self._file.path)
        try:
            with translate_errors(self._file.url):
                until = time.monotonic() + _PATIENCE_S
                while not lock.acquire(wait=False):
                    if time.monotonic() >= until:
                        why = f"another process has been amending its budgets for {_PATIENCE_S:g} s"
                        raise LedgerUnavailableError(self._file.url, why)
                    time.sleep(_POLL_S)
            yield
        finally:
            lock.close()

    def prepare(
        self, changes: Iterable[BudgetChange], before: Iterable[Budget], budgets: BudgetIndex, now: int
    ) -> list[Filled]:
        """Add up what the accounts of changed budgets hold, without the write lock.

        Args:
            changes: The budgets.
            before: Those in force.
            budgets: Those that will be.
            now: Time, ms.

        Returns:
            What ``switch`` needs, of those whose accounts are booked in and do not stay as they are.
        """
        moved = sorted((change for change in changes if change.moved), key=lambda one: not one.key[0].endswith(":*"))
        ready = []
        for change in moved:
            own = {one.key[0] for one in moved if one.key[1] == change.key[1] and one is not change}
            filled = self._prepare(change, before, budgets, now, frozenset(own))
            if filled is not None:
                ready.append(self._add_up(filled))
        return ready

    def _prepare(
        self, change: BudgetChange, before: Iterable[Budget], budgets: BudgetIndex, now: int, apart: frozenset[str]
    ) -> Filled | None:
        pattern, window = change.key
        beside = [one for one in budgets.budgets if one.window == window and one.key != change.key]
        beside = [one for one in beside if _touch(one.scope, pattern)]
        if change.after is None and all(one.timezone == change.timezone for one in beside):
            return None
        counts = any(one.window == window and _touch(one.scope, pattern) for one in before)
        since = backfill_start(window, change.timezone, now)
        if not counts:
            self._clear(*change.key)
        return Filled(change, budgets, since, 0, {} if counts else None, apart)

    def switch(self, db: sqlite3.Connection, filled: Filled) -> None:
        """Add the rows that came since, under the lock."""
        pattern, window = filled.change.key
        if filled.cells is not None:
            for account, scope in db.execute(
                "SELECT id, scope FROM account WHERE tenant = ? AND window = ?", (self._tenant, window)
            ).fetchall():
                if scope_matches(pattern, scope) and scope not in filled.apart:
                    db.execute("DELETE FROM cell WHERE account = ?", (account,))
            self._write(db, window, _each(filled.cells))
        self._write(db, window, _each(self._sums(db, filled, NONE)))

    def _add_up(self, filled: Filled) -> Filled:
        """Add the rows up until few are left. Where nothing counts yet, the sums are written in small transactions."""
        few, window = False, filled.change.key[1]
        while not few:
            with self._file.snapshot() as db:
                (last,) = db.execute(_LAST).fetchone()
                sums = self._sums(db, filled, last)
            few = not last or 0 < last - filled.last < _CHUNK or (filled.last > 0 and last == filled.last)
            filled = filled._replace(last=last)
            if filled.cells is not None:
                _merge(filled.cells, sums)
                continue
            entries = _each(sums)
            while chunk := list(islice(entries, _CHUNK)):
                self._file.write(lambda db, chunk=chunk: self._write(db, window, chunk))  # type: ignore[misc]  # bound now
        return filled

    def _sums(self, db: sqlite3.Connection, filled: Filled, last: int) -> Cells:
        """Return what the rows after those that are added up change, up to ``last``, by scope and cell."""
        pattern, window = filled.change.key
        seconds = rolling_seconds(window)
        # No calendar window and no slot of a rolling one begins inside of a stretch of this length.
        width = -(-seconds * 1000 // SLOTS) if seconds else QUARTER
        kind = pattern.removesuffix("*")
        facts = {
            "tenant": self._tenant, "after": max(filled.last, first_row(db, self._tenant, filled.since) - 1),
            "last": last, "since": filled.since, "width": width,
            "pattern": f" {kind}" if kind != pattern else f" {pattern} ",
        }  # fmt: skip
        entries = (
            EntryDelta(tuple(joined.split(" ")), stretch * width, settled, pending)
            for joined, stretch, settled, pending in db.execute(_SUMS, facts)
        )
        found = rebuild_totals(entries, pattern, window, filled.budgets)
        return {scope: cells for scope, cells in found.items() if scope not in filled.apart}

    def _write(self, db: sqlite3.Connection, window: str, entries: Iterable[tuple[str, int, int, int]]) -> None:
        db.executemany(ADD, ((self._account(db, scope, window), *sums) for scope, *sums in entries))

    def _clear(self, scope: str, window: str) -> None:
        """Remove what an earlier try, or a budget that was removed, left in accounts that nobody books in."""
        facts = self._tenant, window, scope, scope if scope.endswith(":*") else "", _CHUNK
        while True:
            with self._file.reading() as db:
                stale = db.execute(_STALE, facts).fetchall()
            if not stale:
                return
            self._file.write(lambda db, stale=stale: db.executemany(_DROP, stale))  # type: ignore[misc]  # bound now


def _merge(cells: Cells, more: Cells) -> None:
    for scope, by_cell in more.items():
        known = cells.setdefault(scope, {})
        for cell, (settled, pending) in by_cell.items():
            sums = known.setdefault(cell, [0, 0])
            sums[0] += settled
            sums[1] += pending


def _each(cells: Cells) -> Iterator[tuple[str, int, int, int]]:
    return ((scope, cell, *sums) for scope, by_cell in cells.items() for cell, sums in by_cell.items())  # type: ignore[misc]  # two sums


def _touch(one: str, other: str) -> bool:
    """Whether two budgets may be of the same scope."""
    return scope_matches(one, other) or scope_matches(other, one)
