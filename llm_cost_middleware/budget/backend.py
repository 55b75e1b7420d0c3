"""Contract of a storage: six verbs over money, two over budgets. Each optional ability is a Protocol of its own.

Arguments are checked and canonical (the façade does that): amounts are integer nano-dollars up to ``MAX_NANOUSD``,
scopes come from ``parse_scopes``, times are milliseconds. Every verb is one atomic step, durable when it returns, and
may be sent twice: the id makes the second a no-op with the same result. A storage that does not answer or cannot be
written raises ``LedgerUnavailableError`` with nothing half-written. To prove a new one, subclass
``llm_cost_middleware.testing.LedgerBackendTests``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar, runtime_checkable

from llm_cost_middleware.budget.model import Budget, Receipt, Reduction, Reservation, Row, RowStatus, Verb
from llm_cost_middleware.budget.rules import AccountTotals, Amended, BudgetIndex, MemoAggregator
from llm_cost_middleware.budget.rules.bookings import Booking, BookingSums
from llm_cost_middleware.budget.rules.overview import RowCount
from llm_cost_middleware.money import NanoUSD

P = ParamSpec("P")
T = TypeVar("T")


class Snapshot(NamedTuple):
    """Sums of some accounts at one moment (``now``, ms), and the budgets of the ledger."""

    budget_index: BudgetIndex
    now: int
    totals: tuple[AccountTotals, ...]


class JournalEntry(NamedTuple):
    """Entry of a journal. ``at`` is seconds since the Unix epoch; ``data`` is opaque."""

    kind: str
    id: str
    at: float
    data: bytes


class Backend(Protocol):
    """Storage of a ledger, called from any thread."""

    @property
    def blocks(self) -> bool:
        """True if a verb may wait for a disk or a network; false if it lives and ends in this process' memory."""
        ...

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation:
        """Hold ``amount`` in every account of the scopes, or in none (authorize).

        Args:
            id_: A known id is replayed (``rules.check_replay``); one that was refused is refused again, alike.
            amount: Nano-dollars.
            scopes: Canonical, ``global`` first.
            ttl: Time until it expires, ms.
            memo: Opaque; kept with the row.
            fresh: The id was made for this call and nobody else knows it: a refusal need not be stored.

        Raises:
            BudgetExceededError: Made by ``rules.BudgetRefusal``, of the first account without room.
            ReservationConflictError: The id was used for something else.
        """
        ...

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: RowStatus, memo: bytes = b""
    ) -> Receipt:
        """Settle, void or reconcile as ``rules.resolve`` decides; ``book`` reserves and settles at once, past limits.

        A resolution that was made before changes nothing: its receipt is ``repeated``.

        Raises:
            ReservationNotFoundError: The id is unknown (never for ``book``).
            ReservationConflictError: It was resolved otherwise.
        """
        ...

    def extend(self, id_: str, ttl: int) -> Reservation:
        """Let a pending reservation expire ``ttl`` ms from now, never earlier than before. Raises as ``resolve``."""
        ...

    def sweep(self, *, charge: bool, limit: int) -> int:
        """Expire at most ``limit`` pending reservations that are due, charged in full or released; return how many."""
        ...

    def read(self, scopes: tuple[str, ...] | None) -> Snapshot:
        """Return the sums of these scopes (``None``: of every scope booked or budgeted), all at one moment."""
        ...

    def rows(self, since: int | None, scope: str | None) -> Iterator[Row]:
        """Stream the rows in the order they were written, from ``since`` (ms) on, of one scope or of all."""
        ...

    def set_budget(self, budget: Budget) -> None:
        """Set a budget. What its window already holds counts (``rules.rebuild_totals``)."""
        ...

    def remove_budget(self, scope: str, window: str) -> bool:
        """Remove a budget; return whether there was one. What was booked stays booked."""
        ...

    def close(self) -> None:
        """Close files and sockets. Idempotent."""
        ...


