"""Archiving of old rows of a ledger in PostgreSQL, in the steps of one on SQLite: close, write, move; each is resumed.

======== ======================================================== ==============================================
state    what holds                                               killed here, the next call
======== ======================================================== ==============================================
closing  some ids are closed; every row is still in the ledger    closes the rest, writes the file anew
written  the file is whole, flushed and compared                  checks it by its SHA-256, moves what is left
moved    the rows are in the file, their sums in ``carried`` rows has nothing to do
======== ======================================================== ==============================================

Without a file the rows are rolled up: their sums are what is left.
"""

# ruff: noqa: S608 - the statements are fixed texts, no value stands in them

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llm_cost_middleware.budget import archive_file
from llm_cost_middleware.budget.backend import ArchiveResult
from llm_cost_middleware.budget.backends.postgres.old_lines import NEEDED_MS, OldLines
from llm_cost_middleware.budget.backends.postgres.storage import Query
from llm_cost_middleware.budget.backends.postgres.turn import Turn, only
from llm_cost_middleware.budget.rules import ArchivedRow, Sums, whole_ids
from llm_cost_middleware.budget.scripted.commands import CommandFlow
from llm_cost_middleware.errors import ConfigurationError, LedgerError, LedgerUnavailableError
from llm_cost_middleware.money import NanoUSD

STEP = 1_000
"""Ids closed or moved in one transaction."""
_OLD = (
    "tenant = %(tenant)s AND archived IS NULL AND state <> 'refused'"
    " AND greatest(created, resolved, reconciled) < %(before)s"
)
_SURE = f"{_OLD} AND state IN ('settled', 'voided') AND (reconciled > 0 OR status IN ('exact', 'void'))"
_ANY_SURE = f"SELECT EXISTS (SELECT 1 FROM llm_cost.reservation WHERE {_SURE})"
_COUNT_OLD = f"SELECT count(*) FROM llm_cost.reservation WHERE {_OLD}"
_CLOSE = (
    "WITH next AS MATERIALIZED (SELECT id FROM llm_cost.reservation"
    f" WHERE {_SURE} AND id > %(after)s ORDER BY id LIMIT %(step)s), closed AS ("
    f"UPDATE llm_cost.reservation SET archived = %(number)s WHERE {_SURE} AND id IN (SELECT id FROM next))"
    " SELECT max(id), count(*) FROM next"
)
_BEGIN = (
    "INSERT INTO llm_cost.archive (tenant, number, before, path, last)"
    " SELECT %(tenant)s, coalesce((SELECT max(number) FROM llm_cost.archive WHERE tenant = %(tenant)s), 0) + 1,"
    " %(before)s, %(path)s, coalesce((SELECT max(seq) FROM llm_cost.entry WHERE tenant = %(tenant)s), 0)"
    " WHERE NOT EXISTS (SELECT 1 FROM llm_cost.archive WHERE tenant = %(tenant)s AND state <> 'moved')"
)
_FIELDS = "number, before, path, state, last, sha256, rows, carried, settled"
_UNFINISHED = f"SELECT {_FIELDS} FROM llm_cost.archive WHERE tenant = %s AND state <> 'moved'"
_RECORD = f"SELECT {_FIELDS} FROM llm_cost.archive WHERE tenant = %s AND number = %s"
_LINES = (
    "SELECT e.seq, e.kind, e.id, e.at, e.amount, e.scopes, e.status, e.created, e.settled, e.pending, e.memo"
    " FROM llm_cost.entry AS e JOIN llm_cost.reservation AS r ON r.tenant = e.tenant AND r.id = e.id"
    " WHERE e.tenant = %s AND e.created < %s AND e.seq <= %s AND r.archived = %s AND e.kind <> 'carried' ORDER BY e.seq"
)
_REMOVE = "DELETE FROM llm_cost.entry WHERE tenant = %s AND seq = ANY (%s) RETURNING settled"
_CARRY = (
    "INSERT INTO llm_cost.entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo)"
    " SELECT %s, 'carried', n.id, n.at, n.amount, n.scopes, 'exact', n.created, n.amount, 0, n.memo"
    " FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::bytea[])"
    " WITH ORDINALITY AS n (id, at, amount, scopes, created, memo, number) ORDER BY n.number"
)
_CARRIED = (
    "UPDATE llm_cost.archive SET carried = carried + %s, rows = rows + %s, settled = settled + %s"
    " WHERE tenant = %s AND number = %s"
)


class _ArchiveRecord(NamedTuple):
    """Archive as recorded in the ledger."""

    number: int
    before: int
    path: str
    state: str
    last: int
    sha256: str | None
    rows: int
    carried: int
    settled: int


