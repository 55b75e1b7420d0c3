"""What ids finally cost, in SQL: the last row of each id that was reserved in a stretch of time."""

# ruff: noqa: S608 - the queries are fixed texts, no value stands in them

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from llm_cost_middleware.budget.backends.sqlite.moments import first_row
from llm_cost_middleware.budget.rules import QUARTER
from llm_cost_middleware.budget.rules.bookings import RESOLVED, Booking

_BLOCK = 5_000
# Rows say lapse where they were written before version 4 of the schema.
_KINDS = ", ".join(f"'{kind}'" for kind in (*RESOLVED, "lapse"))
_READ = "FROM entry WHERE tenant = :tenant AND seq >= :first"
# Few ids have two ends (a correction, a settle after an expiry): they alone are looked at twice.
_TWICE = f"SELECT DISTINCT id {_READ} AND kind IN ('reconcile', 'expire', 'lapse')"
_ENDS_TWICE = f"{_READ} AND id IN (SELECT id FROM twice) AND kind IN ({_KINDS}, 'void')"
_BEFORE = f"SELECT seq {_ENDS_TWICE} EXCEPT SELECT max(seq) {_ENDS_TWICE} GROUP BY id"
_WHERE = (
    f"{_READ} AND kind IN ({_KINDS}) AND created >= :since AND created < :until"
    " AND seq NOT IN (SELECT seq FROM superseded)"
)
_EACH = f"SELECT created, scopes, status, amount, memo, id {_WHERE} ORDER BY seq"
_CARRIED = f"SELECT created, scopes, status, amount, memo, id {_WHERE} AND kind = 'carried' ORDER BY seq"
_OF_SUMS = "min(created), scopes, status, sum(amount), count(*)"
_SUMS = f"SELECT {_OF_SUMS} {_WHERE} AND kind != 'carried' GROUP BY scopes, status"
_SUMS_BY_TIME = f"{_SUMS}, created / {QUARTER}"
_LACKING = f"SELECT id {_READ} AND length(memo) = 0 AND kind IN ({_KINDS})"
_MEMOS = f"SELECT id, memo, max(seq) {_READ} AND length(memo) > 0 AND id IN ({_LACKING}) GROUP BY id"


def read_bookings(
    db: sqlite3.Connection,
    tenant: int,
    since: int | None,
    until: int | None,
    *,
    memos: bool,
    times: bool,
    plain: Callable[[bytes], bytes] = bytes,
) -> Iterator[Booking]:
    """Stream what ids cost that were reserved from ``since`` to before ``until`` (ms), in one read transaction.

    Args:
        db: Inside a transaction; it gets temporary tables of its own.
        tenant: The number of the ledger.
        since: The first moment.
        until: The moment after the last.
        memos: Each booking with its memo; false: sums by scopes and status. What an archive carries comes with its memo
            in any case.
        times: Sums by quarter of an hour too.
        plain: Unpacks a memo as it is stored.
    """
    values = {
        "tenant": tenant,
        "since": -(2**62) if since is None else since,
        "until": 2**62 if until is None else until,
    }
    values["first"] = first_row(db, tenant, since)
    for name, query in (("twice", _TWICE), ("superseded", _BEFORE)):
        key = "id TEXT PRIMARY KEY" if name == "twice" else "seq INTEGER PRIMARY KEY"
        db.execute(f"CREATE TEMP TABLE {name} ({key})")
        db.execute(f"INSERT INTO temp.{name} {query}", values)
    lacking = {id_: memo for id_, memo, _ in db.execute(_MEMOS, values)} if memos else {}
    for at, scopes, status, amount, memo, id_ in _blocks(db, _EACH if memos else _CARRIED, values):
        yield Booking(at, scopes, status, amount, 1, plain(memo or lacking.get(id_, b"")))
    if not memos:
        for at, scopes, status, amount, ids in _blocks(db, _SUMS_BY_TIME if times else _SUMS, values):
            yield Booking(at, scopes, status, amount, ids, b"")


def _blocks(db: sqlite3.Connection, query: str, values: dict[str, int]) -> Iterator[tuple[Any, ...]]:
    cursor = db.execute(query, values)
    while block := cursor.fetchmany(_BLOCK):
        yield from block
