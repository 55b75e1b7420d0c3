"""Ledger of one process: dictionaries under one lock, gone when the process ends.

A reserve and a settle take a few microseconds: the scopes of a call are resolved once to the cells they are booked in,
and a reservation keeps its cells, so that settling is two additions per scope.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import count, islice
from weakref import WeakSet, WeakValueDictionary

from msgspec import Struct

from llm_cost_middleware.budget.backend import Snapshot
from llm_cost_middleware.budget.backends.memory.accounts import NEVER, Account, Cell, carried
from llm_cost_middleware.budget.backends.memory.budgets import MemoryBudgets
from llm_cost_middleware.budget.backends.memory.erasure import MemoryErasure
from llm_cost_middleware.budget.backends.memory.interrupted import MemoryInterruptions
from llm_cost_middleware.budget.backends.memory.journal import KEEP, MemoryJournal
from llm_cost_middleware.budget.backends.memory.leases import MemoryLeases
from llm_cost_middleware.budget.backends.memory.reductions import MemoryReductions
from llm_cost_middleware.budget.backends.memory.slices import MemorySlices
from llm_cost_middleware.budget.model import LIFETIME, Receipt, Reservation, Row, RowStatus, Verb, rolling_seconds
from llm_cost_middleware.budget.rules import (
    AccountPosting,
    AccountTotals,
    BudgetIndex,
    BudgetRefusal,
    Crossed,
    Pause,
    ReservationRecord,
    apply,
    check_replay,
    known_scopes,
    resolve,
)  # fmt: skip
from llm_cost_middleware.budget.rules.leases import ParcelEntry
from llm_cost_middleware.budget.tallies import written_memo
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LLMCostError, ReservationNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.money import NanoUSD

_CELLS = 128  # kept of an account: two rolling windows of 60 slots, so none that still counts is dropped


class _MemoryReservation(ReservationRecord, gc=False):
    """Record with the cells it is booked in, or with its refusal."""

    cells: tuple[Cell, ...] = ()
    slices: tuple[str, ...] = ()
    refusal: BudgetRefusal | None = None


class _PostingRoute(Struct, frozen=True):
    """Cells of some scopes while their windows last, and those among them that have a limit."""

    start: int
    until: int
    cells: tuple[Cell, ...]
    limits: tuple[tuple[Cell, int, AccountPosting], ...]
    paused: tuple[str, Pause] | None
    slices: tuple[str, ...]


class _SharedState:
    """State shared by all ledgers opened on one name."""

    lock = ForkSafeLock()

    def __init__(self) -> None:
        self.budget_index, self.register = BudgetIndex(), b""
        self.seq = count(1)
        self.open: dict[str, _MemoryReservation] = {}  # apart from `closed`: a sweep looks at these alone
        self.closed: dict[str, _MemoryReservation] = {}
        self.order: deque[str] = deque()  # of `closed`, oldest first
        # Tuples, not ``Row``: they are made on every call and rarely read.
        self.rows: deque[tuple[int, str, str, int, int, tuple[str, ...], str, int, bytes]] = deque(maxlen=KEEP)
        self.accounts: dict[tuple[str, str], Account] = {}
        self.stamps = count(1)  # of accounts, when the cells of a call are looked up
        self.routes: dict[tuple[str, ...], _PostingRoute] = {}
        self.journal = MemoryJournal()
        self.users: WeakSet[MemoryBackend] = WeakSet()


class _Registry:
    """Named states of this process. A name ends with its last ledger."""

    lock = ForkSafeLock()

    def __init__(self) -> None:
        self.states: WeakValueDictionary[str, _SharedState] = WeakValueDictionary()


_registry = _Registry()


class MemoryBackend(MemoryBudgets, MemoryErasure, MemoryInterruptions, MemoryLeases, MemoryReductions, MemorySlices):
    """``Backend`` in memory. All that a process opens on one name share one state, until the last is closed or gone."""

    blocks = False
    keeps_unwritten = True
    """A memo may come unwritten (``tallies.UnwrittenMemo``): it is written when its row is read."""

    def __init__(self, clock: Clock, state: _SharedState | None = None) -> None:
        state = state or _SharedState()
        self._state, self._now = state, clock.now
        state.users.add(self)
        self._look_again_at, self._account_limit = KEEP * 3 // 4, KEEP
        # bound once: these objects are shared for the life of the state; its lock is not, a fork renews it
        self._open, self._closed, self._routes = state.open, state.closed, state.routes
        self._rows, self._seq = state.rows, state.seq

    @classmethod
    def named(cls, name: str, clock: Clock) -> MemoryBackend:
        """Return a backend on the state of this name."""
        with _registry.lock:
            state = _registry.states.get(name)
            if state is None:
                state = _registry.states[name] = _SharedState()
            return cls(clock, state)

    @property
    def journal(self) -> MemoryJournal:
        """The journal; it keeps the last ``KEEP`` entries."""
        return self._state.journal

    def reserve(  # noqa: C901, PLR0912 - one atomic step, read in one place
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation:
        """See ``Backend``."""
        with self._state.lock:
            now = int(self._now() * 1000)  # in the lock: what was carried out of a window must not be taken in it
            if not fresh and (known := self._find(id_)) is not None:
                check_replay(known, amount, scopes)
                if known.refusal is not None:
                    raise known.refusal.error()
                return known.reservation()
            route = self._routes.get(scopes)
            if route is None or not route.start <= now < route.until:
                route = self._posting_route(scopes, now)
            if route.paused is not None:
                raise route.paused[1].error(route.paused[0])
            try:
                if route.slices:
                    self._draw(route.slices, amount)
                # Every limit is checked before anything is changed: all scopes or none.
                for cell, limit, posting in route.limits:
                    settled, pending = (
                        cell.account.counted(posting) if posting.rolling else (cell.settled, cell.pending)
                    )
                    if settled + pending + amount > limit:
                        from_before = carried(cell.account, posting)
                        if settled + pending + amount <= limit + from_before:
                            continue
                        refusal = BudgetRefusal.of(posting, settled, pending, amount, from_before)
                        self._set_right(route.slices, now)
                        if not fresh:
                            record = _MemoryReservation(id_, scopes, amount, now, now)
                            record.state, record.refusal = "refused", refusal
                            self._close(record)
                        raise refusal.error()  # noqa: TRY301 - among the checks of the step
                for cell in route.cells:
                    cell.pending += amount
                record = _MemoryReservation(id_, scopes, amount, now, now + ttl, cells=route.cells, slices=route.slices)
                self._open[id_] = record  # decides: from here on it is held
                self._rows.append((next(self._seq), "reserve", id_, now, amount, scopes, "reserved", now, memo))
                if route.slices:
                    self._drawn(route.slices, now, now + ttl)
            except LLMCostError:
                raise
            except BaseException:
                row = next(self._seq), "reserve", id_, now, amount, scopes, "reserved", now, memo
                self._finish_hold(id_, row, route.cells, route.slices)
                raise
        held = amount if type(amount) is NanoUSD else NanoUSD(amount)
        return Reservation(id_, held, scopes, now / 1000, (now + ttl) / 1000, "pending")

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: RowStatus, memo: bytes = b""
    ) -> Receipt:
        """See ``Backend``."""
        now = int(self._now() * 1000)
        with self._state.lock:
            record = self._open.get(id_) or self._state.closed.get(id_)
            if verb == "book":
                if record is not None:
                    check_replay(record, amount, scopes, booked=True)
                    return record.replay(verb)
                route = self._posting_route(scopes, now)
                record = _MemoryReservation(id_, scopes, 0, now, now, cells=route.cells, slices=route.slices)
                record.verb = "book"
            elif record is None:
                raise ReservationNotFoundError(id_)
            return self._resolve(record, verb, amount, status, now, memo)

    def _resolve(
        self, record: _MemoryReservation, verb: Verb, amount: int, status: RowStatus, now: int, memo: bytes
    ) -> Receipt:
        transition = resolve(record, verb, amount)
        if transition is None:
            return record.replay(verb)
        pending, settled = transition.pending, transition.settled
        row = next(self._seq), verb, record.id, now, amount, record.scopes, status, record.created, memo
        warn, done = False, None
        try:
            # The sums of a cell change in one statement, between whose parts no signal is handled.
            if pending:
                for cell in record.cells:
                    cell.pending, cell.settled = cell.pending + pending, cell.settled + settled
                    if cell.settled >= cell.account.warn_threshold:
                        warn = True
                del self._open[record.id]  # decides: from here on it is resolved
                self._close(record)
            else:
                for cell in record.cells:
                    cell.settled, done = cell.settled + settled, cell
                    if cell.settled >= cell.account.warn_threshold:
                        warn = True
                if record.state == "pending":  # a booking, or a hold of nothing
                    self._open.pop(record.id, None)
                    self._close(record)
            apply(record, verb, transition, amount, status, now)
            self._rows.append(row)
            if record.slices:
                self._set_right(record.slices, now)
        except BaseException:
            self._finish_resolution(record, transition, row, done)
            raise
        crossed = self._crossed(record, settled) if warn and verb not in {"void", "expire"} else {}
        return record.told(verb, crossed)

    def _crossed(self, record: _MemoryReservation, change: int) -> Crossed:
        crossed: Crossed = {}
        for posting in self._state.budget_index.posting_plan(record.scopes, record.created).postings:
            account = self._account(posting.scope, posting.window)
            settled = account.counted(posting)[0]
            if posting.warn is None or settled < posting.warn:
                continue
            first = account.warned < posting.first_cell
            if first:
                account.warned = posting.cell
            threshold = posting.crossed(settled, change, first=first)
            if threshold is not None:
                crossed[account.key] = threshold
        return crossed

    def extend(self, id_: str, ttl: int) -> Reservation:
        """See ``Backend``."""
        now = int(self._now() * 1000)
        with self._state.lock:
            record = self._find(id_)
            if record is None:
                raise ReservationNotFoundError(id_)
            record.extend(now + ttl)
            return record.reservation()

    def sweep(self, *, charge: bool, limit: int) -> int:
        """See ``Backend``."""
        now = int(self._now() * 1000)
        with self._state.lock:
            over = list(islice((record for record in self._open.values() if record.expires <= now), limit))
            for record in over:
                spent = record.charged_if_expired(charge=charge)
                self._resolve(record, "expire", spent, "unconfirmed", now, b"")
            for account in self._state.accounts.values():
                if len(account.cells) > _CELLS:
                    for index in sorted(account.cells)[:-_CELLS]:
                        del account.cells[index]
        return len(over)

    def read(self, scopes: tuple[str, ...] | None) -> Snapshot:
        """See ``Backend``."""
        now = int(self._now() * 1000)
        state = self._state
        with self._state.lock:
            if scopes is None:
                booked = (scope for scope, window in state.accounts if window == LIFETIME)
                scopes = known_scopes(state.budget_index, booked)
            totals = []
            for posting in state.budget_index.posting_plan(scopes, now).postings:
                account = state.accounts.get((posting.scope, posting.window))
                settled, pending = account.counted(posting) if account else (0, 0)
                from_before = carried(account, posting)
                totals.append(AccountTotals(posting.scope, posting.window, settled, pending, from_before))
            return Snapshot(state.budget_index, now, tuple(totals))

    def rows(self, since: int | None, scope: str | None) -> Iterator[Row]:
        """See ``Backend``. Only the last ``KEEP`` rows are there."""
        with self._state.lock:
            rows = list(self._rows)  # copied under the lock: the caller may read slowly
        for seq, kind, id_, at, amount, scopes, status, created, memo in rows:
            if (since is None or at >= since) and (scope is None or scope in scopes):
                text = written_memo(memo)
                yield Row(seq, kind, id_, at / 1000, NanoUSD(amount), scopes, status, created / 1000, text)  # type: ignore[arg-type]  # written by the verbs above

    def close(self) -> None:
        """See ``Backend``. The state of a name ends with its last ledger."""
        with _registry.lock:
            self._state.users.discard(self)
            if not self._state.users:
                for name in [name for name, state in _registry.states.items() if state is self._state]:
                    del _registry.states[name]

    @staticmethod
    def _entry(entry: ParcelEntry, cells: tuple[Cell, ...]) -> _MemoryReservation:
        held = 0 if entry.kind == "book" else entry.amount
        record = _MemoryReservation(entry.id, entry.scopes, held, entry.created, entry.expires, cells=cells)
        record.verb = "book" if entry.kind == "book" else "settle"
        return record

    def _find(self, id_: str) -> _MemoryReservation | None:
        return self._open.get(id_) or self._closed.get(id_)

    def _close(self, record: _MemoryReservation) -> None:
        state = self._state
        state.closed[record.id] = record
        state.order.append(record.id)
        if len(state.order) > KEEP:
            del state.closed[state.order.popleft()]

    def _account(self, scope: str, window: str) -> Account:
        key = scope, window
        account = self._state.accounts.get(key)
        if account is None:
            account = Account(key)
            self._set_warn_threshold(account)
            self._state.accounts[key] = account
        account.seen = next(self._state.stamps)
        return account

    def _forget_accounts(self) -> None:
        """Forget scopes with ever new names: of those without budget and open money, the ones not seen for longest."""
        state, index = self._state, self._state.budget_index
        idle = [
            key
            for key, account in state.accounts.items()
            if (index.passes(key[0]) or not index.for_scope(key[0]))
            and key[0] not in state.open  # a slice that is open
            and not any(cell.pending for cell in account.cells.values())
        ]
        idle.sort(key=lambda key: state.accounts[key].seen)
        state.routes.clear()  # they hold what is forgotten
        for key in idle[: max(len(state.accounts) - KEEP // 2, 0)]:
            del state.accounts[key]
        # Once more half-way, so that what is in use is seen. Where most have budgets, not at every call.
        self._look_again_at = max(KEEP * 3 // 4, len(state.accounts) * 9 // 8)
        self._account_limit = max(KEEP, len(state.accounts) * 5 // 4)

    def _set_warn_threshold(self, account: Account) -> None:
        """Set the sum that a settle compares one cell with; 0 for a rolling account, whose sum is in several cells."""
        budget = self._state.budget_index.for_scope(account.key[0]).get(account.key[1])
        warn = budget.warn_nanousd if budget else None
        account.warn_threshold = NEVER if warn is None else warn if rolling_seconds(account.key[1]) is None else 0

    def _posting_route(self, scopes: tuple[str, ...], now: int) -> _PostingRoute:
        if len(self._state.accounts) > self._look_again_at:
            self._routes.clear()
            self._look_again_at = NEVER
        if len(self._state.accounts) > self._account_limit:
            self._forget_accounts()
        plan = self._state.budget_index.posting_plan(scopes, now)
        cells = [self._account(posting.scope, posting.window).cell(posting.cell) for posting in plan.postings]
        limits = [
            (cell, posting.limit, posting)
            for cell, posting in zip(cells, plan.postings, strict=True)
            if posting.limit is not None
        ]
        if len(self._routes) > KEEP:  # scopes with ever new names must not fill the memory
            self._routes.clear()
        route = self._routes[scopes] = _PostingRoute(
            plan.start, plan.until, tuple(cells), tuple(limits), plan.paused, plan.slices
        )
        return route