class PostgresArchive:
    """One archiving of one ledger, in its turn.

    Args:
        turn: The right to it.
        now: Time, ms.
        sums: How rows are added up.
    """

    def __init__(self, turn: Turn, now: int, sums: Sums) -> None:
        self._turn, self._tenant, self._now = turn, turn.tenant, now
        self._sums, self._backend = sums, turn.backend

    def run(self, before: int, path: Path | None, *, keep: bool) -> ArchiveResult:
        """See ``Ledger.archive``."""
        found = self._turn.ask(_UNFINISHED, self._tenant)
        if found:
            record = _ArchiveRecord(*found[0])
            if record.state == "closing" and path is not None and str(path.absolute()) != record.path:
                self._set(record, path=archive_file.check_target(path))  # nothing was written yet
        else:
            if keep and path is None:
                raise ConfigurationError("name a file: this ledger has no folder of its own", key="to")
            if not self._one(_ANY_SURE, before):
                return ArchiveResult(None, 0, 0, NanoUSD(0), self._skipped(before), resumed=False)
            place = archive_file.check_target(path) if keep and path is not None else ""
            self._turn.step(lambda: only(Query(_BEGIN, self._values(before, path=place))))
            record = _ArchiveRecord(*self._turn.ask(_UNFINISHED, self._tenant)[0])
        record = self._record(record.number)
        if record.state == "closing":
            self._close(record)
            self._write(record)
        lines = 0
        if record.path:  # before the archive counts as done: cut short, it is resumed
            oldest = min(record.before, self._now - NEEDED_MS)
            lines = OldLines(self._backend).move(oldest, archive_file.beside(Path(record.path)))
        self._move(self._record(record.number))
        done, skipped = self._record(record.number), self._skipped(record.before)
        where = Path(done.path) if done.path else None
        return ArchiveResult(where, done.rows, done.carried, NanoUSD(done.settled), skipped, bool(found), lines)

    def _close(self, record: _ArchiveRecord) -> None:
        """Close the ids that will be moved: they take no correction from now on."""
        after = ""
        while True:
            values = self._values(record.before, number=record.number, after=after, step=STEP)
            ((last, count),) = self._turn.step(lambda values=values: only(Query(_CLOSE, values)))  # type: ignore[misc]  # bound now
            if count < STEP:
                break
            after = last
        # Rows of what was closed may be newer than the beginning.
        self._turn.ask(
            "UPDATE llm_cost.archive SET last = (SELECT coalesce(max(seq), 0) FROM llm_cost.entry WHERE tenant = %s)"
            " WHERE tenant = %s AND number = %s",
            self._tenant, self._tenant, record.number,
        )  # fmt: skip

    def _write(self, record: _ArchiveRecord) -> None:
        if not record.path:
            self._set(record, state="written")
            return
        register = self._turn.ask(
            "SELECT value FROM llm_cost.budget WHERE tenant = %s AND name = 'register'", self._tenant
        )
        header: dict[str, Any] = {
            "ledger": self._backend.protocol.url, "tenant": self._backend.protocol.tenant, "before": record.before,
            "number": record.number, "register": json.loads(register[0][0]) if register else None,
        }  # fmt: skip
        closed = self._record(record.number)
        try:
            written = archive_file.write(Path(record.path), header, lambda: self._lines(closed))
        except OSError as error:
            url = self._backend.protocol.url
            raise LedgerUnavailableError(url, f"cannot archive to {record.path}: {error}") from error
        self._set(record, state="written", sha256=written.sha256)

    def _move(self, record: _ArchiveRecord) -> None:
        """Move the rows out, newest first: an id is complete when its first row appears."""
        if record.path:
            archive_file.check_whole(Path(record.path), record.sha256 or "")
        for ids in whole_ids(self._lines(record, backwards=True), STEP):
            self._turn.step(lambda ids=ids: self._carry(record, ids))  # type: ignore[misc]  # bound now
        self._set(record, state="moved")

    def _carry(self, record: _ArchiveRecord, ids: list[list[ArchivedRow]]) -> CommandFlow[None]:
        sums = self._sums.of(ids, f"archive-{record.number}")
        seqs = [row.seq for rows in ids for row in rows]
        removed = yield Query(_REMOVE, (self._tenant, seqs))
        if not removed:  # sent twice
            return
        if len(removed) != len(seqs):  # the count proves that no row left in another way since the file was written
            raise LedgerError("rows that were to be archived are gone")
        columns = zip(*((row.id, row.at, row.amount, row.scopes, row.created, row.memo) for row in sums), strict=True)
        if sums:
            yield Query(_CARRY, (self._tenant, *map(list, columns)))
        settled = sum(value for (value,) in removed)
        yield Query(_CARRIED, (len(sums), len(seqs), settled, self._tenant, record.number))

    def _lines(self, record: _ArchiveRecord, *, backwards: bool = False) -> Iterator[ArchivedRow]:
        """Read the rows of the closed ids."""
        values = self._tenant, record.before, record.last, record.number
        for *fields, memo in self._backend.stream(Query(f"{_LINES}{' DESC' * backwards}", values)):
            yield ArchivedRow._make((*fields, bytes(memo)))

    def _skipped(self, before: int) -> int:
        return int(self._one(_COUNT_OLD, before))

    def _record(self, number: int) -> _ArchiveRecord:
        return _ArchiveRecord(*self._turn.ask(_RECORD, self._tenant, number)[0])

    def _set(self, record: _ArchiveRecord, **facts: Any) -> None:
        columns = ", ".join(f"{name} = %s" for name in facts)
        where = "WHERE tenant = %s AND number = %s"
        self._turn.ask(f"UPDATE llm_cost.archive SET {columns} {where}", *facts.values(), self._tenant, record.number)

    def _one(self, text: str, before: int) -> Any:
        return self._turn.step(lambda: only(Query(text, self._values(before))))[0][0]

    def _values(self, before: int, **more: Any) -> dict[str, Any]:
        return {"tenant": self._tenant, "before": before, **more}
