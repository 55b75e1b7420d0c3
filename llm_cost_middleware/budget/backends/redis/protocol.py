"""Redis protocol of each ledger verb, as generators that yield commands and receive replies. No I/O.

Two drivers in ``client`` run them, one blocking, one asynchronous. The posting plan of a call (accounts and cells) is
made here, because Lua knows no time zones. The script checks it against the server's time and the version of the
budgets; the reply to a stale plan brings what is missing, and the plan is made again. ``rules`` decides here what a
resolution does; the script writes it only if the reservation is unchanged, else the record comes back and is decided
again (optimistic concurrency). So a command whose reply was lost can be sent again.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any, NamedTuple

from llm_cost_middleware.budget.backend import Snapshot
from llm_cost_middleware.budget.backends.redis import encoding
from llm_cost_middleware.budget.backends.redis.budget_protocol import BudgetProtocol
from llm_cost_middleware.budget.backends.redis.commands import (
    BLOCK,
    MAX_STALE,
    PATIENCE_MS,
    CommandFlow,
    RedisCommand,
    RedisScript,
)
from llm_cost_middleware.budget.backends.redis.reduction_protocol import ReductionProtocol
from llm_cost_middleware.budget.model import LIFETIME, MAX_NANOUSD, Receipt, Reservation, Row, RowStatus, Verb
from llm_cost_middleware.budget.rules import (
    AccountPosting,
    AccountTotals,
    BudgetIndex,
    BudgetRefusal,
    PostingPlan,
    ReservationRecord,
    apply,
    check_replay,
    known_scopes,
    resolve,
)  # fmt: skip
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LedgerUnavailableError, LedgerVersionError, ReservationNotFoundError

SCHEMA = 4
_MAX_REMEMBERED = 50_000  # reservations of this process: their settle needs no read, one round trip


class _ScriptArguments(NamedTuple):
    """Keys of a plan's accounts, and the arguments of ``reserve`` (limits) and ``resolve`` (warns) for each."""

    plan: PostingPlan
    keys: list[str]
    limits: list[Any]
    warns: list[Any]


