"""What is said to the server for each verb, and what its answers mean: generators that yield commands, with no I/O.

Two short drivers in ``client`` run them, one blocking, one not. The plan of a call (which accounts, which cells) is
made here, where time zones are known, and checked by the script against the server's time and the version of the
budgets: a stale plan is answered with what is missing, and made again. What a resolution does is decided here too, by
``rules``, and written by the script only if the reservation is still as it was: otherwise its record comes back and is
decided anew. So a command whose answer was lost can always be sent again.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from llm_cost_middleware.budget.backend import Snapshot
from llm_cost_middleware.budget.backends.redis import records
from llm_cost_middleware.budget.model import LIFETIME, Budget, Receipt, Reservation, Row, Status, Verb
from llm_cost_middleware.budget.rules import (
    Book,
    Charge,
    Figures,
    Plan,
    Record,
    Refusal,
    apply,
    check_replay,
    covers,
    horizon,
    known_scopes,
    resolve,
    tally,
)
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LedgerUnavailableError, LedgerVersionError, ReservationNotFoundError

SCHEMA = 1
_KEPT = 50_000  # reservations of this process remembered for a settle in one round trip
_TRIES = 50  # answers "stale" in a row before the server is not believed
_BLOCK = 500


class Script(NamedTuple):
    """A script of ``lua/`` to run."""

    name: str
    keys: list[str]
    args: list[Any]


class Command(NamedTuple):
    """A plain command to run."""

    words: tuple[Any, ...]


class _Laid(NamedTuple):
    """The accounts of a plan as keys, and what a reserve and a resolution say about each."""

    plan: Plan
    keys: list[str]
    limits: list[Any]
    warns: list[Any]


T = TypeVar("T")
Talk = Generator[Script | Command, Any, T]


class Dialogue:
    """The verbs of one tenant on one server."""

    def __init__(self, url: str, clock: Clock | None, tenant: str) -> None:
        self.url = url
        self._clock = clock
        self._tag = f"{{llm-cost:{tenant}}}"
        self._known = "", Book()  # the version of the budgets and the budgets: one value, so that threads see both
        self._seen = 0  # the server's time, as it said last
        self._made: OrderedDict[str, Record] = OrderedDict()
        self._plans: dict[tuple[str, ...], _Laid] = {}
        self._fixed = [self._key(name) for name in ("budgets", "seq", "rows", "open", "accounts")]

    def greet(self) -> Talk[None]:
        """Make the tenant's keys if they are missing. Raises ``LedgerVersionError`` if a newer version made them."""
        yield Command(("HSETNX", self._key("budgets"), "schema", SCHEMA))
        yield Command(("HSETNX", self._key("budgets"), "version", 1))
        found = int((yield Command(("HGET", self._key("budgets"), "schema"))))
        if found > SCHEMA:
            raise LedgerVersionError(self.url, found, SCHEMA)

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Talk[Reservation]:
        """See ``Backend``."""
        joined, amount = " ".join(scopes), int(amount)  # redis-py writes a subclass of int by its repr
        for _ in range(_TRIES):
            version, book = self._known
            plan = book.plan(scopes, self._now())
            args = [self._time(), version, plan.start, plan.until, id_, amount, ttl, joined, memo, int(fresh)]
            laid = self._laid(scopes, plan)
            answer, *facts = yield Script("reserve", self._keys(id_, laid), args + laid.limits)
            if answer == b"held":
                now = self._saw(facts[0])
                record = Record(id_, scopes, amount, now, now + ttl)
                self._remember(record)
                return record.reservation()
            if answer == b"refused":
                now, index, settled, pending = facts
                self._saw(now)
                charge = plan.charges[index]
                held = int(settled), int(pending)
                raise Refusal(charge.scope, charge.window, charge.limit or 0, *held, amount, charge.resets).error()
            if answer == b"known":
                record, refusal = records.record(records.pairs(facts[0]))
                check_replay(record, amount, scopes)
                if refusal is not None:
                    raise self._dated(refusal, record).error()
                return record.reservation()
            self._learn(*facts)
        raise self._unbelievable()

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: Status, memo: bytes = b""
    ) -> Talk[Receipt]:
        """See ``Backend``."""
        record = self._made.pop(id_, None)
        if record is None and verb != "book":
            record = self._record((yield Command(("HGETALL", self._key(f"r:{id_}")))))
        return (yield from self._resolve(verb, id_, record, int(amount), scopes, status, memo))

    def _resolve(
        self,
        verb: Verb,
        id_: str,
        record: Record | None,
        amount: int,
        scopes: tuple[str, ...],
        status: Status,
        memo: bytes,
    ) -> Talk[Receipt]:
        writer, ours = os.urandom(8).hex(), False  # if its reply is lost, redis-py sends the script again
        for _ in range(_TRIES):
            if record is None and verb != "book":
                raise ReservationNotFoundError(id_)
            if record is not None and verb == "book":
                check_replay(record, amount, scopes, booked=True)
                return record.replay(verb)._replace(repeated=not ours)
            target = record or Record(id_, scopes, 0, self._now(), self._now(), verb="book")
            move = resolve(target, verb, amount)
            if move is None:
                return target.replay(verb)._replace(repeated=not ours)
            version, book = self._known
            plan = book.plan(target.scopes, target.created)
            seen = (record.state, record.charged, record.reconciled) if record else ("", 0, 0)
            args = [
                self._time(), version, id_, *seen, verb, amount, status, memo, move.state, move.charged,
                move.settled, move.pending, " ".join(target.scopes), record.created if record else "",
                plan.start, plan.until, writer,
            ]  # fmt: skip
            laid = self._laid(target.scopes, plan)
            answer, *facts = yield Script("resolve", self._keys(id_, laid), args + laid.warns)
            if answer == b"done":
                now, _, *names = facts
                return self._resolved(target, verb, move, amount, status, self._saw(now), names)
            if answer == b"known":
                fields = records.pairs(facts[0])
                record, ours = self._record(fields), fields.get(b"writer") == writer.encode()
            else:
                self._learn(*facts)
        raise self._unbelievable()

    def _resolved(
        self, record: Record, verb: Verb, move: Any, amount: int, status: Status, now: int, names: list[bytes]
    ) -> Receipt:
        if verb == "book":
            record = replace(record, created=now, expires=now)
        warnings = tuple(records.account_of(name.decode()) for name in names)
        apply(record, verb, move, amount, status, now)
        if verb == "reconcile":
            return record.correction()._replace(warnings=warnings)
        record.warnings = warnings
        return record.receipt()

    def extend(self, id_: str, ttl: int) -> Talk[Reservation]:
        """See ``Backend``."""
        record = self._record(
            (yield Script("extend", [self._key("open"), self._key(f"r:{id_}")], [self._time(), id_, ttl]))
        )
        if record is None:
            raise ReservationNotFoundError(id_)
        record.extend(record.expires)
        if id_ in self._made:
            self._made[id_].expires = record.expires
        return record.reservation()

    def sweep(self, *, charge: bool, limit: int) -> Talk[int]:
        """See ``Backend``."""
        now = self._time()
        if now == "":
            seconds, micros = yield Command(("TIME",))
            now = self._saw(int(seconds) * 1000 + int(micros) // 1000)
        over = yield Command(("ZRANGEBYSCORE", self._key("open"), "-inf", now, "LIMIT", 0, limit))
        swept = 0
        for name in over:
            id_ = name.decode()
            self._made.pop(id_, None)
            record = self._record((yield Command(("HGETALL", self._key(f"r:{id_}")))))
            if record is not None and record.state == "pending":
                amount = record.amount if charge else 0
                # a replay: somebody else resolved it in the meantime
                swept += not (yield from self._resolve("lapse", id_, record, amount, (), "unconfirmed", b"")).repeated
        return swept

    def read(self, scopes: tuple[str, ...] | None) -> Talk[Snapshot]:
        """See ``Backend``."""
        booked: list[str] = []
        if scopes is None:
            names = yield Command(("SMEMBERS", self._key("accounts")))
            accounts = [records.account_of(name.decode()) for name in names]
            booked = sorted(scope for scope, window in accounts if window == LIFETIME)
        for _ in range(_TRIES):
            version, book = self._known
            plan = book.plan(known_scopes(book, booked) if scopes is None else scopes, self._now())
            args: list[Any] = [self._time(), version, plan.start, plan.until]
            for charge in plan.charges:
                args += charge.cell, charge.lo
            keys = [self._key("budgets"), *(self._key(f"a:{_account(charge)}") for charge in plan.charges)]
            answer, now, *sums = yield Script("read", keys, args)
            if answer == b"sums":
                figures = tuple(
                    Figures(charge.scope, charge.window, int(settled), int(pending))
                    for charge, settled, pending in zip(plan.charges, sums[::2], sums[1::2], strict=True)
                )
                return Snapshot(book, self._saw(now), figures)
            self._learn(now, *sums)
        raise self._unbelievable()

    def block(self, after: int) -> Talk[list[tuple[bytes, dict[bytes, bytes]]]]:
        """The next rows of the stream."""
        found: list[tuple[bytes, dict[bytes, bytes]]]
        found = yield Command(("XRANGE", self._key("rows"), f"({after}-0" if after else "-", "+", "COUNT", _BLOCK))
        return found

    def set_budget(self, budget: Budget) -> Talk[None]:
        """See ``Backend``."""
        yield from self._amend(budget.key, budget)

    def remove_budget(self, scope: str, window: str) -> Talk[bool]:
        """See ``Backend``."""
        return (yield from self._amend((scope, window), None))

    def _amend(self, key: tuple[str, str], budget: Budget | None) -> Talk[bool]:
        """Set or remove; whether anything changed. Rows are counted without a lock, then those that came since."""
        stream: list[tuple[bytes, dict[bytes, bytes]]] = []
        for _ in range(1000):
            fields = yield Command(("HGETALL", self._key("budgets")))
            self._learn(0, [part for pair in fields.items() for part in pair])
            version, book = self._known
            budgets = {known.key: known for known in book.budgets}
            before = budgets.pop(key, None)
            if before == budget:
                return False
            if budget is not None:
                budgets[key] = budget
            changed = budget or before
            args: list[Any]
            keys, args = [self._key("budgets"), self._key("seq"), self._key("accounts")], [version, ""]
            args += records.account(*key), "" if budget is None else records.facts_of(budget)
            moved = before is None or budget is None or before.timezone != budget.timezone
            if changed is not None and moved and key[1] != LIFETIME:
                last = records.sequence(stream[-1][0]) if stream else 0
                while block := (yield from self.block(last)):
                    stream += block
                    last = records.sequence(block[-1][0])
                args[1] = str(last)
                names, cells = yield from self._refilled(changed, Book(budgets.values()), stream)
                for name in names:
                    keys.append(self._key(f"a:{name}"))
                    flat = [part for field in cells.get(name, {}).items() for part in field]
                    args += name, len(flat), *flat
            answer, *_ = yield Script("amend", keys, args)
            if answer == b"done":
                return True
        raise self._unbelievable()

    def _refilled(
        self, changed: Budget, book: Book, stream: list[tuple[bytes, dict[bytes, bytes]]]
    ) -> Talk[tuple[list[str], dict[str, dict[str, int]]]]:
        """The accounts to write anew under a changed budget, and what they carry."""
        pattern, window = changed.key
        since = horizon(window, changed.timezone, self._now())
        cells: dict[str, dict[str, int]] = {}
        for scope, sums in tally(records.entries(stream, since), pattern, window, book).items():
            fields: dict[str, int] = {}
            cells[records.account(scope, window)] = fields
            for cell, (settled, pending) in sums.items():
                fields[f"{cell}:s"], fields[f"{cell}:p"] = settled, pending
        accounts = yield Command(("SMEMBERS", self._key("accounts")))
        stale = [
            name.decode() for name in accounts
            if records.account_of(name.decode())[1] == window and covers(pattern, records.account_of(name.decode())[0])
        ]  # fmt: skip
        return list(dict.fromkeys([*stale, *cells])), cells

    def row_wanted(self, row: Row, since: int | None, scope: str | None) -> bool:
        """Whether a row passes the filters of ``rows``."""
        return (since is None or row.at * 1000 >= since) and (scope is None or scope in row.scopes)

    def _key(self, name: str) -> str:
        return f"{self._tag}:{name}"

    def _keys(self, id_: str, laid: _Laid) -> list[str]:
        return [*self._fixed, f"{self._tag}:r:{id_}", *laid.keys]

    def _laid(self, scopes: tuple[str, ...], plan: Plan) -> _Laid:
        """A plan as the scripts take it; the last of each combination of scopes is kept."""
        laid = self._plans.get(scopes)
        if laid is None or laid.plan is not plan:
            if len(self._plans) > _KEPT:
                self._plans.clear()
            laid = _Laid(plan, [], [], [])
            for charge in plan.charges:
                laid.keys.append(self._key(f"a:{_account(charge)}"))
                place = _account(charge), charge.cell, charge.lo
                laid.limits.extend((*place, "" if charge.limit is None else int(charge.limit)))
                laid.warns.extend((*place, "" if charge.warn is None else int(charge.warn)))
            self._plans[scopes] = laid
        return laid

    def _time(self) -> int | str:
        """The injected clock's time for a script, or nothing: then it asks the server."""
        return "" if self._clock is None else int(self._clock.now() * 1000)

    def _now(self) -> int:
        """The time to plan for: a guess, unless a clock was injected; the script checks it."""
        return self._seen if self._clock is None else int(self._clock.now() * 1000)

    def _saw(self, now: int) -> int:
        self._seen = now
        return now

    def _learn(self, now: int, flat: list[bytes]) -> None:
        """Take over the budgets, and the time, that a stale plan was answered with."""
        fields = records.pairs(flat)
        if b"version" not in fields:
            raise LedgerUnavailableError(self.url, "its keys are gone: was the server flushed, or does it evict?")
        if now:
            self._saw(now)
        version = fields[b"version"].decode()
        if version != self._known[0]:
            self._known = version, records.book(fields)

    def _record(self, fields: Any) -> Record | None:
        found = fields if isinstance(fields, dict) else records.pairs(fields)
        return records.record(found)[0] if found else None

    def _remember(self, record: Record) -> None:
        self._made[record.id] = record
        if len(self._made) > _KEPT:
            self._made.popitem(last=False)

    def _dated(self, refusal: Refusal, record: Record) -> Refusal:
        """A refusal with the end of its window, which is not stored."""
        charges = self._known[1].plan(record.scopes, record.created).charges
        resets = {(charge.scope, charge.window): charge.resets for charge in charges}
        return refusal._replace(resets=resets.get((refusal.scope, refusal.window)))

    def _unbelievable(self) -> LedgerUnavailableError:
        return LedgerUnavailableError(self.url, "its budgets or its clock change faster than a call can follow")


def _account(charge: Charge) -> str:
    return records.account(charge.scope, charge.window)
