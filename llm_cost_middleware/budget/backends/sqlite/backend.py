"""The verbs in SQL. What to decide is in ``rules``; a step reads, decides, then writes, in one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from llm_cost_middleware.budget.backend import Archived, Snapshot
from llm_cost_middleware.budget.backends.sqlite.archive import Archive
from llm_cost_middleware.budget.backends.sqlite.journal import SQLiteJournal
from llm_cost_middleware.budget.backends.sqlite.store import Store
from llm_cost_middleware.budget.model import LIFETIME, Budget, Kind, Receipt, Reservation, Row, Status, Verb
from llm_cost_middleware.budget.rules import (
    DAY,
    Book,
    Charge,
    Entry,
    Figures,
    Record,
    Refusal,
    Summary,
    apply,
    check_replay,
    covers,
    horizon,
    known_scopes,
    resolve,
    tally,
)
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ReservationNotFoundError
from llm_cost_middleware.money import NanoUSD

_BLOCK = 500  # rows fetched at once

_VERSION = "SELECT version FROM tenant WHERE id = ?"
_SUMS = "SELECT settled, pending FROM cell WHERE account = ? AND cell = ?"
_ROLLING_SUMS = "SELECT coalesce(sum(settled), 0), coalesce(sum(pending), 0) FROM cell WHERE account = ? AND cell >= ?"
_ADD = (
    "INSERT INTO cell (account, cell, settled, pending) VALUES (?, ?, ?, ?) ON CONFLICT (account, cell)"
    " DO UPDATE SET settled = settled + excluded.settled, pending = pending + excluded.pending"
)
_RESERVATION = (
    "SELECT id, scopes, amount, created, expires, state, charged, verb, actual, status, late, resolved, reconciled,"
    " warnings, refusal, archived FROM reservation WHERE tenant = ? AND id = ?"
)
_RESERVE = "INSERT INTO reservation (tenant, id, scopes, amount, created, expires) VALUES (?, ?, ?, ?, ?, ?)"
_REFUSE = (
    "INSERT INTO reservation (tenant, id, scopes, amount, created, expires, state, refusal)"
    " VALUES (?, ?, ?, ?, ?, ?, 'refused', ?)"
)
_RESOLVE = (
    "UPDATE reservation SET state = ?, charged = ?, verb = ?, actual = ?, status = ?, late = ?, resolved = ?,"
    " reconciled = ?, warnings = ? WHERE tenant = ? AND id = ?"
)
_APPEND = (
    "INSERT INTO entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_OVER = "SELECT id FROM reservation WHERE tenant = ? AND state = 'pending' AND expires <= ? ORDER BY expires LIMIT ?"


class SQLiteBackend:
    """``Backend`` in a SQLite file."""

    def __init__(self, store: Store, clock: Clock, tenant: str) -> None:
        self._store, self._now = store, clock.now
        self._book, self._version = Book(), -1
        self._accounts: dict[tuple[str, str], int] = {}
        self._closed = False
        store.on_rollback(self)
        self._name = tenant
        self._tenant: int = store.write(partial(_tenant_id, tenant))
        self.journal = SQLiteJournal(store, self._tenant)

    @classmethod
    def open(cls, url: str, clock: Clock, tenant: str, *, full: bool) -> SQLiteBackend:
        """Open the file of a URL, made if it is missing. Raises as ``Ledger.open``."""
        return cls(Store.of(url, full=full), clock, tenant)

    def forget(self) -> None:
        """Drop what was remembered of a transaction that was undone."""
        self._version = -1
        self._accounts = {}

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation:
        """See ``Backend``."""

        def step(db: sqlite3.Connection) -> Reservation:
            now = int(self._now() * 1000)
            book = self._current(db)
            if not fresh and (known := self._find(db, id_)) is not None:
                record, refusal = known
                check_replay(record, amount, scopes)
                if refusal is not None:
                    raise refusal.error()
                return record.reservation()
            charges = book.plan(scopes, now).charges
            joined = " ".join(scopes)
            for charge in charges:
                if charge.limit is not None:
                    settled, pending = self._counted(db, charge)
                    if settled + pending + amount > charge.limit:
                        refusal = Refusal(
                            charge.scope, charge.window, charge.limit, settled, pending, amount, charge.resets
                        )
                        if not fresh:
                            db.execute(_REFUSE, (self._tenant, id_, joined, amount, now, now, json.dumps(refusal)))
                        raise refusal.error()
            db.execute(_RESERVE, (self._tenant, id_, joined, amount, now, now + ttl))
            self._book_entry(db, "reserve", id_, now, amount, joined, "reserved", now, 0, amount, memo, charges)
            return Reservation(id_, NanoUSD(amount), scopes, now / 1000, (now + ttl) / 1000, "pending")

        return self._store.write(step)

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: Status, memo: bytes = b""
    ) -> Receipt:
        """See ``Backend``."""

        def step(db: sqlite3.Connection) -> Receipt:
            now = int(self._now() * 1000)
            known = self._find(db, id_)
            if verb == "book":
                if known is not None:
                    check_replay(known[0], amount, scopes, booked=True)
                    return known[0].replay(verb)
                db.execute(_RESERVE, (self._tenant, id_, " ".join(scopes), 0, now, now))
                known = Record(id_, scopes, 0, now, now, verb="book"), None
            if known is None:
                raise ReservationNotFoundError(id_)
            return self._resolve(db, known[0], verb, amount, status, now, memo)

        return self._store.write(step)

    def _resolve(
        self, db: sqlite3.Connection, record: Record, verb: Verb, amount: int, status: Status, now: int, memo: bytes
    ) -> Receipt:
        move = resolve(record, verb, amount)
        if move is None:
            return record.replay(verb)
        charges = self._current(db).plan(record.scopes, record.created).charges
        self._book_entry(
            db, verb, record.id, now, amount, " ".join(record.scopes), status, record.created,
            move.settled, move.pending, memo, charges,
        )  # fmt: skip
        apply(record, verb, move, amount, status, now)
        warnings = self._warnings(db, charges) if verb not in {"void", "lapse"} else ()
        if verb != "reconcile":
            record.warnings = warnings
        changed = (
            record.state, record.charged, record.verb, record.actual, record.status, record.late, record.resolved,
            record.reconciled, json.dumps(record.warnings) if record.warnings else "", self._tenant, record.id,
        )  # fmt: skip
        db.execute(_RESOLVE, changed)
        return record.correction()._replace(warnings=warnings) if verb == "reconcile" else record.receipt()

    def _book_entry(
        self, db: sqlite3.Connection, kind: Kind, id_: str, at: int, amount: int, scopes: str, status: Status,
        created: int, settled: int, pending: int, memo: bytes, charges: tuple[Charge, ...],
    ) -> None:  # fmt: skip
        """Append a row and add what it changes to the sums: the two never part."""
        for charge in charges:
            db.execute(_ADD, (self._account(db, charge.scope, charge.window), charge.cell, settled, pending))
        db.execute(_APPEND, (self._tenant, kind, id_, at, amount, scopes, status, created, settled, pending, memo))

    def _warnings(self, db: sqlite3.Connection, charges: tuple[Charge, ...]) -> tuple[tuple[str, str], ...]:
        crossed = []
        for charge in charges:
            if charge.warn is None or self._counted(db, charge)[0] < charge.warn:
                continue
            account = self._account(db, charge.scope, charge.window)
            marked = db.execute(
                "UPDATE account SET warned = ? WHERE id = ? AND warned < ?", (charge.cell, account, charge.lo)
            )
            if marked.rowcount:
                crossed.append((charge.scope, charge.window))
        return tuple(crossed)

    def extend(self, id_: str, ttl: int) -> Reservation:
        """See ``Backend``."""

        def step(db: sqlite3.Connection) -> Reservation:
            known = self._find(db, id_)
            if known is None:
                raise ReservationNotFoundError(id_)
            record = known[0]
            record.extend(int(self._now() * 1000) + ttl)
            db.execute(
                "UPDATE reservation SET expires = ? WHERE tenant = ? AND id = ?", (record.expires, self._tenant, id_)
            )
            return record.reservation()

        return self._store.write(step)

    def sweep(self, *, charge: bool, limit: int) -> int:
        """See ``Backend``. Looks before it writes: nothing to sweep costs no transaction."""
        with self._store.reading() as db:
            if db.execute(_OVER, (self._tenant, int(self._now() * 1000), 1)).fetchone() is None:
                return 0

        def step(db: sqlite3.Connection) -> int:
            now = int(self._now() * 1000)
            over = db.execute(_OVER, (self._tenant, now, limit)).fetchall()
            for (id_,) in over:
                known = self._find(db, id_)
                if known is not None:
                    self._resolve(db, known[0], "lapse", known[0].amount if charge else 0, "unconfirmed", now, b"")
            return len(over)

        return self._store.write(step)

    def read(self, scopes: tuple[str, ...] | None) -> Snapshot:
        """See ``Backend``."""
        now = int(self._now() * 1000)
        with self._store.reading() as db:
            book = self._load(db)
            if scopes is None:
                booked = db.execute(
                    "SELECT scope FROM account WHERE tenant = ? AND window = ?", (self._tenant, LIFETIME)
                )
                scopes = known_scopes(book, (scope for (scope,) in booked.fetchall()))
            figures = []
            for charge in book.plan(scopes, now).charges:
                key = self._tenant, charge.scope, charge.window
                account = db.execute(
                    "SELECT id FROM account WHERE tenant = ? AND scope = ? AND window = ?", key
                ).fetchone()
                figures.append(
                    Figures(charge.scope, charge.window, *(_sums(db, account[0], charge) if account else (0, 0)))
                )
        return Snapshot(book, now, tuple(figures))

    def rows(self, since: int | None, scope: str | None) -> Iterator[Row]:
        """See ``Backend``."""
        seq = 0
        where, filters = "tenant = ? AND seq > ?", []
        if since is not None:
            where += " AND at >= ?"
            filters.append(since)
        if scope is not None:
            where += " AND instr(' ' || scopes || ' ', ?) > 0"
            filters.append(f" {scope} ")  # type: ignore[arg-type]  # one parameter list, two types
        query = (
            "SELECT seq, kind, id, at, amount, scopes, status, created, memo FROM entry"  # noqa: S608 - fixed text
            f" WHERE {where} ORDER BY seq LIMIT {_BLOCK}"
        )
        with self._store.snapshot() as db:
            while True:
                block = db.execute(query, (self._tenant, seq, *filters)).fetchall()
                for seq, kind, id_, at, amount, joined, status, created, memo in block:
                    yield Row(
                        seq, kind, id_, at / 1000, NanoUSD(amount), tuple(joined.split(" ")), status, created / 1000,
                        memo,
                    )  # fmt: skip
                if len(block) < _BLOCK:
                    return

    def archive(self, before: int, path: Path | None, summary: Summary) -> Archived:
        """See ``Archiving``."""
        now = int(self._now() * 1000)
        with self._store.reading() as db:
            windows = {(budget.window, budget.timezone) for budget in self._load(db).budgets} | {("month", "UTC")}
        recent = min(horizon(window, zone, now) for window, zone in windows if window != LIFETIME) - DAY
        return Archive(self._store, self._tenant, self._name, recent, summary).run(min(before, now), path)

    def set_budget(self, budget: Budget) -> None:
        """See ``Backend``."""

        def step(db: sqlite3.Connection) -> None:
            before = {known.key: known for known in self._current(db).budgets}.get(budget.key)
            if before == budget:
                return
            warn_at = None if budget.warn_at is None else repr(budget.warn_at)
            db.execute(
                "INSERT OR REPLACE INTO budget (tenant, scope, window, limit_nanousd, timezone, warn_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (self._tenant, *budget.key, budget.limit_nanousd, budget.timezone, warn_at),
            )
            self._amended(db, None if before and before.timezone == budget.timezone else budget)

        self._store.write(step)

    def remove_budget(self, scope: str, window: str) -> bool:
        """See ``Backend``."""

        def step(db: sqlite3.Connection) -> bool:
            before = {known.key: known for known in self._current(db).budgets}.get((scope, window))
            if before is None:
                return False
            db.execute(
                "DELETE FROM budget WHERE tenant = ? AND scope = ? AND window = ?", (self._tenant, scope, window)
            )
            self._amended(db, before)
            return True

        return self._store.write(step)

    def _amended(self, db: sqlite3.Connection, changed: Budget | None) -> None:
        """Let every process know, and fill the accounts of a window that is new, moved or no longer its own."""
        db.execute("UPDATE tenant SET version = version + 1 WHERE id = ?", (self._tenant,))
        book = self._current(db)
        if changed is None or changed.window == LIFETIME:
            return
        pattern, window = changed.key
        accounts = db.execute(
            "SELECT id, scope FROM account WHERE tenant = ? AND window = ?", (self._tenant, window)
        ).fetchall()
        db.executemany(
            "DELETE FROM cell WHERE account = ?", [(id_,) for id_, scope in accounts if covers(pattern, scope)]
        )
        since = horizon(window, changed.timezone, int(self._now() * 1000))
        entries = db.execute(
            "SELECT scopes, created, settled, pending FROM entry WHERE tenant = ? AND created >= ?",
            (self._tenant, since),
        )
        filled = tally((Entry(tuple(joined.split(" ")), *rest) for joined, *rest in entries), pattern, window, book)
        for scope, cells in filled.items():
            account = self._account(db, scope, window)
            db.executemany(_ADD, [(account, cell, settled, pending) for cell, (settled, pending) in cells.items()])

    def close(self) -> None:
        """See ``Backend``."""
        if not self._closed:
            self._closed = True
            self._store.close()

    def _current(self, db: sqlite3.Connection) -> Book:
        """The budgets as they are in this transaction."""
        (version,) = db.execute(_VERSION, (self._tenant,)).fetchone()
        if version != self._version:
            self._book, self._version = self._load(db), version
        return self._book

    def _load(self, db: sqlite3.Connection) -> Book:
        rows = db.execute(
            "SELECT scope, limit_nanousd, window, timezone, warn_at FROM budget WHERE tenant = ?", (self._tenant,)
        )
        return Book(
            Budget(scope, NanoUSD(limit), window, timezone, None if warn_at is None else float(warn_at))
            for scope, limit, window, timezone, warn_at in rows.fetchall()
        )

    def _account(self, db: sqlite3.Connection, scope: str, window: str) -> int:
        account = self._accounts.get((scope, window))
        if account is None:
            key = self._tenant, scope, window
            db.execute("INSERT OR IGNORE INTO account (tenant, scope, window) VALUES (?, ?, ?)", key)
            row = db.execute("SELECT id FROM account WHERE tenant = ? AND scope = ? AND window = ?", key).fetchone()
            account = self._accounts[scope, window] = int(row[0])
        return account

    def _counted(self, db: sqlite3.Connection, charge: Charge) -> tuple[int, int]:
        return _sums(db, self._account(db, charge.scope, charge.window), charge)

    def _find(self, db: sqlite3.Connection, id_: str) -> tuple[Record, Refusal | None] | None:
        row = db.execute(_RESERVATION, (self._tenant, id_)).fetchone()
        if row is None:
            return None
        refusal = row[14]
        crossed = tuple((scope, window) for scope, window in json.loads(row[13])) if row[13] else ()
        facts: list[Any] = [*row[2:10], bool(row[10]), row[11], row[12], crossed, bool(row[15])]
        record = Record(row[0], tuple(row[1].split(" ")), *facts)
        return record, Refusal(*json.loads(refusal)) if refusal else None


def _sums(db: sqlite3.Connection, account: int, charge: Charge) -> tuple[int, int]:
    if charge.rolling:
        row = db.execute(_ROLLING_SUMS, (account, charge.lo)).fetchone()
    else:
        row = db.execute(_SUMS, (account, charge.cell)).fetchone()
    return row or (0, 0)


def _tenant_id(name: str, db: sqlite3.Connection) -> int:
    db.execute("INSERT OR IGNORE INTO tenant (name) VALUES (?)", (name,))
    return int(db.execute("SELECT id FROM tenant WHERE name = ?", (name,)).fetchone()[0])
