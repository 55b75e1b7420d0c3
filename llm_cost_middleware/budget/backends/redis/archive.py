"""Archiving of old rows of a Redis ledger, in the steps of one on SQLite: close, write, move. Each can be resumed.

======== ======================================================== ==============================================
state    what holds                                               killed here, the next call
======== ======================================================== ==============================================
closing  some ids are closed; every row is still in the ledger    closes the rest, writes the file anew
written  the file is whole, flushed and compared                  checks it by its SHA-256, moves what is left
moved    the rows are in the file, their sums in ``carried`` rows has nothing to do
======== ======================================================== ==============================================

Without a file the rows are rolled up: their sums are what is left. The rows that carry them are found by the time they
stand for, so that a report over old days reads these, what could not be archived, and no others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.budget import archive_file
from llm_cost_middleware.budget.backend import ArchiveResult
from llm_cost_middleware.budget.backends.redis.maintenance import LEASE_MS, Maintenance
from llm_cost_middleware.budget.rules import DAY, ArchivedRow, MemoAggregator, Sums, whole_ids
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.errors import ConfigurationError, LedgerUnavailableError
from llm_cost_middleware.money import NanoUSD

if TYPE_CHECKING:
    from llm_cost_middleware.budget.backends.redis.client import RedisBackend

STEP = 100
"""Ids that are closed or moved in one step: it bounds how long the server is busy with them."""
_READERS_S = 60.0
NEEDED_MS = 8 * DAY
"""Lines of the journal younger than this stay: a bill may come two days later, and quotes read a week."""
_Stream = list[tuple[bytes, dict[bytes, bytes]]]


class RedisArchive(Maintenance):
    """One archiving of one ledger."""

    def __init__(self, backend: RedisBackend, summary: MemoAggregator) -> None:
        super().__init__(backend)
        self._now = backend.now_ms()
        self._sums = Sums.made(summary, backend.read(()).budget_index, self._now)

    def run(self, before: int, path: Path | None, *, keep: bool) -> ArchiveResult:
        """See ``Ledger.archive``; ``before`` is ms."""
        with self.held():
            return self._run(min(before, self._now), path, keep=keep)

    def _run(self, before: int, path: Path | None, *, keep: bool) -> ArchiveResult:
        record = self._record()
        resumed = record.get("state") in {"closing", "written"}
        if not resumed:
            record = self._begin(record, before, path, keep=keep)
        elif record["state"] == "closing" and path is not None and str(path.absolute()) != record["path"]:
            record["path"] = archive_file.check_target(path)  # nothing was written yet
            self._put(path=record["path"])
        if record["state"] == "closing":
            if not self._close(int(record["before"]), int(record["last"])) and not resumed:
                self._put(state="moved", horizon=self._horizon(record))
                return ArchiveResult(None, 0, 0, NanoUSD(0), self._skipped(before), resumed=False)
            if record["path"]:
                self._write(record)
            else:
                self._put(state="written")
        lines = self.backend.journal.move(min(int(record["before"]), self._now - NEEDED_MS), record["path"])
        moved = self._move(record)
        found = self._record()
        self._put(state="moved", horizon=self._horizon(record))
        settled = NanoUSD(int(found.get("settled", 0)) if record["path"] else moved)
        where = Path(record["path"]) if record["path"] else None
        rows, carried = int(found.get("moved", 0)), int(found.get("carried", 0))
        return ArchiveResult(where, rows, carried, settled, self._skipped(int(record["before"])), resumed, lines)

    def _begin(self, before_it: dict[str, str], before: int, path: Path | None, *, keep: bool) -> dict[str, str]:
        if keep and path is None:
            raise ConfigurationError("name a file: this ledger has no folder of its own", key="to")
        place = archive_file.check_target(path) if keep and path is not None else ""
        facts = {
            "number": str(int(before_it.get("number", 0)) + 1), "before": str(before), "path": place,
            "state": "closing", "last": (self.do("GET", self.key("seq")) or b"0").decode(),
            "carried": "0", "moved": "0", "settled": "0", "sha256": "",
        }  # fmt: skip
        self._put(**facts)
        return before_it | facts

    def _close(self, before: int, last: int) -> int:
        """Close the ids that will be moved: they take no correction from now on. Return how many there are."""
        closed = 0
        # In the order of their times, but for carried rows and a clock that was set back a little.
        rows = takewhile(
            lambda row: row[1][b"kind"] == b"carried" or int(row[1][b"at"]) < before + DAY, self._stream(last)
        )
        old = (
            fields[b"id"].decode()
            for _, fields in rows
            if fields[b"kind"] in {b"reserve", b"book"} and int(fields[b"created"]) < before
        )
        while ids := list(islice(old, STEP)):
            keys = [self.key("archiving"), self.key("left"), *(self.key(f"r:{id_}") for id_ in ids)]
            closed += sum(self.script("close", keys, [self.token, LEASE_MS, before, *ids]))
        return closed

    def _write(self, record: dict[str, str]) -> None:
        header = {
            "ledger": self.backend.protocol.url, "tenant": self.backend.protocol.tenant,
            "number": int(record["number"]), "before": int(record["before"]),
            "register": json.loads(self.backend.register() or b"null"),
        }  # fmt: skip
        path = Path(record["path"])
        written = archive_file.write(path, header, lambda: self._rows(int(record["last"])))
        self._put(state="written", sha256=written.sha256, settled=str(written.settled))
        self.do("RPUSH", self.key("archives"), record["path"])

    def _move(self, record: dict[str, str]) -> int:
        """Move the rows out, newest first: an id is complete when its first row appears. Return their sum."""
        if record["path"]:
            archive_file.check_whole(Path(record["path"]), self._record()["sha256"])
        settled = 0
        for ids in whole_ids(self._rows(int(record["last"]), backwards=True), STEP):
            settled += sum(row.settled for rows in ids for row in rows)
            self._carry(record, ids)
        # A stream keeps what was deleted beside an entry that stays: now and then it is written anew.
        deleted = int(self._record().get("deleted", 0))
        if deleted * 2 > int(self.do("XLEN", self.key("rows"))):
            self.recopy("rows")
            self._put(deleted=0)
        return settled

    def _carry(self, record: dict[str, str], ids: list[list[ArchivedRow]]) -> None:
        sums = self._sums.of(ids, f"archive-{record['number']}")
        names = [rows[0].id for rows in ids]
        places = [f"{row.seq}-0" for rows in ids for row in rows]
        common = ("archiving", "archive", "seq", "rows", "carried", "moments", "left", "readers", "budgets")
        keys = [*map(self.key, common), *(self.key(f"r:{name}") for name in names)]
        args: list[Any] = [self.token, LEASE_MS, len(places), *places, *names]
        for row in sums:
            args += row.id, row.at, row.amount, row.scopes, row.created, row.memo
        until = time.monotonic() + _READERS_S
        while self.script("carry", keys, args)[0] == b"read":
            if time.monotonic() > until:
                raise LedgerUnavailableError(self.backend.protocol.url, "its rows are being read; archive it later")
            time.sleep(0.02)

    def _rows(self, last: int, *, backwards: bool = False) -> Iterator[ArchivedRow]:
        """Read the rows of the closed ids."""
        stream = self._stream(last, backwards=backwards)
        while block := list(islice(stream, STEP)):
            keys = [self.key(f"r:{fields[b'id'].decode()}") for _, fields in block]
            for (place, fields), closed in zip(block, self.script("closed", keys, []), strict=True):
                if closed and fields[b"kind"] != b"carried":
                    yield encoding.read_archived(place, fields)

    def _stream(self, last: int, *, backwards: bool = False) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        """Read the rows up to a number."""
        rows, low, high = self.key("rows"), "-", f"{last}-0"
        while True:
            words = ("XREVRANGE", rows, high, low) if backwards else ("XRANGE", rows, low, high)
            block: _Stream = self.do(*words, "COUNT", 500)
            yield from block
            if not block:
                return
            edge = f"({block[-1][0].decode()}"
            low, high = (low, edge) if backwards else (edge, high)

    def _horizon(self, record: dict[str, str]) -> int:
        """Until when, ms, what was reserved stands either in rows that carry sums, or among what was left."""
        return max(int(record.get("horizon", 0)), min(int(record["before"]), self._now - DAY))

    def _skipped(self, before: int) -> int:
        return int(self.do("ZCOUNT", self.key("left"), "-inf", f"({before}"))

    def _record(self) -> dict[str, str]:
        found = self.do("HGETALL", self.key("archive"))
        return {name.decode(): value.decode() for name, value in found.items()}

    def _put(self, **facts: Any) -> None:
        self.do("HSET", self.key("archive"), *(part for fact in facts.items() for part in fact))
