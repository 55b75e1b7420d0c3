"""Where reading begins: rows are in the order they were written, and a sparse table knows the first of each quarter.

It is filled by triggers, for two lookups a row and next to no room. Rows are nearly in the order of their times: what a
clock wrote that was set back, or an archive, may stand later. So the first row of a time is that of any later quarter.
"""

from __future__ import annotations

import sqlite3

from llm_cost_middleware.budget.rules import QUARTER

_QUARTER_S = QUARTER // 1000
_FIRST_ROW = "SELECT min(seq) FROM moment WHERE tenant = ? AND slot >= ?"
_FIRST_MARK = "SELECT min(seq) FROM mark_moment WHERE tenant = ? AND slot >= ?"
NONE = 2**62
"""Above every row number."""


def first_row(db: sqlite3.Connection, tenant: int, since: int | None) -> int:
    """Return a number that no row at or after ``since`` (ms) is below; ``NONE`` if there is no such row."""
    return 0 if since is None else _first(db, _FIRST_ROW, tenant, since // QUARTER)


def first_mark(db: sqlite3.Connection, tenant: int, since: float | None) -> int:
    """As ``first_row``, of the journal; ``since`` is seconds."""
    return 0 if since is None else _first(db, _FIRST_MARK, tenant, int(since // _QUARTER_S))


def span(db: sqlite3.Connection, tenant: int) -> tuple[int, int]:
    """Return moments (ms) between which every row was reserved: a row of that moment is, or was, in the ledger."""
    first, last = db.execute("SELECT min(slot), max(slot) FROM moment WHERE tenant = ?", (tenant,)).fetchone()
    return (0, 0) if first is None else (int(first) * QUARTER, (int(last) + 1) * QUARTER)


def _first(db: sqlite3.Connection, query: str, tenant: int, slot: int) -> int:
    (seq,) = db.execute(query, (tenant, slot)).fetchone()
    return NONE if seq is None else int(seq)
