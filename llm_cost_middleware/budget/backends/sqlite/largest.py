"""The rows with the largest amounts or durations, in SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice

from llm_cost_middleware.budget.backends.sqlite.moments import first_row
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules.largest import Measure
from llm_cost_middleware.money import NanoUSD

_LOOKED_AT = (500, 200_000)
"""Rows that are looked at until enough are wanted. Few first: to keep many sorted takes most of the time."""
_KINDS = "'settle', 'expire', 'lapse', 'book', 'reconcile'"
_IN_TIME = "FROM entry WHERE tenant = :tenant AND seq >= :first"
_LOOKED_FOR = f"SELECT seq {_IN_TIME} AND created >= :since AND created < :until"
_CORRECTIONS = f"SELECT EXISTS (SELECT 1 {_IN_TIME} AND kind IN ('reconcile', 'expire', 'lapse'))"
# Few ids have two ends, and mostly none: of them the last one counts, and a void says that nothing was paid.
_ENDS_TWICE = (
    f"{_IN_TIME} AND kind IN ({_KINDS}, 'void')"
    f" AND id IN (SELECT id {_IN_TIME} AND kind IN ('reconcile', 'expire', 'lapse'))"
)
_BEFORE = f"SELECT seq {_ENDS_TWICE} EXCEPT SELECT max(seq) {_ENDS_TWICE} GROUP BY id"
_DEAREST = "ORDER BY amount DESC LIMIT :most"
_QUERIES = {
    "amount": f"{_LOOKED_FOR} AND kind IN ({_KINDS}) {_DEAREST}",
    "amount, corrected": f"{_LOOKED_FOR} AND kind IN ({_KINDS}) AND seq NOT IN ({_BEFORE}) {_DEAREST}",
    "duration": f"{_LOOKED_FOR} AND kind = 'settle' ORDER BY at - created DESC LIMIT :most",
}
_ROW = (
    "SELECT seq, replace(kind, 'lapse', 'expire'), id, at, amount, scopes, status, created, memo FROM entry"
    " WHERE seq = ?"
)


def largest_rows(
    db: sqlite3.Connection,
    tenant: int,
    by: Measure,
    count: int,
    *,
    since: int | None,
    until: int | None,
    wanted: Callable[[Row], bool],
    plain: Callable[[bytes], bytes],
) -> list[Row]:
    """See ``SupportsLargest``, in one read transaction; ``plain`` unpacks a memo as it is stored."""
    values = {
        "tenant": tenant,
        "since": -(2**62) if since is None else since,
        "until": 2**62 if until is None else until,
        "first": first_row(db, tenant, since),
    }

    corrected = by == "amount" and db.execute(_CORRECTIONS, values).fetchone()[0]
    query = _QUERIES["amount, corrected" if corrected else by]

    def rows(most: int) -> Iterator[Row]:
        for numbered in db.execute(query, values | {"most": most}).fetchall():
            seq, kind, id_, at, amount, scopes, status, created, memo = db.execute(_ROW, numbered).fetchone()
            told = tuple(scopes.split(" "))
            yield Row(seq, kind, id_, at / 1000, NanoUSD(amount), told, status, created / 1000, plain(memo))

    found: list[Row] = []
    for most in _LOOKED_AT:
        found = list(islice(filter(wanted, rows(most)), count))
        if len(found) == count:
            break
    return found
