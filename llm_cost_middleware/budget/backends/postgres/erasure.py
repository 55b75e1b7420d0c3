"""Erasure of a person's scope from a ledger in PostgreSQL: another name in its place, the sums as they were.

Rows change in nothing but the name, and only while an erasure is open: the table's trigger sees to it. Attempts, sums
and budgets are renamed in one transaction, so that what is open settles where it was held; the rows follow in small
ones. Killed in between, the same call completes it: it is known by a digest of the name, which goes when it is done.
"""

# ruff: noqa: S608 - the statements are fixed texts, no value stands in them

from __future__ import annotations

import os
from typing import Any

from llm_cost_middleware.budget.backend import Erasure
from llm_cost_middleware.budget.backends.postgres.storage import Query
from llm_cost_middleware.budget.backends.postgres.turn import Turn
from llm_cost_middleware.budget.rules import renamed_register
from llm_cost_middleware.budget.rules.names import digest_of, known_erasure
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.commands import CommandFlow

STRETCH = 20_000
"""Rows that are looked at in one transaction."""
_HOLDS = "strpos(' ' || scopes || ' ', ' ' || %(scope)s || ' ') > 0"
_ROWS = (
    "UPDATE llm_cost.entry SET scopes = llm_cost.renamed(scopes, %(scope)s, %(alias)s)"
    f" WHERE tenant = %(tenant)s AND seq > %(after)s AND seq <= %(last)s AND {_HOLDS} RETURNING 1"
)
_ATTEMPTS = (
    "UPDATE llm_cost.reservation SET scopes = llm_cost.renamed(scopes, %(scope)s, %(alias)s),"
    " refusal = llm_cost.renamed(refusal, %(scope)s, %(alias)s),"
    f" warnings = llm_cost.renamed_list(warnings, %(scope)s, %(alias)s) WHERE tenant = %(tenant)s AND {_HOLDS}"
)
_ACCOUNTS = (
    "UPDATE llm_cost.account SET name = llm_cost.renamed(name, %(scope)s, %(alias)s)"
    " WHERE tenant = %(tenant)s AND split_part(name, ' ', 1) = %(scope)s"
)
_BUDGETS = "UPDATE llm_cost.budget SET name = %s, value = %s WHERE tenant = %s AND name = %s"
_VERSION = "UPDATE llm_cost.tenant SET version = version + 1 WHERE id = %s"
_OPEN = "SELECT number, alias, last, digest FROM llm_cost.erasure WHERE tenant = %s AND state = 'open' ORDER BY number"
_BEGIN = (
    "INSERT INTO llm_cost.erasure (tenant, alias, digest, last)"
    " SELECT %s, %s, %s, coalesce(max(seq), 0) FROM llm_cost.entry WHERE tenant = %s RETURNING number, alias, last"
)
_MARKS = (
    "SELECT kind, seq, data FROM llm_cost.mark WHERE tenant = %s AND kind = %s AND seq > %s"
    " AND position(%s::bytea IN data) > 0 ORDER BY seq LIMIT 1000 FOR UPDATE"
)
_MARK = "UPDATE llm_cost.mark SET data = %s WHERE tenant = %s AND kind = %s AND seq = %s"
_KINDS = "SELECT DISTINCT kind FROM llm_cost.mark WHERE tenant = %s"
_DONE = "UPDATE llm_cost.erasure SET state = 'done', digest = NULL WHERE tenant = %s AND number = %s"
_PATHS = "SELECT path FROM llm_cost.archive WHERE tenant = %s AND path <> '' AND sha256 IS NOT NULL ORDER BY number"


class PostgresEraser:
    """Erases scopes of one tenant, in its turn."""

    def __init__(self, turn: Turn) -> None:
        self._turn, self._tenant = turn, turn.tenant

    def run(self, scope: str) -> Erasure:
        """See ``Ledger.erase``."""
        kind = scope.partition(":")[0]
        alias = f"{kind}:erased-{os.urandom(6).hex()}"
        number, alias, last = self._turn.step(lambda: self._begin(scope, alias))
        facts = {"tenant": self._tenant, "scope": scope, "alias": alias}
        rows = 0
        for after in range(0, last, STRETCH):
            values = facts | {"after": after, "last": min(after + STRETCH, last)}
            rows += self._turn.step(lambda values=values: _count(Query(_ROWS, values)))  # type: ignore[misc]  # bound now
        for (line,) in self._turn.ask(_KINDS, self._tenant):
            self._rename_lines(line, f'"{scope}"'.encode(), f'"{alias}"'.encode())
        self._turn.ask(_DONE, self._tenant, number)
        paths, others = self._turn.ask(_PATHS, self._tenant), self._turn.ask(_OPEN, self._tenant)
        return Erasure(alias, rows, tuple(path for (path,) in paths), tuple(other for _, other, *_ in others))

    def _begin(self, scope: str, alias: str) -> CommandFlow[tuple[int, str, int]]:
        """Rename what sums are kept by. What is booked under the old name from now on is another account."""
        yield Query("SELECT llm_cost.lock_budgets(%s, true)", (self._tenant,))
        begun = known_erasure(scope, (yield Query(_OPEN, (self._tenant,))))
        if begun is not None:
            number, alias, last, _ = begun
            return int(number), str(alias), int(last)
        ((number, alias, last),) = yield Query(_BEGIN, (self._tenant, alias, digest_of(scope), self._tenant))
        facts = {"tenant": self._tenant, "scope": scope, "alias": alias}
        yield Query(_ATTEMPTS, facts)
        yield Query(_ACCOUNTS, facts)
        yield from self._rename_budgets(scope, alias)
        yield Query(_VERSION, (self._tenant,))  # every process reads the budgets anew
        return int(number), str(alias), int(last)

    def _rename_budgets(self, scope: str, alias: str) -> CommandFlow[None]:
        for name, value in (yield Query("SELECT name, value FROM llm_cost.budget WHERE tenant = %s", (self._tenant,))):
            own, window = encoding.parse_account(name)
            if window:
                renamed = encoding.account_name(alias if own == scope else own, window)
                changed = value.replace(f'"{scope}"', f'"{alias}"')
            else:
                renamed, changed = name, renamed_register(value.encode(), scope, alias).decode()
            if (renamed, changed) != (name, value):
                yield Query(_BUDGETS, (renamed, changed, self._tenant, name))

    def _rename_lines(self, kind: str, old: bytes, new: bytes) -> None:
        def step() -> CommandFlow[int | None]:
            block = yield Query(_MARKS, (self._tenant, kind, seq, old))
            for _, number, data in block:
                yield Query(_MARK, (bytes(data).replace(old, new), self._tenant, kind, number))
            return block[-1][1] if block else None

        seq: Any = 0
        while seq is not None:
            seq = self._turn.step(step)


def _count(query: Query) -> CommandFlow[int]:
    return len((yield query))
