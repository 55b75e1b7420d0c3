"""Each ledger verb on a server that runs steps of ours, as generators that yield them and receive replies. No I/O.

Drivers run them, blocking or asynchronous, on Redis (scripts) and on PostgreSQL (functions). The posting plan of a call
(accounts and cells) is made here, because no server knows the windows. The step checks it against the server's time
and the version of the budgets; the reply to a stale plan brings what is missing, and the plan is made again. ``rules``
decides here what a resolution does; the step writes it only if the reservation is unchanged, else the record comes back
and is decided again (optimistic concurrency). So a step whose reply was lost can be sent again.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from typing import Any, NamedTuple

from msgspec import structs

from llm_cost_middleware.budget.backend import Snapshot
from llm_cost_middleware.budget.model import LIFETIME, MAX_NANOUSD, Receipt, Reservation, RowStatus, Verb
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
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.budget_protocol import BudgetProtocol
from llm_cost_middleware.budget.scripted.commands import (
    MAX_STALE,
    PATIENCE_MS,
    CommandFlow,
    Script,
)
from llm_cost_middleware.budget.scripted.lease_protocol import LeaseProtocol
from llm_cost_middleware.budget.scripted.reduction_protocol import ReductionProtocol
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LedgerUnavailableError, ReservationNotFoundError

_MAX_REMEMBERED = 50_000  # reservations of this process: their settle needs no read, one round trip


class _ScriptArguments(NamedTuple):
    """Keys of a plan's accounts, and the arguments of ``reserve`` (limits) and ``resolve`` (warns) for each."""

    plan: PostingPlan
    keys: list[str]
    limits: list[Any]
    warns: list[Any]


class ScriptedProtocol(BudgetProtocol, LeaseProtocol, ReductionProtocol):
    """Ledger verbs of one tenant on one server."""

    common_names: tuple[str, ...] = ("budgets", "seq", "rows", "open", "accounts")
    """What every step that books is told the keys of, before its reservation and its accounts."""

    def __init__(self, url: str, clock: Clock | None, tenant: str) -> None:
        self.url = url
        self.tenant = tenant
        self._clock = clock
        self._known = (
            "",
            BudgetIndex(),
        )  # version and budgets in one value: no thread sees one without the other
        self._server_ms = 0  # the server's time in its last reply
        self._ahead_ms = 0  # of the server's clock over this process's monotonic one
        self._recent: OrderedDict[str, ReservationRecord] = OrderedDict()
        self._plans: dict[tuple[str, ...], _ScriptArguments] = {}
        self._common_keys = [self.key(name) for name in self.common_names]

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> CommandFlow[Reservation]:
        """See ``Backend``."""
        joined, amount = " ".join(scopes), int(amount)  # a subclass of int may be written by its repr
        for _ in range(MAX_STALE):
            version, index = self._known
            plan = index.posting_plan(scopes, self._now())
            # a pause may end: what it refuses is not remembered
            forget = int(fresh or plan.paused is not None)
            late = self._latest()
            args = [self._time(), version, plan.start, plan.until, id_, amount, ttl, joined, memo, forget, late]
            laid = self._script_arguments(scopes, plan)
            answer, *facts = yield Script("reserve", self._keys(id_, laid), args + laid.limits)
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
            record = self._record((yield from self.ask_record(id_)))
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
        writer, ours = os.urandom(8).hex(), False  # if its reply is lost, it is sent again
        for _ in range(MAX_STALE):
            if record is None and verb != "book":
                raise ReservationNotFoundError(id_)
            if record is not None and verb == "book":
                check_replay(record, amount, scopes, booked=True)
                return structs.replace(record.replay(verb), repeated=not ours)
            target = record or ReservationRecord(id_, scopes, 0, self._now(), self._now(), verb="book")
            transition = resolve(target, verb, amount)
            if transition is None:
                return structs.replace(target.replay(verb), repeated=not ours)
            version, index = self._known
            plan = index.posting_plan(target.scopes, target.created)
            state = f"{target.state}*" if target.archived else target.state
            seen = (state, record.charged, record.reconciled) if record else ("", 0, 0)
            args = [
                self._time(), version, id_, *seen, verb, amount, status, memo, transition.state, transition.charged,
                transition.settled, transition.pending, " ".join(target.scopes), record.created if record else "",
                plan.start, plan.until, writer, target.amount,
            ]  # fmt: skip
            laid = self._script_arguments(target.scopes, plan)
            answer, *facts = yield Script("resolve", self._keys(id_, laid), args + laid.warns)
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
            record = structs.replace(record, created=now, expires=now)
        apply(record, verb, transition, amount, status, now)
        return record.told(verb, encoding.read_crossed(b",".join(names).decode()))

    def extend(self, id_: str, ttl: int) -> CommandFlow[Reservation]:
        """See ``Backend``."""
        record = self._record(
            (yield Script("extend", [self.key("open"), self.key(f"r:{id_}")], [self._time(), id_, ttl]))
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
            now = self._note_server_time((yield from self.ask_time()))
        # One by one, not in a script: ``rules`` decides each, as for every other verb.
        swept = 0
        for id_ in (yield from self.ask_due(int(now), limit)):
            self._recent.pop(id_, None)  # another process may have resolved it
            record = self._record((yield from self.ask_record(id_)))
            if record is not None and record.state == "pending":
                amount = record.charged_if_expired(charge=charge)
                # a replay: somebody else resolved it in the meantime
                swept += not (yield from self._resolve("expire", id_, record, amount, (), "unconfirmed", b"")).repeated
        return swept

    def read(self, scopes: tuple[str, ...] | None) -> CommandFlow[Snapshot]:
        """See ``Backend``."""
        booked: list[str] = []
        if scopes is None:
            accounts = yield from self.ask_accounts()
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
            answer, now, *sums = yield Script("read", keys, args)
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

    def key(self, name: str) -> str:
        """Return how the server calls something of this tenant."""
        raise NotImplementedError

    def ask_time(self) -> CommandFlow[int]:
        """Ask for the server's time, ms."""
        raise NotImplementedError

    def ask_record(self, id_: str) -> CommandFlow[Any]:
        """Ask for the fields of a reservation; empty for none."""
        raise NotImplementedError

    def ask_due(self, now: int, limit: int) -> CommandFlow[list[str]]:
        """Ask for the ids of pending reservations that have expired."""
        raise NotImplementedError

    def ask_accounts(self) -> CommandFlow[list[tuple[str, str]]]:
        """Ask for scope and window of every account that was booked in."""
        raise NotImplementedError

    def ask_budgets(self) -> CommandFlow[dict[bytes, bytes]]:
        """Ask for the budgets, with their version and their register."""
        raise NotImplementedError

    def _keys(self, id_: str, laid: _ScriptArguments) -> list[str]:
        return [*self._common_keys, self.key(f"r:{id_}"), *laid.keys]

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
