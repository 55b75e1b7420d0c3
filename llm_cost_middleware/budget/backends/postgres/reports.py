"""Reports of PostgreSQL: what ids finally cost, and what stands in the rows, added up by SQL at one moment."""

# ruff: noqa: S608 - the queries are fixed texts and whole numbers, no text of anybody's stands in them

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from llm_cost_middleware.budget.backends.postgres.storage import COUNTS, Query, read_row
from llm_cost_middleware.budget.backends.postgres.turn import Storage, only
from llm_cost_middleware.budget.model import UNSURE, Row
from llm_cost_middleware.budget.rules import DAY
from llm_cost_middleware.budget.rules.bookings import RESOLVED, Booking, BookingSums
from llm_cost_middleware.budget.rules.largest import Measure
from llm_cost_middleware.budget.rules.local_time import local_offset
from llm_cost_middleware.budget.rules.overview import RowCount
from llm_cost_middleware.money import NanoUSD

_ENDS = ", ".join(f"'{kind}'" for kind in RESOLVED)
_IN_TIME = "tenant = %(tenant)s AND created >= %(since)s AND created < %(until)s"
_SINGLE = f"{_IN_TIME} AND ((memo_kind IS NULL AND kind <> 'reserve') OR kind = 'reconcile')"
# Few ids have two ends (a correction, a settle after an expiry), and few ends no memo: they alone are looked at twice.
_SUPERSEDED = (
    "WITH odd AS MATERIALIZED ("
    f"SELECT id, bool_or(kind IN ('reconcile', 'expire')) AS twice FROM llm_cost.entry WHERE {_SINGLE}"
    f" AND (kind IN ('reconcile', 'expire') OR (length(memo) = 0 AND kind IN ({_ENDS}))) GROUP BY id"
    "), met AS MATERIALIZED ("
    f"SELECT seq, id, twice AND kind IN ({_ENDS}, 'void') AS is_end, memo"
    f" FROM llm_cost.entry JOIN odd USING (id) WHERE {_IN_TIME}"
    "), superseded AS MATERIALIZED ("
    "SELECT seq FROM met WHERE is_end EXCEPT SELECT max(seq) FROM met WHERE is_end GROUP BY id)"
)
_LAST = "NOT EXISTS (SELECT 1 FROM superseded AS s WHERE s.seq = e.seq)"
_EACH = (
    f"{_SUPERSEDED}, told AS (SELECT DISTINCT ON (id) id, memo FROM met WHERE length(memo) > 0 ORDER BY id, seq DESC)"
    " SELECT -1, created, scopes, status, amount, CASE WHEN length(e.memo) > 0 THEN e.memo ELSE told.memo END"
    f" FROM llm_cost.entry AS e LEFT JOIN told USING (id) WHERE {_SINGLE} AND kind IN ({_ENDS}) AND memo_kind IS NULL"
    f" AND {_LAST} ORDER BY seq"
)
_SUMMED = ", ".join(f"sum({name}) AS {name}" for name in COUNTS)
_SPAN = "SELECT min(created), max(created) FROM llm_cost.entry WHERE " + _IN_TIME
_KINDS = Query("SELECT id, data FROM llm_cost.memo_kind")
_EVER = 2**62
_COUNT_ROWS = (
    "SELECT kind, status, count(*), sum(amount) FROM llm_cost.entry WHERE tenant = %(tenant)s"
    ' GROUP BY kind, status ORDER BY kind COLLATE "C", status COLLATE "C"'
)
_UNSURE = ", ".join(f"'{status}'" for status in sorted(UNSURE))
_COLUMNS = "seq, kind, id, at, amount, scopes, status, created"
# Of an id only its last row counts that says how sure its cost is, or corrects it.
_OPEN = (
    f"SELECT {_COLUMNS}, ''::bytea FROM (SELECT DISTINCT ON (id) {_COLUMNS} FROM llm_cost.entry"
    f" WHERE tenant = %(tenant)s AND (status IN ({_UNSURE}) OR kind = 'reconcile') ORDER BY id, seq DESC) AS last"
    f" WHERE status IN ({_UNSURE}) ORDER BY seq"
)
_LOOKED_AT = 200_000
_LARGEST = {
    "amount": f"{_SUPERSEDED} SELECT {_COLUMNS}, memo FROM llm_cost.entry AS e WHERE {_IN_TIME}"
    f" AND kind IN ({_ENDS}) AND kind <> 'carried' AND {_LAST} ORDER BY amount DESC LIMIT {_LOOKED_AT}",
    "duration": f"SELECT {_COLUMNS}, memo FROM llm_cost.entry WHERE {_IN_TIME} AND kind = 'settle'"
    f" ORDER BY at - created DESC LIMIT {_LOOKED_AT}",
}


