"""Moving old rows out of a SQLite ledger: close, write, move. Each step is recorded, so that the next call goes on.

======== ======================================================== ==============================================
state    what holds                                               killed here, the next call
======== ======================================================== ==============================================
closing  some ids are closed; every row is still in the ledger    closes the rest, writes the file anew
written  the file is whole, flushed and compared                  checks it by its SHA-256, moves what is left
moved    the rows are in the file, their sums in ``carried`` rows has nothing to do
======== ======================================================== ==============================================
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from llm_cost_middleware.budget.backend import Archived
from llm_cost_middleware.budget.backends.sqlite import archive_file
from llm_cost_middleware.budget.backends.sqlite.file import translated
from llm_cost_middleware.budget.backends.sqlite.queue import Gate
from llm_cost_middleware.budget.backends.sqlite.store import Store
from llm_cost_middleware.budget.rules import DAY, QUARTER, Line, Summary, carried
from llm_cost_middleware.errors import ConfigurationError, LedgerError, LedgerUnavailableError
from llm_cost_middleware.money import NanoUSD

BLOCK = 1000
"""Ids closed or moved in one transaction: how long the writers of the ledger may have to wait."""

_OLD = "tenant = ? AND archived = 0 AND state != 'refused' AND max(created, resolved, reconciled) < ?"
_SURE = f"{_OLD} AND state IN ('settled', 'voided') AND (reconciled > 0 OR status IN ('exact', 'void'))"
_ANY_SURE = f"SELECT EXISTS (SELECT 1 FROM reservation WHERE {_SURE})"  # noqa: S608 - fixed texts, here and below
_COUNT_OLD = f"SELECT count(*) FROM reservation WHERE {_OLD}"  # noqa: S608
_FIND_SURE = f"SELECT id FROM reservation WHERE {_SURE} AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
_CLOSE = f"UPDATE reservation SET archived = ? WHERE {_SURE} AND id = ?"  # noqa: S608
_LINES = (
    "SELECT seq, kind, id, at, amount, scopes, status, created, settled, pending, memo FROM entry AS e WHERE tenant = ?"
    " AND (SELECT archived FROM reservation AS r WHERE r.tenant = e.tenant AND r.id = e.id) = ?"
)
_CARRY = (
    "INSERT INTO entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_LATEST = 2**62


class _Case(NamedTuple):
    """An archive as the ledger has it recorded."""

    number: int
    before: int
    path: str
    state: str


class Archive:
    """One ledger's archives. ``recent`` (ms): from then on windows still count what was reserved."""

    def __init__(self, store: Store, tenant: int, name: str, recent: int, summary: Summary) -> None:
        self._store, self._tenant, self._name, self._recent, self._summary = store, tenant, name, recent, summary

    def run(self, before: int, path: Path | None) -> Archived:
        """See ``Ledger.archive``."""
        with translated(self._store.url), closing(Gate(self._beside("-archiving"))) as gate:
            if not gate.enter(wait=False):
                raise LedgerUnavailableError(self._store.url, "another process is archiving it")
            case = self._begun()
            resumed = case is not None
            if case is None:
                if not self._one(_ANY_SURE, self._tenant, before):
                    return Archived(None, 0, 0, NanoUSD(0), self._kept(before), resumed=False)
                case = self._begin(before, path)
            elif case.state == "closing" and path is not None and str(path.absolute()) != case.path:
                case = case._replace(path=self._free(path))  # nothing was written yet: it may go elsewhere
                self._execute("UPDATE archive SET path = ? WHERE id = ?", case.path, case.number)
            if case.state == "closing":
                self._close(case)
                self._write(case)
            self._move(case)
            return self._told(case, resumed=resumed)

    def _begun(self) -> _Case | None:
        query = "SELECT id, before, path, state FROM archive WHERE tenant = ? AND state != 'moved'"
        with self._store.reading() as db:
            row = db.execute(query, (self._tenant,)).fetchone()
        return _Case(*row) if row else None

    def _begin(self, before: int, path: Path | None) -> _Case:
        number = self._one("SELECT coalesce(max(id), 0) + 1 FROM archive")
        path = path if path is not None else self._beside(f"-archive-{number:04}.jsonl")
        case = _Case(number, before, self._free(path), "closing")
        insert = "INSERT INTO archive (id, tenant, before, path) VALUES (?, ?, ?, ?)"
        self._execute(insert, number, self._tenant, before, case.path)
        return case

    @staticmethod
    def _free(path: Path) -> str:
        """A name for a file that is not there and can be written, looked at before anything is recorded."""
        path = path.absolute()
        if path.exists():
            raise ConfigurationError(f"{path} exists; name another file", key="to")
        if not path.parent.is_dir():
            raise ConfigurationError(f"there is no directory {path.parent}", key="to")
        part = archive_file.part_of(path)
        try:
            part.touch()
            part.unlink()
        except OSError as error:
            raise ConfigurationError(f"cannot write there: {error}", key="to") from error
        return str(path)

    def _close(self, case: _Case) -> None:
        """Let no attempt that is to be moved take a correction any more."""
        last = ""
        while True:
            with self._store.reading() as db:
                ids = db.execute(_FIND_SURE, (self._tenant, case.before, last, BLOCK)).fetchall()
            values = [(case.number, self._tenant, case.before, id_) for (id_,) in ids]
            self._store.write(lambda db, values=values: db.executemany(_CLOSE, values))  # type: ignore[misc]  # bound now
            if len(ids) < BLOCK:
                return
            (last,) = ids[-1]

    def _write(self, case: _Case) -> None:
        header = {"ledger": self._store.path.name, "tenant": self._name, "before": case.before, "number": case.number}
        try:
            written = archive_file.write(Path(case.path), header, partial(self._lines, case))
        except OSError as error:
            raise LedgerUnavailableError(self._store.url, f"cannot archive to {case.path}: {error}") from error
        self._execute(
            "UPDATE archive SET state = 'written', sha256 = ?, lines = ?, settled = ? WHERE id = ?",
            *written, case.number,
        )  # fmt: skip

    def _move(self, case: _Case) -> None:
        """Take the rows out, newest first, so that an id is known to be complete at its first row."""
        sha256 = self._one("SELECT sha256 FROM archive WHERE id = ?", case.number)
        path = Path(case.path)
        if not path.is_file() or archive_file.digest(path) != sha256:
            raise LedgerError(
                f"{path} is gone or was changed while its rows were being moved; put it back (its SHA-256 is {sha256})"
            )
        partly: dict[str, list[Line]] = {}
        whole: list[list[Line]] = []
        for line in self._lines(case, backwards=True):
            partly.setdefault(line.id, []).append(line)
            if line.kind in {"reserve", "book"}:
                whole.append(partly.pop(line.id)[::-1])
                if len(whole) >= BLOCK:
                    self._store.write(partial(self._carry, case, whole))
                    whole = []
        self._store.write(partial(self._carry, case, whole))
        self._execute("UPDATE archive SET state = 'moved' WHERE id = ?", case.number)

    def _carry(self, case: _Case, ids: list[list[Line]], db: sqlite3.Connection) -> None:
        sums = carried(ids, self._summary, self._grain, lambda last: f"archive-{case.number}-{last.seq}")
        seqs = [(line.seq,) for lines in ids for line in lines]
        if seqs and db.executemany("DELETE FROM entry WHERE seq = ?", seqs).rowcount != len(seqs):
            raise sqlite3.IntegrityError("rows that were to be archived are gone")
        db.executemany(_CARRY, [(self._tenant, *line[1:]) for line in sums])
        db.execute("UPDATE archive SET carried = carried + ? WHERE id = ?", (len(sums), case.number))

    def _grain(self, created: int) -> int:
        return QUARTER if created >= self._recent else DAY

    def _lines(self, case: _Case, *, backwards: bool = False) -> Iterator[Line]:
        """The rows of the ids that were closed for an archive; in blocks, so that no read holds a transaction open."""
        order, seq = (" AND seq < ? ORDER BY seq DESC", _LATEST) if backwards else (" AND seq > ? ORDER BY seq", 0)
        while True:
            with self._store.reading() as db:
                block = db.execute(f"{_LINES}{order} LIMIT {BLOCK}", (self._tenant, case.number, seq)).fetchall()
            yield from map(Line._make, block)
            if len(block) < BLOCK:
                return
            seq = block[-1][0]

    def _told(self, case: _Case, *, resumed: bool) -> Archived:
        with self._store.reading() as db:
            found = db.execute("SELECT lines, carried, settled FROM archive WHERE id = ?", (case.number,)).fetchone()
        return Archived(
            Path(case.path), found[0], found[1], NanoUSD(found[2]), self._kept(case.before), resumed=resumed
        )

    def _kept(self, before: int) -> int:
        return int(self._one(_COUNT_OLD, self._tenant, before))

    def _beside(self, suffix: str) -> Path:
        path = self._store.path
        return path.with_name(f"{path.stem if suffix.endswith('.jsonl') else path.name}{suffix}")

    def _one(self, query: str, *values: Any) -> Any:
        with self._store.reading() as db:
            return db.execute(query, values).fetchone()[0]

    def _execute(self, statement: str, *values: Any) -> None:
        self._store.write(lambda db: db.execute(statement, values))
