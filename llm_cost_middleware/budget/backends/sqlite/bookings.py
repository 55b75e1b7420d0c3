"""What ids finally cost, in SQL: the last row of each id that was reserved in a stretch of time, added up."""

# ruff: noqa: S608 - the queries are fixed texts and whole numbers, no text of anybody's stands in them

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from llm_cost_middleware.budget.backends.sqlite.memo_kinds import COUNTS
from llm_cost_middleware.budget.backends.sqlite.moments import first_row, span
from llm_cost_middleware.budget.model import RowStatus
from llm_cost_middleware.budget.rules import DAY
from llm_cost_middleware.budget.rules.bookings import RESOLVED, Booking, BookingSums
from llm_cost_middleware.budget.rules.local_time import local_offset

_BLOCK = 5_000
_MOST_PLACES = 200_000  # remembered at once: ten million calls of a million people must not fill the memory
# Rows say lapse where they were written before version 4 of the schema.
_KINDS = ", ".join(f"'{kind}'" for kind in (*RESOLVED, "lapse"))
_TENANT = "tenant = :tenant AND seq >= :first"
_SINGLE = (
    f"entry_row INDEXED BY entry_single WHERE {_TENANT}"
    " AND ((memo_kind IS NULL AND kind != 'reserve') OR kind = 'reconcile')"
)
# Few ids have two ends (a correction, a settle after an expiry), and few ends no memo: they alone are looked at twice.
_ODD = (
    f"SELECT id, max(kind IN ('reconcile', 'expire', 'lapse')) FROM {_SINGLE}"
    f" AND (kind IN ('reconcile', 'expire', 'lapse') OR (length(memo) = 0 AND kind IN ({_KINDS}))) GROUP BY id"
)
_MET = (
    f"SELECT seq, entry.id, twice AND kind IN ({_KINDS}, 'void'), memo"
    f" FROM entry_row AS entry JOIN temp.odd ON odd.id = entry.id WHERE {_TENANT}"
)
_BEFORE = "SELECT seq FROM met WHERE is_end EXCEPT SELECT max(seq) FROM met WHERE is_end GROUP BY id"
_MEMOS = "SELECT id, memo, max(seq) FROM met WHERE length(memo) > 0 GROUP BY id"
_IN_TIME = "created >= :since AND created < :until"
_EACH = (
    "SELECT created, coalesce((SELECT list.scopes FROM scope_list AS list WHERE list.id = scope_list), scopes),"
    f" status, amount, memo, id FROM {_SINGLE}"
    f" AND kind IN ({_KINDS}) AND memo_kind IS NULL AND {_IN_TIME}"
)
_EVERY = (
    f"SELECT created, scopes, status, amount, memo, id, -pending FROM entry WHERE {_TENANT}"
    f" AND kind IN ({_KINDS}) AND {_IN_TIME}"
)
_STATUSES: tuple[RowStatus, ...] = ("exact", "estimated", "unconfirmed", "unpriced", "reserved")
_NUMBERED = " ".join(f"WHEN '{word}' THEN {number}" for number, word in enumerate(_STATUSES))
_STATUS = f"CASE status {_NUMBERED} ELSE status END"
"""By number, which SQL compares faster than words."""
_SUMS = ", ".join(
    ["min(created)", _STATUS, "sum(amount)", "count(*)", "memo_kind", *(f"sum({name})" for name in COUNTS)]
)


