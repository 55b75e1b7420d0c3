"""Erasure of a person's scope from a SQLite ledger: another name in its place, the sums as they were.

Rows change in nothing but the name, and only while an erasure is open: the table's trigger sees to it. Attempts, sums
and budgets are renamed in one transaction, so that what is open settles where it was held; the rows follow in small
ones. Killed in between, the same call completes it: it is known by a digest of the name, which goes when it is done.
"""

# ruff: noqa: S608 - the statements are fixed texts, no value stands in them

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from llm_cost_middleware.budget.backend import Erasure
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.resting import wake_up
from llm_cost_middleware.budget.rules import renamed_register
from llm_cost_middleware.budget.rules.names import digest_of, known_erasure

_STRETCH = 20_000
_HOLDS = "instr(' ' || scopes || ' ', :held) > 0"
_NAMED = "trim(replace(' ' || scopes || ' ', :held, ' ' || :alias || ' '))"
_LISTS = f"UPDATE scope_list SET scopes = {_NAMED} WHERE tenant = :tenant AND {_HOLDS}"
# Rows of an earlier version have their scopes in themselves.
_ROWS = f"UPDATE entry_row SET scopes = {_NAMED} WHERE tenant = :tenant AND seq > :after AND seq <= :last AND {_HOLDS}"
_COUNT = (
    "SELECT count(*) FROM entry_row WHERE tenant = :tenant AND (instr(' ' || scopes || ' ', :as_held) > 0"
    " OR scope_list IN"
    " (SELECT id FROM scope_list WHERE tenant = :tenant AND instr(' ' || scopes || ' ', :as_held) > 0))"
)
_ATTEMPTS = (
    f"UPDATE reservation_row SET scopes = {_NAMED}, refusal = replace(refusal, :quoted, :as_quoted),"
    f" warnings = replace(warnings, :quoted, :as_quoted) WHERE tenant = :tenant AND ({_HOLDS} OR scope_list IN"
    f" (SELECT id FROM scope_list WHERE tenant = :tenant AND {_HOLDS}))"
)
_ACCOUNTS = "UPDATE account SET scope = :alias WHERE tenant = :tenant AND scope = :scope"
_BUDGETS = "UPDATE budget SET scope = :alias WHERE tenant = :tenant AND scope = :scope"
_KEPT = "UPDATE budget SET reserve = replace(reserve, :quoted, :as_quoted) WHERE tenant = :tenant"
_REGISTER = "UPDATE budget_register SET data = ? WHERE tenant = ?"
_MARKS = (
    "UPDATE mark SET data = CAST(replace(CAST(data AS TEXT), :quoted, :as_quoted) AS BLOB)"
    " WHERE tenant = :tenant AND seq > :after AND seq <= :last AND instr(data, CAST(:quoted AS BLOB)) > 0"
)
_OPEN = "SELECT id, alias, at, digest FROM erasure WHERE tenant = ? AND state = 'open' ORDER BY id"
_BEGIN = "INSERT INTO erasure (tenant, at, alias, digest) VALUES (?, ?, ?, ?)"
_DONE = "UPDATE erasure SET state = 'done', digest = NULL WHERE id = ?"


class ScopeEraser:
    """Erases scopes of one tenant."""

    def __init__(self, file: LedgerFile, tenant: int, now: Callable[[], float]) -> None:
        self._file, self._tenant, self._now = file, tenant, now

    def run(self, scope: str) -> Erasure:
        """See ``Ledger.erase``."""
        kind = scope.partition(":")[0]
        number, alias, last = self._file.write(partial(self._begin, scope, f"{kind}:erased-{os.urandom(6).hex()}"))
        facts = self._facts(scope, alias)
        self._through(_ROWS, facts, last)
        with self._file.reading() as db:
            (rows,) = db.execute(_COUNT, facts).fetchone()
            (last_mark,) = db.execute("SELECT coalesce(max(seq), 0) FROM mark").fetchone()
        self._through(_MARKS, facts, last_mark)
        self._file.write(lambda db: db.execute(_DONE, (number,)))
        with self._file.reading() as db:
            paths = db.execute("SELECT path FROM archive WHERE tenant = ? ORDER BY id", (self._tenant,)).fetchall()
            others = db.execute(_OPEN, (self._tenant,)).fetchall()
        return Erasure(alias, rows, tuple(path for (path,) in paths), tuple(other for _, other, *_ in others))

    def _facts(self, scope: str, alias: str) -> dict[str, Any]:
        return {
            "tenant": self._tenant, "held": f" {scope} ", "as_held": f" {alias} ", "alias": alias, "scope": scope,
            "quoted": f'"{scope}"', "as_quoted": f'"{alias}"',
        }  # fmt: skip

    def _begin(self, scope: str, alias: str, db: sqlite3.Connection) -> tuple[int, str, int]:
        """Rename what sums are kept by. What is booked under the old name from now on is another account."""
        db.execute("PRAGMA secure_delete = ON")  # what is overwritten does not stay in free pages
        begun = known_erasure(scope, db.execute(_OPEN, (self._tenant,)).fetchall())
        (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM entry").fetchone()
        if begun is not None:
            number, alias, at, _ = begun
            (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM entry WHERE at <= ?", (at,)).fetchone()
            return int(number), str(alias), int(last)
        made = db.execute(_BEGIN, (self._tenant, int(self._now() * 1000), alias, digest_of(scope))).lastrowid
        facts = self._facts(scope, alias)
        wake_up(db, self._tenant, scope)
        for statement in (_ATTEMPTS, _LISTS, _ACCOUNTS, _BUDGETS, _KEPT):
            db.execute(statement, facts)
        found = db.execute("SELECT data FROM budget_register WHERE tenant = ?", (self._tenant,)).fetchone()
        if found is not None:
            db.execute(_REGISTER, (renamed_register(found[0], scope, alias), self._tenant))
        # Every process reads budgets and accounts anew.
        db.execute("UPDATE tenant SET version = version + 1 WHERE id = ?", (self._tenant,))
        return int(made or 0), alias, int(last)

    def _through(self, statement: str, facts: dict[str, Any], last: int) -> None:
        """Change a table in stretches of its numbers."""
        for after in range(0, last, _STRETCH):
            values = facts | {"after": after, "last": min(after + _STRETCH, last)}
            self._file.write(lambda db, values=values: db.execute(statement, values))  # type: ignore[misc]  # bound now
