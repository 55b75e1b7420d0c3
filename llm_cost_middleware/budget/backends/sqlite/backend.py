"""Ledger verbs in SQL. ``rules`` decides; a step reads, decides and writes in one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from llm_cost_middleware.budget.backend import Snapshot
from llm_cost_middleware.budget.backends.sqlite.bookings import read_bookings
from llm_cost_middleware.budget.backends.sqlite.budget_table import BudgetTable
from llm_cost_middleware.budget.backends.sqlite.filling import ADD, AccountFilling
from llm_cost_middleware.budget.backends.sqlite.journal import SQLiteJournal, SQLiteSharedState, write_notes
from llm_cost_middleware.budget.backends.sqlite.largest import largest_rows
from llm_cost_middleware.budget.backends.sqlite.leases import LeaseTable
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.memo_kinds import MemoKinds
from llm_cost_middleware.budget.backends.sqlite.moments import first_row
from llm_cost_middleware.budget.backends.sqlite.packing import Packing
from llm_cost_middleware.budget.backends.sqlite.reductions import ReductionTable
from llm_cost_middleware.budget.backends.sqlite.resting import resting_sum
from llm_cost_middleware.budget.backends.sqlite.slices import SliceTable
from llm_cost_middleware.budget.backends.sqlite.upkeep import SQLiteUpkeep
from llm_cost_middleware.budget.model import LIFETIME, Receipt, Reservation, Row, RowKind, RowStatus, Verb
from llm_cost_middleware.budget.notes import Notes
from llm_cost_middleware.budget.rules import (
    AccountPosting,
    AccountTotals,
    BudgetIndex,
    BudgetRefusal,
    Crossed,
    ReservationRecord,
    apply,
    check_replay,
    known_scopes,
    resolve,
)  # fmt: skip
from llm_cost_middleware.budget.rules.bookings import Booking, BookingSums
from llm_cost_middleware.budget.rules.largest import Measure
from llm_cost_middleware.budget.spool_place import SpoolPlace, beside
from llm_cost_middleware.budget.tallies import Tally, tally_of
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ReservationNotFoundError
from llm_cost_middleware.money import NanoUSD

_BLOCK = 500  # rows fetched at once: memory stays flat while a caller streams

_SUMS = "SELECT settled, pending FROM cell WHERE account = ? AND cell = ?"
_ROLLING_SUMS = "SELECT coalesce(sum(settled), 0), coalesce(sum(pending), 0) FROM cell WHERE account = ? AND cell >= ?"
_RESERVATION = (
    "SELECT id, scopes, amount, created, expires, state, charged, verb, actual, status, late, resolved, reconciled,"
    " warnings, refusal, archived FROM reservation WHERE tenant = ? AND id = ?"
)
_RESERVE = (
    "INSERT INTO reservation (tenant, id, scopes, amount, created, expires, writer) VALUES (?, ?, ?, ?, ?, ?, 12)"
)
_REFUSE = (
    "INSERT INTO reservation (tenant, id, scopes, amount, created, expires, state, refusal)"
    " VALUES (?, ?, ?, ?, ?, ?, 'refused', ?)"
)
_RESOLVE = (
    "UPDATE reservation_row SET state = ?, charged = ?, verb = ?, actual = ?, status = ?, late = ?, resolved = ?,"
    " reconciled = ?, warnings = ? WHERE tenant = ? AND id = ?"
)
_EXTEND = "UPDATE reservation_row SET expires = ? WHERE tenant = ? AND id = ?"
_APPEND = (
    "INSERT INTO entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo, memo_kind,"
    " count_1, count_2, count_3, count_4, count_5) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_EXPIRED = "SELECT id FROM reservation WHERE tenant = ? AND state = 'pending' AND expires <= ? ORDER BY expires LIMIT ?"


class SQLiteBackend(BudgetTable, LeaseTable, ReductionTable, SliceTable, SQLiteUpkeep):
    """``Backend`` in a SQLite file."""

    blocks = takes_notes = True
    _reserve_statement = _RESERVE

    def __init__(self, file: LedgerFile, clock: Clock, tenant: str) -> None:
        self._file, self._now = file, clock.now
        self._known, self._version = (-1, BudgetIndex()), -1
        self._accounts: dict[tuple[str, str], int] = {}
        self._kinds = MemoKinds()
        self._closed = False
        file.on_rollback(self)
        self._name = tenant
        self._tenant: int = file.write(partial(_tenant_id, tenant))
        self._packing = Packing.of(file)
        self._filling = AccountFilling(file, self._tenant, self._current_account)
        self.journal, self.shared_state = (
            SQLiteJournal(file, self._tenant, self._packing),
            SQLiteSharedState(file, self._tenant),
        )

    @classmethod
    def open(cls, url: str, clock: Clock, tenant: str, *, full: bool) -> SQLiteBackend:
        """Open the file of a URL; create it if it is missing. Raises as ``Ledger.open``."""
        return cls(LedgerFile.of(url, full=full), clock, tenant)

    @property
    def spool_place(self) -> SpoolPlace:
        """See ``SupportsSpool``."""
        return beside(self._file.path, self._name)

    def drop_cache(self) -> None:
        """Forget what was read in a transaction that was rolled back."""
        self._known, self._version = (-1, BudgetIndex()), -1
        self._accounts = {}
        self._kinds.clear()

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation:
        """See ``Backend``."""
        memo = self._packing.pack(memo)

        def step(db: sqlite3.Connection) -> Reservation:
            now = int(self._now() * 1000)
            index = self._current(db)
            if not fresh and (known := self._find(db, id_)) is not None:
                record, refusal = known
                check_replay(self._as_requested(db, record, amount), amount, scopes)
                if refusal is not None:
                    raise refusal.under(index).error()
                return record.reservation()
            plan = index.posting_plan(scopes, now)
            if plan.paused is not None:
                raise plan.paused[1].error(plan.paused[0])
            postings = plan.postings
            joined = " ".join(scopes)
            drawn = self._draw(db, plan.slices, amount)
            for posting in postings:
                if posting.limit is not None:
                    settled, pending = self._counted(db, posting)
                    if settled + pending + amount > posting.limit:
                        account = self._account(db, posting.scope, posting.window)
                        carried = _carried(db, account, posting)
                        if settled + pending + amount <= posting.limit + carried:
                            continue
                        refusal = BudgetRefusal.of(posting, settled, pending, amount, carried)
                        self._give_back(db, drawn)
                        if not fresh:
                            db.execute(_REFUSE, (self._tenant, id_, joined, amount, now, now, json.dumps(refusal[:-1])))
                        raise refusal.error()
            db.execute(_RESERVE, (self._tenant, id_, joined, amount, now, now + ttl))
            self._append_row(db, "reserve", id_, now, amount, joined, "reserved", now, 0, amount, memo, postings)
            self._drawn(db, drawn, now, now + ttl)
            return Reservation(id_, NanoUSD(amount), scopes, now / 1000, (now + ttl) / 1000, "pending")

        return self._file.write(step)

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: RowStatus, memo: bytes = b"",
        notes: Notes | None = None,
    ) -> Receipt:  # fmt: skip
        """See ``Backend``."""

        def step(db: sqlite3.Connection) -> Receipt:
            now = int(self._now() * 1000)
            known = self._find(db, id_)
            if verb == "book":
                if known is not None:
                    check_replay(known[0], amount, scopes, booked=True)
                    return known[0].replay(verb)
                db.execute(_RESERVE, (self._tenant, id_, " ".join(scopes), 0, now, now))
                known = ReservationRecord(id_, scopes, 0, now, now, verb="book"), None
            if known is None:
                raise ReservationNotFoundError(id_)
            receipt = self._resolve(db, known[0], verb, amount, status, now, memo, tally)
            if packed is not None:  # repeated: an earlier go has written them
                done.written = receipt.repeated or write_notes(db, self.journal, self.shared_state, packed)
            return receipt

        tally = tally_of(memo)
        memo, packed, done = self._packing.pack(memo), self._packing.pack_notes(notes), Notes()
        receipt = self._file.write(step)
        if notes is not None:
            notes.written = done.written
        return receipt

    def _resolve(
        self, db: sqlite3.Connection, record: ReservationRecord, verb: Verb, amount: int, status: RowStatus, now: int,
        memo: bytes, tally: Tally | None = None,
    ) -> Receipt:  # fmt: skip
        transition = resolve(record, verb, amount)
        if transition is None:
            return record.replay(verb)
        postings, slices = self._current(db).posting_plan(record.scopes, record.created)[2::2]
        self._append_row(
            db, verb, record.id, now, amount, " ".join(record.scopes), status, record.created,
            transition.settled, transition.pending, memo, postings, tally,
        )  # fmt: skip
        apply(record, verb, transition, amount, status, now)
        crossed = self._crossed(db, postings, transition.settled) if verb not in {"void", "expire"} else {}
        receipt = record.told(verb, crossed)
        changed = (
            record.state, record.charged, record.verb, record.actual, record.status, record.late, record.resolved,
            record.reconciled, _dump_crossed(record), self._tenant, record.id,
        )  # fmt: skip
        db.execute(_RESOLVE, changed)
        self._set_right(db, slices, now)
        return receipt

    def _append_row(
        self, db: sqlite3.Connection, kind: RowKind, id_: str, at: int, amount: int, scopes: str, status: RowStatus,
        created: int, settled: int, pending: int, memo: bytes, postings: tuple[AccountPosting, ...],
        tally: Tally | None = None,
    ) -> None:  # fmt: skip
        """Append a row and add its change to the sums, in one transaction."""
        for posting in postings:
            db.execute(ADD, (self._account(db, posting.scope, posting.window), posting.cell, settled, pending))
        row = self._tenant, kind, id_, at, amount, scopes, status, created, settled, pending, memo
        db.execute(_APPEND, (*row, *self._kinds.columns(db, tally)))

    def _crossed(self, db: sqlite3.Connection, postings: tuple[AccountPosting, ...], change: int) -> Crossed:
        crossed: Crossed = {}
        for posting in postings:
            settled = self._counted(db, posting)[0] if posting.warns else 0
            if posting.warn is None or settled < posting.warn:
                continue
            account = self._account(db, posting.scope, posting.window)
            # The row count tells whether this process was the first to cross: one of them warns.
            marked = db.execute(
                "UPDATE account SET warned = ? WHERE id = ? AND warned < ?", (posting.cell, account, posting.first_cell)
            )
            threshold = posting.crossed(settled, change, first=marked.rowcount > 0)
            if threshold is not None:
                crossed[posting.scope, posting.window] = threshold
        return crossed

    def extend(self, id_: str, ttl: int) -> Reservation:
        """See ``Backend``."""

        def step(db: sqlite3.Connection) -> Reservation:
            known = self._find(db, id_)
            if known is None:
                raise ReservationNotFoundError(id_)
            record = known[0]
            record.extend(int(self._now() * 1000) + ttl)
            db.execute(_EXTEND, (record.expires, self._tenant, id_))
            return record.reservation()

        return self._file.write(step)

    def sweep(self, *, charge: bool, limit: int) -> int:
        """See ``Backend``. Reads first: when nothing has expired, it costs no write transaction."""
        with self._file.reading() as db:
            if db.execute(_EXPIRED, (self._tenant, int(self._now() * 1000), 1)).fetchone() is None:
                return 0

        def step(db: sqlite3.Connection) -> int:
            now = int(self._now() * 1000)
            over = db.execute(_EXPIRED, (self._tenant, now, limit)).fetchall()
            for (id_,) in over:
                known = self._find(db, id_)
                if known is not None:
                    due = known[0].charged_if_expired(charge=charge)
                    self._resolve(db, known[0], "expire", due, "unconfirmed", now, b"")
            return len(over)

        return self._file.write(step)

    def read(self, scopes: tuple[str, ...] | None) -> Snapshot:
        """See ``Backend``."""
        now = int(self._now() * 1000)
        with self._file.reading() as db:
            index = self._indexed(db)[1]  # not ``_current``: the accounts belong to the writer
            if scopes is None:
                booked = db.execute(
                    "SELECT scope FROM account WHERE tenant = ? AND window = ?", (self._tenant, LIFETIME)
                )
                scopes = known_scopes(index, (scope for (scope,) in booked.fetchall()))
            totals = []
            for posting in index.posting_plan(scopes, now).postings:
                key = self._tenant, posting.scope, posting.window
                account = db.execute(
                    "SELECT id FROM account WHERE tenant = ? AND scope = ? AND window = ?", key
                ).fetchone()
                number = account[0] if account else -1
                sums = *_sums(db, number, posting), _carried(db, number, posting)
                if account is None and posting.window == LIFETIME:
                    sums = resting_sum(db, self._tenant, posting.scope), *sums[1:]
                totals.append(AccountTotals(posting.scope, posting.window, *sums))
        return Snapshot(index, now, tuple(totals))

    def bookings(self, since: int | None, until: int | None, sums: BookingSums) -> Iterator[Booking]:
        """See ``SupportsBookings``."""
        with self._file.snapshot() as db:
            yield from read_bookings(db, self._tenant, since, until, sums, plain=self._packing.unpack)

    def largest(
        self, by: Measure, count: int, since: int | None, until: int | None, wanted: Callable[[Row], bool]
    ) -> list[Row]:
        """See ``SupportsLargest``."""
        with self._file.snapshot() as db:
            span, plain = {"since": since, "until": until}, self._packing.unpack
            return largest_rows(db, self._tenant, by, count, **span, wanted=wanted, plain=plain)

    def rows(self, since: int | None, scope: str | None) -> Iterator[Row]:
        """See ``Backend``."""
        where, filters = "tenant = ? AND seq > ?", []
        if since is not None:
            where += " AND at >= ?"
            filters.append(since)
        if scope is not None:
            where += " AND instr(' ' || scopes || ' ', ?) > 0"
            filters.append(f" {scope} ")  # type: ignore[arg-type]  # one parameter list, two types
        # Rows are never changed: those written before version 4 of the schema say lapse.
        columns = "seq, replace(kind, 'lapse', 'expire'), id, at, amount, scopes, status, created, memo"
        query = f"SELECT {columns} FROM entry WHERE {where} ORDER BY seq LIMIT {_BLOCK}"  # noqa: S608 - fixed text
        # A snapshot of its own: a caller who reads slowly must not hold up ``read``.
        with self._file.snapshot() as db:
            seq = first_row(db, self._tenant, since) - 1
            while True:
                block = db.execute(query, (self._tenant, seq, *filters)).fetchall()
                for seq, kind, id_, at, amount, joined, status, created, memo in block:
                    yield Row(
                        seq, kind, id_, at / 1000, NanoUSD(amount), tuple(joined.split(" ")), status, created / 1000,
                        self._packing.unpack(memo),
                    )  # fmt: skip
                if len(block) < _BLOCK:
                    return

    def close(self) -> None:
        """See ``Backend``."""
        if not self._closed:
            self._closed = True
            self._file.close()

    def _counted(self, db: sqlite3.Connection, posting: AccountPosting) -> tuple[int, int]:
        return _sums(db, self._account(db, posting.scope, posting.window), posting)

    def _find(self, db: sqlite3.Connection, id_: str) -> tuple[ReservationRecord, BudgetRefusal | None] | None:
        row = db.execute(_RESERVATION, (self._tenant, id_)).fetchone()
        if row is None:
            return None
        refusal = row[14]
        # A file of an earlier version has no thresholds.
        crossed = {(scope, window): sum(rest) for scope, window, *rest in json.loads(row[13])} if row[13] else {}
        warned = tuple(crossed), tuple(crossed.values())
        facts: list[Any] = [*row[2:10], bool(row[10]), row[11], row[12], *warned, bool(row[15])]
        record = ReservationRecord(row[0], tuple(row[1].split(" ")), *facts)
        return record, BudgetRefusal(*json.loads(refusal)) if refusal else None


def _dump_crossed(record: ReservationRecord) -> str:
    crossed = zip(record.warnings, record.thresholds, strict=True)
    return json.dumps([[*account, threshold] for account, threshold in crossed]) if record.warnings else ""


def _sums(db: sqlite3.Connection, account: int, posting: AccountPosting) -> tuple[int, int]:
    query, cell = (_ROLLING_SUMS, posting.first_cell) if posting.rolling else (_SUMS, posting.cell)
    return db.execute(query, (account, cell)).fetchone() or (0, 0)


def _carried(db: sqlite3.Connection, account: int, posting: AccountPosting) -> int:
    """What the limit of an account has from the window before."""
    return posting.carry.unused(*_sums(db, account, posting.preceding())) if posting.carry is not None else 0


def _tenant_id(name: str, db: sqlite3.Connection) -> int:
    db.execute("INSERT OR IGNORE INTO tenant (name) VALUES (?)", (name,))
    return int(db.execute("SELECT id FROM tenant WHERE name = ?", (name,)).fetchone()[0])
