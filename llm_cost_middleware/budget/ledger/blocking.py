"""The blocking façade."""

# ruff: noqa: A002 - ``id`` is the word of the domain, on objects that do not need the builtin

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llm_cost_middleware.budget import rules
from llm_cost_middleware.budget.backend import Archived, Archiving, Backend, Journal, Journaling
from llm_cost_middleware.budget.ledger.face import (
    SWEEP,
    Durability,
    Face,
    OnLapse,
    Outcome,
    milliseconds,
    nano,
    outcome,
    since_ms,
)
from llm_cost_middleware.budget.ledger.schemes import SCHEMES, read_options
from llm_cost_middleware.budget.model import (
    Balance,
    Budget,
    Receipt,
    Reservation,
    Row,
    parse_scope,
    parse_scopes,
    parse_window,
)
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError, LedgerError
from llm_cost_middleware.money import USD, NanoUSD


class Ledger(Face):
    """A ledger of budgets, reservations and what they became. Safe from any thread.

    Amounts are US dollars (or ``NanoUSD``). Every verb is one atomic step and done when it returns; an id makes it
    repeatable. Every verb may raise ``LedgerUnavailableError``, and then nothing was written.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        clock: Clock | None = None,
        lease_s: float = 900,
        on_lapse: OnLapse = "charge",
        url: str = "",
    ) -> None:
        super().__init__(clock=clock, lease_s=lease_s, on_lapse=on_lapse, url=url)
        self._backend = backend

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Clock | None = None,
        tenant: str = "default",
        durability: Durability = "full",
        lease_s: float = 900,
        on_lapse: OnLapse = "charge",
    ) -> Self:
        """Open a ledger.

        Args:
            url: ``memory://`` (its own), ``memory://name`` (shared by the ledgers of one process opened on the name,
                until the last is closed or gone), ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
                ``redis://user:password@host:port/db`` (also ``rediss://``, ``unix://``, ``redis+cluster://``).
            clock: Where the time comes from; the machine's, or the Redis server's, when ``None``.
            tenant: Ledgers of different tenants in one storage see nothing of each other.
            durability: ``full``: a verb that returned survives a power cut. ``normal`` (SQLite): it survives a crash.
            lease_s: How long a reservation lasts unless settled or extended.
            on_lapse: What becomes of the money of a lease that ended: ``charge`` it, unconfirmed, or ``release`` it.

        Raises:
            ConfigurationError: An unknown scheme or option.
            LedgerUnavailableError: The storage does not answer or cannot be written.
            LedgerVersionError: It was written by a newer version.
        """
        scheme, options = read_options(url, clock, tenant, durability)
        return cls(SCHEMES[scheme][0](options), clock=clock, lease_s=lease_s, on_lapse=on_lapse, url=url)

    @property
    def backend(self) -> Backend:
        """The storage."""
        return self._backend

    @property
    def journal(self) -> Journal | None:
        """Where small records besides money are kept; ``None`` where the backend keeps none. Its calls may block."""
        return self._backend.journal if isinstance(self._backend, Journaling) else None

    def set_budget(self, budget: Budget) -> None:
        """Set the budget of its scope and window. What its window already holds counts."""
        self._backend.set_budget(budget)

    def remove_budget(self, scope: str, window: str = "none") -> bool:
        """Remove a budget; whether there was one."""
        return self._backend.remove_budget(parse_scope(scope, template=True), parse_window(window))

    def budgets(self) -> tuple[Budget, ...]:
        """Every budget, by scope and window, templates as they are."""
        return self._backend.read(()).book.budgets

    def reserve(
        self,
        amount: USD | NanoUSD,
        scopes: Iterable[str] = (),
        *,
        id: str | None = None,
        ttl: float | None = None,
        memo: bytes = b"",
    ) -> Reservation:
        """Hold money for a call, in every scope or in none.

        Args:
            amount: The most the call can cost, US dollars.
            scopes: Who pays: ``user:42``, ``team:a``; ``global`` is implied. A scope without a budget has no limit.
            id: The caller's own, which makes the call repeatable; drawn when ``None``.
            ttl: The lease in seconds; the ledger's when ``None``.
            memo: Kept with the row, for the caller.

        Raises:
            BudgetExceededError: The first scope without room, with all its figures. The id stays refused.
            ReservationConflictError: The id was used with another amount or other scopes.
        """
        claim = self._claim(amount, scopes, id, ttl, memo)
        if self._due():
            self._backend.sweep(charge=self._charge, limit=SWEEP)
        return self._backend.reserve(*claim, fresh=id is None)

    def settle(self, id: str, actual: USD | NanoUSD, *, memo: bytes = b"", status: Outcome = "exact") -> Receipt:
        """Book what a call cost, more than was reserved included.

        Raises:
            ReservationNotFoundError: No such id.
            ReservationConflictError: It was settled at another amount, or voided.
        """
        return self._backend.resolve("settle", id, nano(actual), status=outcome(status), memo=memo)

    def void(self, id: str, *, memo: bytes = b"") -> Receipt:
        """Give the money back: for a call that surely was not billed. Raises as ``settle``."""
        return self._backend.resolve("void", id, 0, status="void", memo=memo)

    def reconcile(self, id: str, actual: USD | NanoUSD, *, memo: bytes = b"") -> Receipt:
        """Correct what a resolved id cost, by a new row. Raises as ``settle``, and a conflict while it is pending."""
        return self._backend.resolve("reconcile", id, nano(actual), status="exact", memo=memo)

    def book(
        self,
        amount: USD | NanoUSD,
        scopes: Iterable[str] = (),
        *,
        id: str | None = None,
        memo: bytes = b"",
        status: Outcome = "exact",
    ) -> Receipt:
        """Book what was spent without a reservation, past any limit: the money is gone.

        Raises:
            ReservationConflictError: The id was used for something else.
        """
        id_, nano, paid, _, memo = self._claim(amount, scopes, id, None, memo)
        return self._backend.resolve("book", id_, nano, scopes=paid, status=outcome(status), memo=memo)

    def extend(self, id: str, ttl: float) -> Reservation:
        """Let the lease end ``ttl`` seconds from now, or later if it did. Raises as ``settle``."""
        return self._backend.extend(id, milliseconds(ttl, "ttl"))

    def balance(self, scope: str, window: str | None = None) -> Balance:
        """Where a scope stands; the window is needed where it has budgets in several. Raises ``ConfigurationError``."""
        return rules.balance(*self._backend.read((parse_scope(scope),)), parse_scope(scope), window)

    def balances(self) -> tuple[rules.Standing, ...]:
        """Every scope in every window that has a budget, the rest by what they spent in all: one moment's picture."""
        return rules.standings(*self._backend.read(None))

    def available(self, scopes: Iterable[str] = ()) -> NanoUSD | None:
        """The least that the budgets of these scopes have left; negative after an overrun, ``None`` without a limit."""
        return rules.available(*self._backend.read(parse_scopes(scopes)))

    def headroom(self, scopes: Iterable[str] = ()) -> rules.Headroom | None:
        """What the budgets of these scopes leave, as money and as a share of the limit; ``None`` without a limit."""
        return rules.headroom(*self._backend.read(parse_scopes(scopes)))

    def sweep(self) -> int:
        """Lapse every reservation whose lease has ended; how many."""
        swept = step = self._backend.sweep(charge=self._charge, limit=SWEEP)
        while step == SWEEP:
            swept += (step := self._backend.sweep(charge=self._charge, limit=SWEEP))
        return swept

    def rows(self, since: datetime | float | None = None, scope: str | None = None) -> Iterator[Row]:
        """The rows in the order they were written, streamed: from a time (seconds since the epoch) on, of one scope."""
        return self._backend.rows(since_ms(since), None if scope is None else parse_scope(scope))

    def archive(self, before: datetime | float, summary: rules.Summary, to: Path | str | None = None) -> Archived:
        """Move the rows of attempts that were over before a time to a file; rows that carry their sums stay.

        No balance changes, and no budget, set later, counts too little. What is open stays, and what is not ``exact``,
        until it is reconciled. What is archived takes no correction any more; its ids stay known. The file is a JSON
        object a line. Killed at any moment, call it again: it first finishes what was begun, and says ``resumed``.

        Args:
            before: Seconds since the epoch, or a ``datetime`` with a time zone.
            summary: What the memos of the rows add up to (``metering.MemoSummary`` for those of a pipeline).
            to: The file, which must not exist; beside the ledger and numbered when ``None``.

        Raises:
            ConfigurationError: The storage of this ledger cannot (only SQLite can), or the file exists.
            LedgerError: The file did not read back as written, or was changed before its rows had left the ledger.
        """
        if not isinstance(self._backend, Archiving):
            scheme = self.url.partition(":")[0] or type(self._backend).__name__
            raise ConfigurationError(f"a {scheme} ledger has no archive; a sqlite one has", key="ledger.url")
        return self._backend.archive(since_ms(before) or 0, None if to is None else Path(to), summary)

    def hold(
        self,
        amount: USD | NanoUSD,
        scopes: Iterable[str] = (),
        *,
        id: str | None = None,
        ttl: float | None = None,
        memo: bytes = b"",
    ) -> Hold:
        """``with ledger.hold("0.05", ["user:42"]) as hold: ... hold.settle(cost)``. Raises as ``reserve``, on entry."""
        return Hold(self, (amount, scopes), {"id": id, "ttl": ttl, "memo": memo})

    def close(self) -> None:
        """Let go of files and sockets. Idempotent."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Hold:
    """A reservation for the length of a block. Left without a settle or void, it is booked in full, ``unconfirmed``.

    That holds for an exception too: a call that failed may have been billed. If the ledger cannot be reached on the way
    out of an exception, that exception goes on, noted, and the lease books the money.
    """

    __slots__ = ("_arguments", "_ledger", "_options", "receipt", "reservation")

    reservation: Reservation

    def __init__(self, ledger: Ledger, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._ledger, self._arguments, self._options = ledger, arguments, options
        self.receipt: Receipt | None = None

    @property
    def id(self) -> str:
        """Of the reservation."""
        return self.reservation.id

    def __enter__(self) -> Self:
        self.reservation = self._ledger.reserve(*self._arguments, **self._options)
        return self

    def settle(self, actual: USD | NanoUSD, *, memo: bytes = b"", status: Outcome = "exact") -> Receipt:
        """As ``Ledger.settle``."""
        self.receipt = self._ledger.settle(self.id, actual, memo=memo, status=status)
        return self.receipt

    def void(self, *, memo: bytes = b"") -> Receipt:
        """As ``Ledger.void``."""
        self.receipt = self._ledger.void(self.id, memo=memo)
        return self.receipt

    def extend(self, ttl: float) -> Reservation:
        """As ``Ledger.extend``."""
        self.reservation = self._ledger.extend(self.id, ttl)
        return self.reservation

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.receipt is None:
            try:
                self.settle(self.reservation.amount_nanousd, status="unconfirmed")
            except LedgerError as failure:
                if error is None:
                    raise
                error.add_note(f"and its reservation {self.id} was left to its lease: {failure}")