def read_bookings(
    db: sqlite3.Connection,
    tenant: int,
    since: int | None,
    until: int | None,
    sums: BookingSums,
    *,
    plain: Callable[[bytes], bytes] = bytes,
) -> Iterator[Booking]:
    """Stream what ids cost that were reserved from ``since`` to before ``until`` (ms), in one read transaction.

    Rows whose memo has a tally are added up by SQL; those of an earlier version and of odd memos, and what an archive
    carries, come one by one.

    Args:
        db: Inside a transaction of its own connection, which gets temporary tables and a function.
        tenant: The number of the ledger.
        since: The first moment.
        until: The moment after the last.
        sums: How finely.
        plain: Unpacks a memo as it is stored.
    """
    values = {
        "tenant": tenant,
        "since": -(2**62) if since is None else since,
        "until": 2**62 if until is None else until,
    }
    values["first"] = first_row(db, tenant, since)
    last, lacking = "", {}
    db.execute("CREATE TEMP TABLE odd (id TEXT PRIMARY KEY, twice INTEGER)")
    if db.execute(f"INSERT INTO temp.odd {_ODD}", values).rowcount:
        db.execute("CREATE TEMP TABLE met (seq INTEGER PRIMARY KEY, id TEXT, is_end INTEGER, memo BLOB)")
        db.execute(f"INSERT INTO temp.met {_MET}", values)
        db.execute("CREATE TEMP TABLE superseded (seq INTEGER PRIMARY KEY)")
        db.execute(f"INSERT INTO temp.superseded {_BEFORE}")
        last = " AND seq NOT IN (SELECT seq FROM superseded)"
        lacking = {id_: memo for id_, memo, _ in db.execute(_MEMOS)}
    if sums.each:
        for at, scopes, status, amount, memo, id_, held in _blocks(db, f"{_EVERY}{last} ORDER BY seq", values):
            yield Booking(at, scopes, status, amount, 1, plain(memo or lacking.get(id_, b"")), (), max(held, 0))
        return
    for at, scopes, status, amount, memo, id_ in _blocks(db, f"{_EACH}{last} ORDER BY seq", values):
        yield Booking(at, scopes, status, amount, 1, plain(memo or lacking.get(id_, b"")))
    yield from _added(db, values, sums, last)


def _added(db: sqlite3.Connection, values: dict[str, int], sums: BookingSums, last: str) -> Iterator[Booking]:
    places, place = _Places(db, sums), "-1"
    if sums.kinds is None or sums.kinds:
        db.create_function("place_of", 1, places.number, deterministic=True)
        place = "place_of(coalesce(scope_list, scopes))"
    keys = [*_times(db, values["tenant"], sums), place, _STATUS, "memo_kind"]
    by = ", ".join(key for key in keys if key != "-1")  # SQL would take a number for that of a column
    rows = f"FROM entry_row WHERE {_TENANT} AND memo_kind IS NOT NULL AND {_IN_TIME}{last}"
    kinds = {number: data.encode() for number, data in db.execute("SELECT id, data FROM memo_kind")}
    query = f"SELECT {place}, {_SUMS} {rows} GROUP BY {by}"
    for where, at, status, amount, ids, number, *counts in _blocks(db, query, values):
        word: RowStatus = _STATUSES[status] if isinstance(status, int) else status
        sums_of_counts = tuple([count or 0 for count in counts])
        yield Booking(at, places.scopes(where), word, amount, ids, kinds[number], sums_of_counts)


class _Places:
    """The scopes that matter, by number: SQL groups by whole numbers faster than by text."""

    def __init__(self, db: sqlite3.Connection, sums: BookingSums) -> None:
        self._db, self._narrow = db, sums.narrow
        self._numbers: dict[str, int] = {}
        self._known: dict[str | int, int] = {}
        self._scopes: list[str] = []

    def number(self, scopes: str | int) -> int:
        """The number of a row's scopes, which are given by the number of their list, or stand in an old row."""
        found = self._known.get(scopes)
        if found is None:
            if len(self._known) >= _MOST_PLACES:
                self._known.clear()
            narrow = self._narrow(scopes if isinstance(scopes, str) else self._listed(scopes))
            found = self._numbers.get(narrow)
            if found is None:
                found = self._numbers[narrow] = len(self._scopes)
                self._scopes.append(narrow)
            self._known[scopes] = found
        return found

    def _listed(self, number: int) -> str:
        return str(self._db.execute("SELECT scopes FROM scope_list WHERE id = ?", (number,)).fetchone()[0])

    def scopes(self, number: int) -> str:
        """The scopes of a number; none where no scopes matter."""
        return self._scopes[number] if number >= 0 else ""


def _times(db: sqlite3.Connection, tenant: int, sums: BookingSums) -> Iterator[str]:
    """What to group by so that no sum reaches over a border."""
    if sums.stretch:
        first, last = span(db, tenant)
        yield f"(created + {local_offset(sums.offset, first, last)}) / {int(sums.stretch)}"
    if sums.days:
        yield f"created / {DAY}"


def _blocks(db: sqlite3.Connection, query: str, values: dict[str, int]) -> Iterator[tuple[Any, ...]]:
    cursor = db.execute(query, values)
    while block := cursor.fetchmany(_BLOCK):
        yield from block