def read_bookings(backend: Storage, since: int | None, until: int | None, sums: BookingSums) -> Iterator[Booking]:
    """Stream what ids cost that were reserved from ``since`` to before ``until`` (ms), as they are at one moment.

    Rows whose memo has a tally are added up by SQL; those of odd memos, of version 1, and what an archive carries, come
    one by one.
    """
    values = _span(backend, since, until)
    kinds = dict(backend.drive(lambda: only(_KINDS)))
    for kind, *found in backend.stream(Query(_EACH, values), _added(backend, values, sums)):
        if kind == -1:
            at, scopes, status, amount, memo = found
            yield Booking(at, scopes, status, amount, 1, bytes(memo or b""))
        else:
            at, scopes, status, amount, ids, *counts = found
            told = tuple([int(count or 0) for count in counts])
            if kind not in kinds:  # made since
                kinds = dict(backend.drive(lambda: only(_KINDS)))
            yield Booking(at, scopes, status, int(amount), int(ids), kinds[kind].encode(), told)


def _added(backend: Storage, values: dict[str, Any], sums: BookingSums) -> Query:
    """Rows of one kind, scopes and stretch; then without the scopes that do not matter, of which there may be many."""
    keys = ["status", "memo_kind"]
    if sums.stretch:
        first, last = values["since"], values["until"]
        if sums.offset is not None and (first == -_EVER or last == _EVER):
            ((first, last),) = backend.drive(lambda: only(Query(_SPAN, values)))
        local = local_offset(sums.offset, first or 0, last or 0)
        keys.append(f"(created + {local}) / {int(sums.stretch)}")
    if sums.days:
        keys.append(f"created / {DAY}")
    scopes, narrow = "scopes", values
    if sums.kinds is not None:
        scopes, narrow = "llm_cost.narrow(scopes, %(kinds)s)", values | {"kinds": sorted(sums.kinds)}
    wanted = sums.kinds is None or bool(sums.kinds)
    named = [f"{key} AS key_{number}" for number, key in enumerate(keys)] + ["scopes"] * wanted
    rows = (
        f"SELECT {', '.join(named)}, min(created) AS created, sum(amount) AS amount, count(*) AS ids, {_SUMMED}"
        f" FROM llm_cost.entry AS e WHERE {_IN_TIME} AND memo_kind IS NOT NULL AND {_LAST}"
        f" GROUP BY {', '.join([*keys, *(['scopes'] * wanted)])}"
    )
    by = [f"key_{number}" for number in range(len(keys))] + [scopes] * wanted
    told = scopes if wanted else "''"
    text = (
        f"{_SUPERSEDED} SELECT key_1, min(created), {told}, key_0, sum(amount), sum(ids), {_SUMMED}"
        f" FROM ({rows}) AS summed GROUP BY {', '.join(by)}"
    )
    return Query(text, narrow)


def count_rows(backend: Storage) -> list[RowCount]:
    """See ``SupportsOverview``."""
    found = backend.stream(Query(_COUNT_ROWS, {"tenant": backend.protocol.number}))
    return [RowCount(kind, status, count, NanoUSD(int(amount))) for kind, status, count, amount in found]


def unsure_rows(backend: Storage) -> Iterator[Row]:
    """See ``SupportsOverview``."""
    yield from map(read_row, backend.stream(Query(_OPEN, {"tenant": backend.protocol.number})))


def largest_rows(
    backend: Storage, by: Measure, count: int, since: int | None, until: int | None, wanted: Callable[[Row], bool]
) -> list[Row]:
    """See ``SupportsLargest``."""
    rows = map(read_row, backend.stream(Query(_LARGEST[by], _span(backend, since, until))))
    return list(islice(filter(wanted, rows), count))


def _span(backend: Storage, since: int | None, until: int | None) -> dict[str, Any]:
    low, high = -_EVER if since is None else since, _EVER if until is None else until
    return {"tenant": backend.protocol.number, "since": low, "until": high}
