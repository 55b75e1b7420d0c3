"""What stands in the rows of a ledger, added up by SQL: by kind, and what may still be corrected."""

# ruff: noqa: S608 - the queries are fixed texts, no value stands in them

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from llm_cost_middleware.budget.model import UNSURE, Row
from llm_cost_middleware.budget.rules.overview import RowCount
from llm_cost_middleware.money import NanoUSD

_UNSURE = ", ".join(f"'{status}'" for status in sorted(UNSURE))
_COUNTS = (
    "SELECT replace(kind, 'lapse', 'expire') AS word, status, count(*), sum(amount) FROM entry WHERE tenant = ?"
    " GROUP BY word, status ORDER BY word, status"
)
# Of an id only its last row counts that says how sure its cost is, or corrects it.
_OPEN = (
    "SELECT seq, replace(kind, 'lapse', 'expire'), id, at, amount, scopes, status, created FROM entry WHERE seq IN"
    f" (SELECT max(seq) FROM entry WHERE tenant = ? AND (status IN ({_UNSURE}) OR kind = 'reconcile') GROUP BY id)"
    f" AND status IN ({_UNSURE}) ORDER BY seq"
)


def count_rows(db: sqlite3.Connection, tenant: int) -> list[RowCount]:
    """See ``SupportsOverview``."""
    return [
        RowCount(kind, status, count, NanoUSD(amount))
        for kind, status, count, amount in db.execute(_COUNTS, (tenant,)).fetchall()
    ]


def unsure_rows(db: sqlite3.Connection, tenant: int) -> Iterator[Row]:
    """See ``SupportsOverview``."""
    for seq, kind, id_, at, amount, scopes, status, created in db.execute(_OPEN, (tenant,)):
        yield Row(seq, kind, id_, at / 1000, NanoUSD(amount), tuple(scopes.split(" ")), status, created / 1000, b"")