class AsyncBackend(Protocol):
    """``Backend`` for one event loop; its docstrings hold."""

    async def reserve(  # noqa: D102 - here and below: Backend says it
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation: ...

    async def resolve(  # noqa: D102
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: RowStatus, memo: bytes = b""
    ) -> Receipt: ...

    async def extend(self, id_: str, ttl: int) -> Reservation: ...  # noqa: D102

    async def sweep(self, *, charge: bool, limit: int) -> int: ...  # noqa: D102

    async def read(self, scopes: tuple[str, ...] | None) -> Snapshot: ...  # noqa: D102

    def rows(self, since: int | None, scope: str | None) -> AsyncIterator[Row]: ...  # noqa: D102

    async def set_budget(self, budget: Budget) -> None: ...  # noqa: D102

    async def remove_budget(self, scope: str, window: str) -> bool: ...  # noqa: D102

    async def close(self) -> None: ...  # noqa: D102


@runtime_checkable
class Journal(Protocol):
    """Log of small records besides money: decisions, outcomes, fingerprints."""

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        """Append an entry; ``at`` is seconds since the Unix epoch."""
        ...

    def read(self, kind: str, since: float | None = None) -> Iterator[JournalEntry]:
        """Stream the entries of a kind in the order they were appended, from ``since`` on."""
        ...


@runtime_checkable
class SupportsJournal(Protocol):
    """Ability of a backend to keep a journal."""

    @property
    def journal(self) -> Journal:
        """Journal of this ledger."""
        ...


class SharedState(Protocol):
    """Small values by key, besides money, that all processes of a ledger share.

    A cache, no record: what was not changed for longest goes first, and a change that meets another one may be lost.
    """

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of some keys; ``None`` where there is none."""
        ...

    def change(self, keys: Sequence[str], to: Callable[[list[bytes | None]], Sequence[bytes]], at: float) -> None:
        """Replace the values of some keys by what ``to`` makes of them; ``at`` is seconds since the Unix epoch."""
        ...


@runtime_checkable
class SupportsSharedState(Protocol):
    """Ability of a backend to share small values between processes."""

    @property
    def shared_state(self) -> SharedState:
        """Shared values of this ledger."""
        ...


BudgetStep = Callable[[bytes, tuple[Budget, ...], int], Amended | None]
"""Decides, from the document, the budgets in force and the time (ms), what is to be written; ``None``: nothing."""


@runtime_checkable
class SupportsRegister(Protocol):
    """Ability of a backend to keep the register of budgets (``rules.register``), and to heed what it pauses."""

    def amend(self, decide: BudgetStep) -> None:
        """Read, decide and write in one atomic step, which every process heeds from its next reserve on.

        ``decide`` may be called again where another process came first.
        """
        ...

    def register(self) -> bytes:
        """Return the document; empty where nothing was decided yet."""
        ...


@runtime_checkable
class SupportsBookings(Protocol):
    """Ability of a backend to read what ids finally cost without streaming every row (``rules.bookings`` does that)."""

    def bookings(self, since: int | None, until: int | None, sums: BookingSums) -> Iterator[Booking]:
        """Stream what ids cost that were reserved from ``since`` to before ``until`` (ms), as finely as asked."""
        ...


@runtime_checkable
class SupportsAsync(Protocol):
    """Ability of a backend to serve event loops without threads."""

    def asynchronous(self) -> AsyncBackend:
        """Make a client of the same storage for one event loop."""
        ...


@runtime_checkable
class SupportsReduction(Protocol):
    """Ability of a backend to give back a part of what is held, before it is known what was spent."""

    def reduce(self, amounts: Sequence[tuple[str, int]]) -> tuple[Reduction, ...]:
        """Reduce pending reservations to less, as ``rules.reduction`` decides.

        Args:
            amounts: Id and nano-dollars to hold from now on. Each is one atomic step; a storage may do all in one.
        """
        ...


@runtime_checkable
class SupportsOverview(Protocol):
    """Ability of a backend to add its rows up without streaming every one (``rules.overview`` does that)."""

    def count_rows(self) -> list[RowCount]:
        """Count the rows by kind and status, sorted by them."""
        ...

    def unsure_rows(self) -> Iterator[Row]:
        """Stream the last rows, without memos, of attempts whose cost may still be corrected."""
        ...


@runtime_checkable
class SupportsBackup(Protocol):
    """Ability of a backend to copy itself to a file."""

    def back_up(self, to: Path) -> None:
        """Write a copy, whole or not at all."""
        ...


class Erasure(NamedTuple):
    """What became of a scope: its new name, the rows that had the old one, and the archives that may still have it."""

    alias: str
    rows: int
    archives: tuple[str, ...]
    unfinished: tuple[str, ...] = ()  # new names of other scopes whose erasure was cut short


@runtime_checkable
class SupportsErasure(Protocol):
    """Ability of a backend to put another name in the place of a scope, keeping every sum."""

    def erase(self, scope: str) -> Erasure:
        """See ``Ledger.erase``."""
        ...


class ArchiveResult(NamedTuple):
    """Result of an archiving. ``path``: ``None`` if nothing was moved; ``resumed``: an earlier call had begun it.

    ``carried`` counts the rows that now hold the sums of the ``rows`` moved; ``skipped`` the attempts that are old
    enough but stay, because they are open or their cost is an estimate that may still be corrected.
    """

    path: Path | None
    rows: int
    carried: int
    settled_nanousd: NanoUSD
    skipped: int
    resumed: bool
    lines: int = 0  # of the journal, moved to a file beside the archive


@runtime_checkable
class SupportsArchive(Protocol):
    """Ability of a backend to move old rows to a file, leaving rows that carry their sums.

    The ids are closed first: an archived attempt takes no correction any more, so its rows cannot change while they are
    written to a file, flushed, read back and compared. Only then they are removed, and in the same transaction rows of
    kind ``carried`` take over their sums. Killed at any point, the next call resumes.
    """

    def archive(self, before: int, path: Path | None, summary: MemoAggregator, *, keep: bool = True) -> ArchiveResult:
        """See ``Ledger.archive``; ``before`` is ms."""
        ...


def redacted(url: str) -> str:
    """Return the URL of a storage without its user, password and options, for messages and logs."""
    scheme, found, rest = url.partition("://")
    if not found:
        return url.rpartition("@")[2]
    # By text, not by ``urlsplit``: a password with "/", "#" or "[" that was not encoded would come through.
    place, _, options = rest.partition("?")
    if "@" in options:  # a password with "?", or an option with "@": what follows may be part of either
        return f"{scheme}://…"
    # A path has no user before it, and may hold an "@" of its own.
    return f"{scheme}://{place if place.startswith('/') else place.rpartition('@')[2]}"


def _asynchronous(
    verb: Callable[Concatenate[Backend, P], T],
) -> Callable[Concatenate[AsyncAdapter, P], Coroutine[Any, Any, T]]:
    """Make the asynchronous twin of a verb of ``Backend``."""
    name = verb.__name__

    async def twin(self: AsyncAdapter, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(getattr(self.backend, name), *args, **kwargs)

    twin.__name__, twin.__doc__ = name, f"See ``Backend.{name}``."
    return twin


class AsyncAdapter:
    """``AsyncBackend`` over a ``Backend``: each verb in a worker thread if it blocks, else called in place."""

    def __init__(self, backend: Backend, *, workers: int = 32) -> None:
        # Many, because SQLite commits all that wait in one transaction: more callers at once, fewer transactions.
        self.backend, self._workers = backend, workers
        self._pool: ThreadPoolExecutor | None = None
        self._pid = os.getpid()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call without blocking the event loop."""
        if not self.backend.blocks:
            return call(*args, **kwargs)
        if self._pool is None or self._pid != os.getpid():  # threads do not survive a fork
            self._pool, self._pid = ThreadPoolExecutor(self._workers, thread_name_prefix="llm-cost-ledger"), os.getpid()
        future = asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args, **kwargs))
        try:
            return await asyncio.shield(future)  # cancelling the task must not cancel a verb that has begun
        except asyncio.CancelledError:  # a verb under way cannot be recalled: leave when its outcome is known
            await asyncio.wait([future])
            future.exception()
            raise

    reserve = _asynchronous(Backend.reserve)
    resolve = _asynchronous(Backend.resolve)
    extend = _asynchronous(Backend.extend)
    sweep = _asynchronous(Backend.sweep)
    read = _asynchronous(Backend.read)
    set_budget = _asynchronous(Backend.set_budget)
    remove_budget = _asynchronous(Backend.remove_budget)

    async def amend(self, decide: BudgetStep) -> None:
        """See ``SupportsRegister``, which the storage must be."""
        await self.run(self.backend.amend, decide)  # type: ignore[attr-defined]  # whoever calls it has looked

    async def reduce(self, amounts: Sequence[tuple[str, int]]) -> tuple[Reduction, ...]:
        """See ``SupportsReduction``, which the storage must be."""
        return await self.run(self.backend.reduce, amounts)  # type: ignore[attr-defined]  # as above

    async def rows(self, since: int | None, scope: str | None) -> AsyncIterator[Row]:
        """See ``Backend``. Fetched in blocks: a hop to a thread costs more than a row."""
        rows = self.backend.rows(since, scope)
        while block := await self.run(lambda: list(islice(rows, 500))):
            for row in block:
                yield row

    async def close(self) -> None:
        """See ``Backend``."""
        await self.run(self.backend.close)
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None

    @property
    def journal(self) -> Journal | None:
        """Journal of the backend, if it keeps one. Its calls may block."""
        return self.backend.journal if isinstance(self.backend, SupportsJournal) else None


def storage_of(backend: Any) -> Any:
    """The storage that an ``AsyncAdapter`` stands over; any other backend is its own."""
    return backend.backend if isinstance(backend, AsyncAdapter) else backend
