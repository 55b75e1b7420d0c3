"""The ledger of one process: dictionaries under one lock. Forgets when the process ends.

The hot path is a reserve and a settle in a few microseconds: the scopes of a call are resolved once to the cells they
are booked in, and a reservation keeps its cells, so that settling is two additions a scope.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import NamedTuple
from weakref import WeakSet, WeakValueDictionary

from llm_cost_middleware.budget.backend import Mark, Snapshot
from llm_cost_middleware.budget.model import LIFETIME, Budget, Receipt, Reservation, Row, Status, Verb, rolling_seconds
from llm_cost_middleware.budget.rules import (
    Book,
    Charge,
    Figures,
    Record,
    Refusal,
    apply,
    as_nanousd,
    check_replay,
    covers,
    known_scopes,
    locate,
    resolve,
)
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ReservationNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.money import NanoUSD

KEEP = 100_000
"""How many rows, journal lines and resolved ids a ledger in memory remembers. Sums are never forgotten."""

_CELLS = 128  # of an account: two rolling windows; older stretches of time are over
_NEVER = 2**63


class _Cell:
    """The sums of one account in one stretch of time."""

    __slots__ = ("account", "index", "pending", "settled")

    def __init__(self, account: _Account, index: int) -> None:
        self.account, self.index = account, index
        self.settled = self.pending = 0


class _Account:
    """One scope in one window: its cells, from what sum on a settle must look for a warning, where it last warned."""

    __slots__ = ("cells", "key", "look", "warned")

    def __init__(self, key: tuple[str, str]) -> None:
        self.key, self.look, self.warned = key, _NEVER, -1
        self.cells: dict[int, _Cell] = {}

    def cell(self, index: int) -> _Cell:
        return self.cells.get(index) or self.cells.setdefault(index, _Cell(self, index))

    def counted(self, charge: Charge) -> tuple[int, int]:
        """Settled and pending in the window of a charge."""
        if not charge.rolling:
            cell = self.cells.get(charge.cell)
            return (cell.settled, cell.pending) if cell else (0, 0)
        counted = [cell for index, cell in self.cells.items() if index >= charge.lo]
        return sum(cell.settled for cell in counted), sum(cell.pending for cell in counted)


@dataclass(slots=True)
class _Held(Record):
    """A record with the cells it is booked in, or with the refusal it met."""

    cells: tuple[_Cell, ...] = ()
    refusal: Refusal | None = None


class _Route(NamedTuple):
    """The cells of some scopes while their windows last, and which of them have a limit."""

    start: int
    until: int
    cells: tuple[_Cell, ...]
    limits: tuple[tuple[_Cell, int, Charge], ...]


class _State:
    """What all ledgers opened on one name share."""

    lock = ForkSafeLock()

    def __init__(self) -> None:
        self.book = Book()
        self.seq = count(1)
        self.open: dict[str, _Held] = {}
        self.closed: dict[str, _Held] = {}
        self.order: deque[str] = deque()  # of `closed`, oldest first
        self.rows: deque[tuple[int, str, str, int, int, tuple[str, ...], str, int, bytes]] = deque(maxlen=KEEP)
        self.accounts: dict[tuple[str, str], _Account] = {}
        self.routes: dict[tuple[str, ...], _Route] = {}
        self.journal = MemoryJournal()
        self.users: WeakSet[MemoryBackend] = WeakSet()


class _Registry:
    """The named states of this process, each while a ledger uses it."""

    lock = ForkSafeLock()

    def __init__(self) -> None:
        self.states: WeakValueDictionary[str, _State] = WeakValueDictionary()


_registry = _Registry()


class MemoryBackend:
    """``Backend`` in memory. Those opened on one name in one process share one state, while any of them lives."""

    def __init__(self, clock: Clock, state: _State | None = None) -> None:
        state = state or _State()
        self._state, self._now = state, clock.now
        state.users.add(self)
        # bound once: these objects are shared for the life of the state; its lock is not, a fork renews it
        self._open, self._routes, self._rows, self._seq = state.open, state.routes, state.rows, state.seq

    @classmethod
    def named(cls, name: str, clock: Clock) -> MemoryBackend:
        """A backend on the state of this name."""
        with _registry.lock:
            state = _registry.states.get(name)
            if state is None:
                state = _registry.states[name] = _State()
            return cls(clock, state)

    @property
    def journal(self) -> MemoryJournal:
        """Bounded: it keeps the last ``KEEP`` lines."""
        return self._state.journal

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation:
        """See ``Backend``."""
        now = int(self._now() * 1000)
        with self._state.lock:
            if not fresh and (known := self._find(id_)) is not None:
                check_replay(known, amount, scopes)
                if known.refusal is not None:
                    raise known.refusal.error()
                return known.reservation()
            route = self._routes.get(scopes)
            if route is None or not route.start <= now < route.until:
                route = self._route(scopes, now)
            for cell, limit, charge in route.limits:
                settled, pending = cell.account.counted(charge) if charge.rolling else (cell.settled, cell.pending)
                if settled + pending + amount > limit:
                    refusal = Refusal(charge.scope, charge.window, limit, settled, pending, amount, charge.resets)
                    if not fresh:
                        self._close(_Held(id_, scopes, amount, now, now, "refused", refusal=refusal))
                    raise refusal.error()
            for cell in route.cells:
                cell.pending += amount
            self._open[id_] = _Held(id_, scopes, amount, now, now + ttl, cells=route.cells)
            self._rows.append((next(self._seq), "reserve", id_, now, amount, scopes, "reserved", now, memo))
        return Reservation(id_, as_nanousd(amount), scopes, now / 1000, (now + ttl) / 1000, "pending")

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: Status, memo: bytes = b""
    ) -> Receipt:
        """See ``Backend``."""
        now = int(self._now() * 1000)
        with self._state.lock:
            record = self._open.get(id_) or self._state.closed.get(id_)
            if verb == "book":
                if record is not None:
                    check_replay(record, amount, scopes, booked=True)
                    return record.replay(verb)
                record = _Held(id_, scopes, 0, now, now, verb="book", cells=self._route(scopes, now).cells)
                self._open[id_] = record
            elif record is None:
                raise ReservationNotFoundError(id_)
            return self._resolve(record, verb, amount, status, now, memo)

    def _resolve(self, record: _Held, verb: Verb, amount: int, status: Status, now: int, memo: bytes) -> Receipt:
        move = resolve(record, verb, amount)
        if move is None:
            return record.replay(verb)
        pending, settled = move.pending, move.settled
        warn = False
        for cell in record.cells:
            cell.pending += pending
            cell.settled += settled
            warn |= cell.settled >= cell.account.look
        if record.state == "pending":
            del self._open[record.id]
            self._close(record)
        apply(record, verb, move, amount, status, now)
        self._rows.append((next(self._seq), verb, record.id, now, amount, record.scopes, status, record.created, memo))
        warnings = self._warnings(record) if warn and verb not in {"void", "lapse"} else ()
        if verb == "reconcile":
            return record.correction()._replace(warnings=warnings)
        record.warnings = warnings
        return record.receipt()

    def _warnings(self, record: _Held) -> tuple[tuple[str, str], ...]:
        crossed = []
        for charge in self._state.book.plan(record.scopes, record.created).charges:
            account = self._account(charge.scope, charge.window)
            if charge.warn is not None and account.warned < charge.lo and account.counted(charge)[0] >= charge.warn:
                account.warned = charge.cell
                crossed.append(account.key)
        return tuple(crossed)

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
            over = list(islice((held for held in self._open.values() if held.expires <= now), limit))
            for held in over:
                self._resolve(held, "lapse", held.amount if charge else 0, "unconfirmed", now, b"")
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
                scopes = known_scopes(state.book, (scope for scope, window in state.accounts if window == LIFETIME))
            figures = []
            for charge in state.book.plan(scopes, now).charges:
                account = state.accounts.get((charge.scope, charge.window))
                settled, pending = account.counted(charge) if account else (0, 0)
                figures.append(Figures(charge.scope, charge.window, settled, pending))
            return Snapshot(state.book, now, tuple(figures))

    def rows(self, since: int | None, scope: str | None) -> Iterator[Row]:
        """See ``Backend``. Of the last ``KEEP``."""
        with self._state.lock:
            rows = list(self._rows)
        for seq, kind, id_, at, amount, scopes, status, created, memo in rows:
            if (since is None or at >= since) and (scope is None or scope in scopes):
                yield Row(seq, kind, id_, at / 1000, NanoUSD(amount), scopes, status, created / 1000, memo)  # type: ignore[arg-type]  # written by the verbs above

    def set_budget(self, budget: Budget) -> None:
        """See ``Backend``. What was booked is known for the last ``KEEP`` resolved ids."""
        with self._state.lock:
            budgets = {known.key: known for known in self._state.book.budgets}
            before = budgets.get(budget.key)
            budgets[budget.key] = budget
            self._rebind(budgets.values(), None if before and before.timezone == budget.timezone else budget.key)

    def remove_budget(self, scope: str, window: str) -> bool:
        """See ``Backend``."""
        with self._state.lock:
            budgets = {known.key: known for known in self._state.book.budgets}
            found = budgets.pop((scope, window), None)
            if found is not None:
                self._rebind(budgets.values(), found.key)
        return found is not None

    def close(self) -> None:
        """Let go of the name; the state ends with its last ledger."""
        with _registry.lock:
            self._state.users.discard(self)
            if not self._state.users:
                for name in [name for name, state in _registry.states.items() if state is self._state]:
                    del _registry.states[name]

    def _find(self, id_: str) -> _Held | None:
        return self._open.get(id_) or self._state.closed.get(id_)

    def _close(self, record: _Held) -> None:
        state = self._state
        state.closed[record.id] = record
        state.order.append(record.id)
        if len(state.order) > KEEP:
            del state.closed[state.order.popleft()]

    def _account(self, scope: str, window: str) -> _Account:
        key = scope, window
        account = self._state.accounts.get(key)
        if account is None:
            account = self._state.accounts[key] = _Account(key)
            self._tune(account)
        return account

    def _tune(self, account: _Account) -> None:
        """A rolling account always looks, because its sum stands in several cells."""
        budget = self._state.book.of(account.key[0]).get(account.key[1])
        warn = budget.warn_nanousd if budget else None
        account.look = _NEVER if warn is None else warn if rolling_seconds(account.key[1]) is None else 0

    def _route(self, scopes: tuple[str, ...], now: int) -> _Route:
        plan = self._state.book.plan(scopes, now)
        cells = [self._account(charge.scope, charge.window).cell(charge.cell) for charge in plan.charges]
        limits = [
            (cell, charge.limit, charge)
            for cell, charge in zip(cells, plan.charges, strict=True)
            if charge.limit is not None
        ]
        if len(self._routes) > KEEP:
            self._routes.clear()
        route = self._routes[scopes] = _Route(plan.start, plan.until, tuple(cells), tuple(limits))
        return route

    def _rebind(self, budgets: Iterable[Budget], changed: tuple[str, str] | None) -> None:
        """Put a new book in force; where a window is new or gone, book anew what was booked under it."""
        state = self._state
        state.book = Book(budgets)
        state.routes.clear()
        if changed is not None and changed[1] != LIFETIME:
            self._refill(*changed)
        for account in state.accounts.values():
            self._tune(account)

    def _refill(self, pattern: str, window: str) -> None:
        accounts, book = self._state.accounts, self._state.book
        stale = {key: accounts.pop(key) for key in list(accounts) if key[1] == window and covers(pattern, key[0])}
        for record in (*self._open.values(), *self._state.closed.values()):
            if record.refusal is not None:
                continue
            cells = [cell for cell in record.cells if cell.account.key not in stale]
            for scope in record.scopes:
                budget = book.of(scope).get(window) if covers(pattern, scope) else None
                if budget is not None:
                    cell = self._account(scope, window).cell(locate(window, budget.timezone, record.created).cell)
                    cell.settled += record.charged
                    cell.pending += record.amount if record.state == "pending" else 0
                    cells.append(cell)
            record.cells = tuple(cells)
        for key, account in stale.items():
            if key in accounts:
                accounts[key].warned = account.warned


class MemoryJournal:
    """``Journal`` in memory: the last ``KEEP`` lines."""

    _lock = ForkSafeLock()

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque(maxlen=KEEP)

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        """See ``Journal``."""
        with self._lock:
            self._marks.append(Mark(kind, id_, at, data))

    def read(self, kind: str, since: float | None = None) -> Iterator[Mark]:
        """See ``Journal``."""
        with self._lock:
            marks = list(self._marks)
        return (mark for mark in marks if mark.kind == kind and (since is None or mark.at >= since))