class RedisProtocol(BudgetProtocol, ReductionProtocol):
    """Ledger verbs of one tenant on one server."""

    def __init__(self, url: str, clock: Clock | None, tenant: str) -> None:
        self.url = url
        self._clock = clock
        self._tag = f"{{llm-cost:{tenant}}}"
        self._known = (
            "",
            BudgetIndex(),
        )  # version and budgets in one value: no thread sees one without the other
        self._server_ms = 0  # the server's time in its last reply
        self._ahead_ms = 0  # of the server's clock over this process's monotonic one
        self._recent: OrderedDict[str, ReservationRecord] = OrderedDict()
        self._plans: dict[tuple[str, ...], _ScriptArguments] = {}
        self._common_keys = [self.key(name) for name in ("budgets", "seq", "rows", "open", "accounts")]

    def initialise(self) -> CommandFlow[None]:
        """Create the tenant's keys if they are missing. Raises ``LedgerVersionError`` if a newer version wrote them."""
        seconds, micros = yield RedisCommand(("TIME",))
        self._note_clock(int(seconds) * 1000 + int(micros) // 1000)
        yield RedisCommand(("HSETNX", self.key("budgets"), "schema", SCHEMA))
        yield RedisCommand(("HSETNX", self.key("budgets"), "version", 1))
        found = int((yield RedisCommand(("HGET", self.key("budgets"), "schema"))))
        if found > SCHEMA:
            raise LedgerVersionError(self.url, found, SCHEMA)
        if found < SCHEMA:  # all that it has is readable; from here on older versions would misread what is written
            yield RedisCommand(("HSET", self.key("budgets"), "schema", SCHEMA))

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> CommandFlow[Reservation]:
        """See ``Backend``."""
        joined, amount = " ".join(scopes), int(amount)  # redis-py writes a subclass of int by its repr
        for _ in range(MAX_STALE):
            version, index = self._known
            plan = index.posting_plan(scopes, self._now())
            # a pause may end: what it refuses is not remembered
            forget = int(fresh or plan.paused is not None)
            late = self._latest()
            args = [self._time(), version, plan.start, plan.until, id_, amount, ttl, joined, memo, forget, late]
            laid = self._script_arguments(scopes, plan)
            answer, *facts = yield RedisScript("reserve", self._keys(id_, laid), args + laid.limits)
            if answer == b"held":
                now = self._note_server_time(facts[0])
                record = ReservationRecord(id_, scopes, amount, now, now + ttl)
                self._remember(record)
                return record.reservation()
            if answer == b"refused":
                now, position, *sums = facts
                self._note_server_time(now)
                if plan.paused is not None:
                    raise plan.paused[1].error(plan.paused[0])
                settled, pending, carried = map(int, sums)
                raise BudgetRefusal.of(plan.postings[position], settled, pending, amount, carried).error()
            if answer == b"late":  # its clock was set, or another server took its place
                self._note_clock(int(facts[0]))
                continue
            if answer == b"known":
                record, refusal = encoding.read_record(encoding.hash_fields(facts[0]))
                check_replay(record, amount, scopes)
                if refusal is not None:
                    raise self._with_reset(refusal, record).error()
                return record.reservation()
            self._refresh_budgets(*facts)
        raise self._stale_too_often()

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: RowStatus, memo: bytes = b""
    ) -> CommandFlow[Receipt]:
        """See ``Backend``."""
        record = self._recent.pop(id_, None)
        if record is None and verb != "book":
            record = self._record((yield RedisCommand(("HGETALL", self.key(f"r:{id_}")))))
        return (yield from self._resolve(verb, id_, record, int(amount), scopes, status, memo))

    def _resolve(
        self,
        verb: Verb,
        id_: str,
        record: ReservationRecord | None,
        amount: int,
        scopes: tuple[str, ...],
        status: RowStatus,
        memo: bytes,
    ) -> CommandFlow[Receipt]:
        writer, ours = os.urandom(8).hex(), False  # if its reply is lost, redis-py sends the script again
        for _ in range(MAX_STALE):
            if record is None and verb != "book":
                raise ReservationNotFoundError(id_)
            if record is not None and verb == "book":
                check_replay(record, amount, scopes, booked=True)
                return record.replay(verb)._replace(repeated=not ours)
            target = record or ReservationRecord(id_, scopes, 0, self._now(), self._now(), verb="book")
            transition = resolve(target, verb, amount)
            if transition is None:
                return target.replay(verb)._replace(repeated=not ours)
            version, index = self._known
            plan = index.posting_plan(target.scopes, target.created)
            seen = (record.state, record.charged, record.reconciled) if record else ("", 0, 0)
            args = [
                self._time(), version, id_, *seen, verb, amount, status, memo, transition.state, transition.charged,
                transition.settled, transition.pending, " ".join(target.scopes), record.created if record else "",
                plan.start, plan.until, writer, target.amount,
            ]  # fmt: skip
            laid = self._script_arguments(target.scopes, plan)
            answer, *facts = yield RedisScript("resolve", self._keys(id_, laid), args + laid.warns)
            if answer == b"done":
                now, _, *names = facts
                return self._resolved(target, verb, transition, amount, status, self._note_server_time(now), names)
            if answer == b"known":
                fields = encoding.hash_fields(facts[0])
                record, ours = self._record(fields), fields.get(b"writer") == writer.encode()
            else:
                self._refresh_budgets(*facts)
        raise self._stale_too_often()

    def _resolved(
        self,
        record: ReservationRecord,
        verb: Verb,
        transition: Any,
        amount: int,
        status: RowStatus,
        now: int,
        names: list[bytes],
    ) -> Receipt:
        if verb == "book":
            record = replace(record, created=now, expires=now)
        apply(record, verb, transition, amount, status, now)
        return record.told(verb, encoding.read_crossed(names))

    def extend(self, id_: str, ttl: int) -> CommandFlow[Reservation]:
        """See ``Backend``."""
        record = self._record(
            (yield RedisScript("extend", [self.key("open"), self.key(f"r:{id_}")], [self._time(), id_, ttl]))
        )
        if record is None:
            raise ReservationNotFoundError(id_)
        record.extend(record.expires)
        if id_ in self._recent:
            self._recent[id_].expires = record.expires
        return record.reservation()

    def sweep(self, *, charge: bool, limit: int) -> CommandFlow[int]:
        """See ``Backend``."""
        now = self._time()
        if now == "":
            seconds, micros = yield RedisCommand(("TIME",))
            now = self._note_server_time(int(seconds) * 1000 + int(micros) // 1000)
        # One by one, not in a script: ``rules`` decides each, as for every other verb.
        over = yield RedisCommand(("ZRANGEBYSCORE", self.key("open"), "-inf", now, "LIMIT", 0, limit))
        swept = 0
        for name in over:
            id_ = name.decode()
            self._recent.pop(id_, None)  # another process may have resolved it
            record = self._record((yield RedisCommand(("HGETALL", self.key(f"r:{id_}")))))
            if record is not None and record.state == "pending":
                amount = record.amount if charge else 0
                # a replay: somebody else resolved it in the meantime
                swept += not (yield from self._resolve("expire", id_, record, amount, (), "unconfirmed", b"")).repeated
        return swept

    def read(self, scopes: tuple[str, ...] | None) -> CommandFlow[Snapshot]:
        """See ``Backend``."""
        booked: list[str] = []
        if scopes is None:
            names = yield RedisCommand(("SMEMBERS", self.key("accounts")))
            accounts = [encoding.parse_account(name.decode()) for name in names]
            booked = sorted(scope for scope, window in accounts if window == LIFETIME)
        for _ in range(MAX_STALE):
            version, index = self._known
            plan = index.posting_plan(known_scopes(index, booked) if scopes is None else scopes, self._now())
            args: list[Any] = [self._time(), version, plan.start, plan.until]
            for posting in plan.postings:
                args += posting.cell, posting.first_cell
            # The window before, of those that carry over: read at the same moment, as accounts of their own.
            carrying = [posting for posting in plan.postings if posting.carry is not None]
            before = [posting.preceding() for posting in carrying]
            for posting in before:
                args += posting.cell, posting.first_cell
            keys = [self.key("budgets"), *(self.key(f"a:{_account(posting)}") for posting in (*plan.postings, *before))]
            answer, now, *sums = yield RedisScript("read", keys, args)
            if answer == b"sums":
                pairs = [(int(settled), int(pending)) for settled, pending in zip(sums[::2], sums[1::2], strict=True)]
                rest = iter(pairs[len(plan.postings) :])
                totals = tuple(
                    AccountTotals(*posting[:2], *pair, posting.carry.unused(*next(rest)) if posting.carry else 0)
                    for posting, pair in zip(plan.postings, pairs, strict=False)
                )
                return Snapshot(index, self._note_server_time(now), totals)
            self._refresh_budgets(now, *sums)
        raise self._stale_too_often()

    def read_block(self, after: int) -> CommandFlow[list[tuple[bytes, dict[bytes, bytes]]]]:
        """Read the next rows of the stream."""
        found: list[tuple[bytes, dict[bytes, bytes]]]
        found = yield RedisCommand(("XRANGE", self.key("rows"), f"({after}-0" if after else "-", "+", "COUNT", BLOCK))
        return found

    def row_wanted(self, row: Row, since: int | None, scope: str | None) -> bool:
        """Return whether a row passes the filters of ``rows``."""
        return (since is None or row.at * 1000 >= since) and (scope is None or scope in row.scopes)

    def key(self, name: str) -> str:
        """Return the key of a name of this tenant; the braces put all of them into one slot of a cluster."""
        return f"{self._tag}:{name}"

    def _keys(self, id_: str, laid: _ScriptArguments) -> list[str]:
        return [*self._common_keys, f"{self._tag}:r:{id_}", *laid.keys]

    def _script_arguments(self, scopes: tuple[str, ...], plan: PostingPlan) -> _ScriptArguments:
        """Return a plan as script arguments; the last one of each combination of scopes is cached."""
        laid = self._plans.get(scopes)
        if laid is None or laid.plan is not plan:
            if len(self._plans) > _MAX_REMEMBERED:
                self._plans.clear()
            laid = _ScriptArguments(plan, [], [], [])
            for posting in plan.postings:
                laid.keys.append(self.key(f"a:{_account(posting)}"))
                place = _account(posting), posting.cell, posting.first_cell
                limit = "" if posting.limit is None else int(posting.limit)
                if posting.carry is not None:
                    limit = f"{limit} {posting.carry.before} {posting.carry.limit} {posting.carry.cap}"
                # The script checks that the pause still stands, as it checks a limit: no sum is below this one.
                laid.limits.extend((*place, limit if plan.paused is None else -MAX_NANOUSD))
                laid.warns.extend((*place, ",".join(str(int(warn)) for warn in posting.warns)))
            self._plans[scopes] = laid
        return laid

    def _latest(self) -> int:
        """Return until when, by the server's clock (ms), a reserve may be carried out.

        A server that was frozen carries it out when it goes on: by then its caller was refused.
        """
        return int(time.monotonic() * 1000) + self._ahead_ms + PATIENCE_MS

    def _note_clock(self, server_ms: int) -> None:
        self._ahead_ms = server_ms - int(time.monotonic() * 1000)

    def _time(self) -> int | str:
        """Return the injected clock's time, ms, or an empty string: then the script asks the server."""
        return "" if self._clock is None else int(self._clock.now() * 1000)

    def _now(self) -> int:
        """Return the time, ms, to plan for: an estimate unless a clock was injected; the script checks it."""
        return self._server_ms if self._clock is None else int(self._clock.now() * 1000)

    def _note_server_time(self, now: int) -> int:
        self._server_ms = now
        return now

    def _refresh_budgets(self, now: int, flat: list[bytes]) -> None:
        """Take budgets and time from the reply to a stale plan."""
        fields = encoding.hash_fields(flat)
        if b"version" not in fields:  # without this check, lost budgets would look like no budgets
            raise LedgerUnavailableError(self.url, "its keys are gone: was the server flushed, or does it evict?")
        if now:
            self._note_server_time(now)
        version = fields[b"version"].decode()
        if version != self._known[0]:
            self._known = version, encoding.read_budgets(fields)

    def _record(self, fields: Any) -> ReservationRecord | None:
        found = fields if isinstance(fields, dict) else encoding.hash_fields(fields)
        return encoding.read_record(found)[0] if found else None

    def _remember(self, record: ReservationRecord) -> None:
        self._recent[record.id] = record
        if len(self._recent) > _MAX_REMEMBERED:
            self._recent.popitem(last=False)

    def _with_reset(self, refusal: BudgetRefusal, record: ReservationRecord) -> BudgetRefusal:
        """Return a refusal with the end of its window and what was kept from it, which are not stored."""
        postings = self._known[1].posting_plan(record.scopes, record.created).postings
        found = {(posting.scope, posting.window): (posting.resets, posting.kept) for posting in postings}
        resets, kept = found.get((refusal.scope, refusal.window), (None, 0))
        return refusal._replace(resets=resets, kept=kept).under(self._known[1])

    def _stale_too_often(self) -> LedgerUnavailableError:
        return LedgerUnavailableError(self.url, "its budgets or its clock change faster than a call can follow")


def _account(posting: AccountPosting) -> str:
    return encoding.account_name(posting.scope, posting.window)
