"""The desk of a process: admits calls from its blocks, and keeps what is to be shipped.

No verb here waits for I/O but the write of a line to the journal.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from math import inf
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from llm_cost_middleware.budget.backend import Snapshot
from llm_cost_middleware.budget.leases.block import Block, LocalHold
from llm_cost_middleware.budget.leases.journal import (
    LeaseJournal,
    entry_line,
    hold_line,
    line_of,
    scopes_text,
    settle_line,
)
from llm_cost_middleware.budget.model import GLOBAL, Receipt, Reduction, Reservation, RowStatus, Verb
from llm_cost_middleware.budget.rules import (
    BudgetIndex,
    Crossed,
    PostingPlan,
    ReservationRecord,
    apply,
    apply_reduction,
    check_replay,
    reduction,
    resolve,
)
from llm_cost_middleware.budget.rules.leases import LeasePolicy, ParcelEntry, Usage, is_lease
from llm_cost_middleware.budget.rules.slices import slice_budget
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.money import NanoUSD

T = TypeVar("T")
_REMEMBERED = 20_000
"""Ids that are over, or went to the storage: asked for again, they get the same answer."""


class _Route(NamedTuple):
    """A combination of scopes: what it is planned as, and from the blocks of which scopes its calls are paid."""

    plan: PostingPlan
    scopes: tuple[str, ...]
    written: str
    """All of the combination, as a line of the journal has them."""


class Desk:
    """State of one process. Safe to share between threads.

    Args:
        clock: Time; ``None``: of the storage, as its replies tell it.
        monotonic: Seconds that never go back.
        policy: How blocks are sized.
        journal: Where everything is written down first; ``None``: nowhere, for tests.
    """

    _lock = ForkSafeLock()

    def __init__(
        self,
        clock: Clock | None,
        monotonic: Callable[[], float],
        policy: LeasePolicy,
        journal: LeaseJournal | None,
    ) -> None:
        self._clock, self._monotonic, self._policy, self.journal = clock, monotonic, policy, journal
        self.hurry: Callable[[], None] = lambda: None
        self._ahead_ms = 0
        self.index: BudgetIndex | None = None
        self.blocks: dict[str, Block] = {}
        self.ending: list[Block] = []
        """Of other windows, or lost: they end when their calls have."""
        self.usage: dict[str, Usage] = {}
        self.left: dict[str, int] = {}
        """What any process could still take of a scope with a limit, when it was looked at last."""
        self.open: dict[str, LocalHold] = {}
        self.due: OrderedDict[str, tuple[ParcelEntry, tuple[Block, ...]]] = OrderedDict()
        self._over: OrderedDict[str, ReservationRecord] = OrderedDict()
        self._direct: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._routes: dict[tuple[str, ...], _Route] = {}
        self._crossed: Crossed = {}
        self.closed = self.missing = False
        self.admitted = 0
        """Calls that were admitted in memory."""

    # --- time ------------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The time of the storage, ms, as far as this process knows it."""
        if self._clock is not None:
            return int(self._clock.now() * 1000)
        return int(self._monotonic() * 1000) + self._ahead_ms

    def note_time(self, storage_ms: int) -> None:
        """The storage says what time it is."""
        self._ahead_ms = storage_ms - int(self._monotonic() * 1000)

    def go_by(self, index: BudgetIndex | None) -> None:
        """Admit by these budgets from now on; ``None``: nothing, until the storage is looked at again."""
        with self._lock:
            self.index = index

    # --- verbs of calls; ``None``: it is the storage's ----------------------------------------------------------------

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation | None:
        """Admit a call, if every scope of its that needs one has a block with room."""
        with self._lock:
            if not fresh and (known := self._known(id_)) is not None:
                check_replay(known, amount, scopes)
                return known.reservation()
            if self.index is None:
                self.hurry()
                return None
            if self.closed or (not fresh and (is_lease(id_) or slice_budget(id_) is not None)):
                return None
            now, moment = self.now_ms(), self._monotonic()
            route = self._route(scopes, now)
            if not fresh and id_ in self._direct:
                return None
            blocks = []
            if route.plan.paused is None and not route.plan.slices:
                blocks = self._blocks_for(amount, route.scopes, now, moment)
            if len(blocks) < len(route.scopes):
                self.missing = True
                self.hurry()
                return None
            record = ReservationRecord(id_, scopes, amount, now, now + ttl)
            if not self.write(hold_line(id_, route.written, amount, now, now + ttl, memo)):
                return None
            for block in blocks:
                block.free -= amount
                block.open += amount
            self.open[id_] = LocalHold(record, tuple(blocks), memo)
            self.admitted += 1
            return record.reservation()

    def goes_direct(self, id_: str, scopes: tuple[str, ...]) -> None:
        """A call goes to the storage: whatever is asked of its id does, too."""
        with self._lock:
            self._went(id_, scopes)

    def resolve(self, verb: Verb, id_: str, amount: int, status: RowStatus, memo: bytes) -> Receipt | None:
        """Settle or void a call that was admitted here."""
        with self._lock:
            hold = self.open.get(id_)
            if hold is None:
                over = self._over.get(id_)
                if over is None or verb not in {"settle", "void"}:
                    if over is None and verb == "settle":
                        for scope in self._direct.get(id_, ()):
                            self._pay(scope, amount)
                    return None
                resolve(over, verb, amount)  # raises where it was resolved otherwise
                return over.replay(verb)
            record = hold.record
            if verb not in {"settle", "void"}:
                resolve(record, verb, amount)  # raises: it is pending
                return None
            transition = resolve(record, verb, amount)
            assert transition is not None  # noqa: S101 - it is pending; for mypy
            now = self.now_ms()
            spent = transition.settled
            if verb == "void":
                self.write(line_of("V", id_))
            else:
                self.write(settle_line(id_, amount, status, memo))
                facts = record.scopes, spent, record.created, record.created, status, memo or hold.memo
                self.due[id_] = ParcelEntry("book", id_, *facts), hold.blocks
            for block in hold.blocks:
                block.open -= record.amount
                block.free += record.amount - spent
                block.due += spent
                self._pay(block.scope, spent)
            del self.open[id_]
            apply(record, verb, transition, amount, status, now)
            self._remember(self._over, id_, record)
            crossed, self._crossed = (self._crossed, {}) if verb == "settle" else ({}, self._crossed)
            return record.told(verb, crossed)

    def book(self, id_: str, amount: int, scopes: tuple[str, ...]) -> None:
        """A booking goes to the storage, unless its id is that of a call here: then it raises as a conflict."""
        with self._lock:
            known = self._known(id_)
            if known is not None:
                check_replay(known, amount, scopes, booked=True)
            self._went(id_, ())

    def extend(self, id_: str, ttl: int) -> Reservation | None:
        """Let a call go on for longer."""
        with self._lock:
            known = self.open.get(id_)
            record = known.record if known is not None else self._over.get(id_)
            if record is None:
                return None
            record.extend(self.now_ms() + ttl)
            return record.reservation()

    def reduce(self, id_: str, amount: int) -> Reduction | None:
        """Give back a part of what a call holds."""
        with self._lock:
            hold = self.open.get(id_)
            if hold is None:
                over = self._over.get(id_)
                return None if over is None else reduction(over, id_, amount)
            made = reduction(hold.record, id_, amount)
            released = int(made.released_nanousd)
            if released:
                self.write(line_of("H", id_, int(made.amount_nanousd)))
                apply_reduction(hold.record, made)
                for block in hold.blocks:
                    block.open -= released
                    block.free += released
            return made

    # --- what is shipped -------------------------------------------------------------------------------------------

    def hand_over(self, which: Callable[[LocalHold], bool]) -> None:
        """Let the next parcels make holds at the storage of calls that are under way here."""
        with self._lock:
            for id_, hold in list(self.open.items()):
                if which(hold):
                    record = hold.record
                    facts = record.scopes, record.amount, record.created, record.expires, "reserved", hold.memo
                    self.due[id_] = ParcelEntry("reserve", id_, *facts), hold.blocks  # type: ignore[arg-type]  # a status
                    for block in hold.blocks:
                        block.open -= record.amount
                        block.due += record.amount
                    del self.open[id_]
                    self._went(id_, ())

    def correct_voided(self, id_: str) -> None:
        """Let the next parcel tell the storage of a call that was voided here, because it is to be corrected."""
        with self._lock:
            record = self._over.get(id_)
            if record is not None and record.state == "voided":
                del self._over[id_]
                facts = record.scopes, 0, record.created, record.created, "exact", b""
                self.due[id_] = ParcelEntry("book", id_, *facts), ()  # type: ignore[arg-type]  # a status

    def holds_back(self, id_: str) -> bool:
        """Whether the storage does not know yet what this process knows of an id."""
        return id_ in self.due

    def stands_in_the_way(self, scopes: tuple[str, ...], amount: int, *, always: bool = False) -> bool:
        """Whether what this process holds unused may be why the storage refuses a call: of scopes with a limit."""
        with self._lock:
            mine = [block for scope in scopes if (block := self.blocks.get(scope)) is not None and block.free > 0]
            return bool(mine) and (always or any(self.left.get(block.scope, inf) < 16 * amount for block in mine))

    def warned(self, id_: str, receipt: Receipt) -> Receipt:
        """Return a receipt with the thresholds that the last parcel crossed."""
        with self._lock:
            crossed, self._crossed = self._crossed, {}
            record = self._over.get(id_)
            if not crossed:
                return receipt
            if record is not None and not receipt.repeated:
                record.warnings, record.thresholds = tuple(crossed), tuple(crossed.values())
        return replace(receipt, warnings=tuple(crossed), thresholds=tuple(map(NanoUSD, crossed.values())))

    @property
    def tight(self) -> bool:
        """Whether calls are under way from blocks that end: others wait for what they do not need."""
        return any(block.open or block.free > 0 for block in list(self.ending))

    @property
    def busy(self) -> bool:
        """Whether there is anything to keep."""
        return bool(self.blocks or self.ending or self.open or self.due)

    def all_blocks(self) -> Iterator[Block]:
        """Every block, under the lock."""
        yield from self.blocks.values()
        yield from self.ending

    def note_crossed(self, crossed: Crossed) -> None:
        """Thresholds that a parcel crossed, for the next receipt."""
        if crossed:
            with self._lock:
                self._crossed |= crossed

    def journal_lines(self) -> Iterator[bytes]:
        """What a new journal must say, under the lock."""
        for block in self.all_blocks():
            yield line_of("L", block.id)
        for id_, hold in self.open.items():
            record = hold.record
            scopes = scopes_text(record.scopes)
            yield hold_line(id_, scopes, record.amount, record.created, record.expires, hold.memo)
        for entry, _ in self.due.values():
            yield entry_line(entry)

    def forget(self) -> None:
        """After a fork: all of this is the parent's."""
        self.blocks, self.open, self.usage = {}, {}, {}
        self.ending, self.due = [], OrderedDict()
        self._over, self._direct, self._crossed = OrderedDict(), OrderedDict(), {}
        self.index = None
        if self.journal is not None:
            self.journal.forget()

    # --- what this process sees ------------------------------------------------------------------------------------

    def seen(self, found: Snapshot) -> Snapshot:
        """Return sums of the storage as this process knows them: its free blocks are left to it, its calls counted."""
        changes: dict[tuple[str, str], list[int]] = {}
        listed = {account.scope for account in found.totals}
        with self._lock:
            moves: list[tuple[tuple[str, ...], int, int, int]]
            moves = [((block.scope,), block.created, 0, -block.held) for block in self.all_blocks()]
            records = [hold.record for hold in self.open.values()]
            moves += [(record.scopes, record.created, 0, record.amount) for record in records]
            moves += [(entry.scopes, entry.created, entry.settled, entry.pending) for entry, _ in self.due.values()]
        if not moves:
            return found
        index, now = found.budget_index, found.now
        for scopes, created, settled, pending in moves:
            counted = {
                (posting.scope, posting.window): posting
                for posting in index.posting_plan(tuple(scope for scope in scopes if scope in listed), now).postings
            }
            for posting in index.posting_plan(scopes, created).postings:
                current = counted.get((posting.scope, posting.window))
                if current is not None and current.first_cell <= posting.cell:
                    sums = changes.setdefault((posting.scope, posting.window), [0, 0])
                    sums[0] += settled
                    sums[1] += pending
        totals = []
        for account in found.totals:
            settled, pending = changes.get((account.scope, account.window), (0, 0))
            totals.append(account._replace(settled=account.settled + settled, pending=account.pending + pending))
        return found._replace(totals=tuple(totals))

    # --- parts -----------------------------------------------------------------------------------------------------

    def _route(self, scopes: tuple[str, ...], now: int) -> _Route:
        assert self.index is not None  # noqa: S101 - whoever calls it has looked; for mypy
        plan = self.index.posting_plan(scopes, now)
        route = self._routes.get(scopes)
        if route is None or route.plan is not plan:
            if len(self._routes) > _REMEMBERED:
                self._routes.clear()
            # ``global`` always: so that what a lost disk takes along was held somewhere.
            paying = tuple(scope for scope in scopes if scope == GLOBAL or self.index.for_scope(scope))
            route = self._routes[scopes] = _Route(plan, paying, scopes_text(scopes))
        return route

    def _blocks_for(self, amount: int, scopes: tuple[str, ...], now: int, moment: float) -> list[Block]:
        """The blocks of these scopes that have room for a call, and note that it came."""
        blocks = []
        for scope in scopes:
            usage = self.usage.get(scope) or self.usage.setdefault(scope, Usage(moment))
            usage.take(amount, moment)
            block = self.blocks.get(scope)
            if block is None or block.free < max(amount, 1) or moment >= block.alive_until:
                continue
            if block.created <= now < min(block.until, block.expires):
                blocks.append(block)
        return blocks

    def _pay(self, scope: str, amount: int) -> None:
        usage = self.usage.get(scope)
        if usage is not None:
            usage.pay(amount)

    def _known(self, id_: str) -> ReservationRecord | None:
        hold = self.open.get(id_)
        return hold.record if hold is not None else self._over.get(id_)

    def _went(self, id_: str, scopes: tuple[str, ...]) -> None:
        self._over.pop(id_, None)
        self._remember(self._direct, id_, scopes)

    @staticmethod
    def _remember(where: OrderedDict[str, T], id_: str, what: T) -> None:
        where[id_] = what
        if len(where) > _REMEMBERED:
            where.popitem(last=False)

    def write(self, line: bytes) -> bool:
        """Write a line to the journal; return whether it is there. Without it a hold expires and is charged."""
        if self.journal is not None:
            try:
                self.journal.add(line)
            except OSError:
                return False
        return True
