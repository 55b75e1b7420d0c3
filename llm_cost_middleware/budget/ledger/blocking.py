"""Blocking façade."""

# ruff: noqa: A002 - ``id`` is the word of the domain, on objects that do not need the builtin

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from llm_cost_middleware.budget import rules
from llm_cost_middleware.budget.backend import (
    ArchiveResult,
    Backend,
    Erasure,
    Journal,
    SharedState,
    SupportsJournal,
    SupportsReduction,
    SupportsSharedState,
)
from llm_cost_middleware.budget.balance import Balance
from llm_cost_middleware.budget.ledger import administration, upkeep
from llm_cost_middleware.budget.ledger.arguments import (
    SWEEP,
    Durability,
    Lease,
    LedgerArguments,
    Moment,
    OnExpiry,
    Seconds,
    SettlementStatus,
    accept_renamed,
    check_id,
    check_status,
    noting,
    to_ms,
    to_nanousd,
)
from llm_cost_middleware.budget.ledger.hold import Hold
from llm_cost_middleware.budget.ledger.schemes import read_options, register
from llm_cost_middleware.budget.model import (
    MAX_NANOUSD,
    Budget,
    Receipt,
    Reduction,
    Reservation,
    Row,
    WindowLike,
    bounded_nanousd,
    canonical_scopes,
    parse_scope,
    parse_scopes,
    parse_window,
)
from llm_cost_middleware.budget.notes import Notes, SupportsNotes
from llm_cost_middleware.budget.tallies import UnwrittenMemo, written_memo
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import USD, NanoUSD


class Ledger(LedgerArguments):
    """Ledger of budgets, reservations and their resolutions. Thread-safe.

    Amounts are US dollars (or ``NanoUSD``). Every verb is one atomic step, complete when it returns; an id makes it
    repeatable. Every verb may raise ``LedgerUnavailableError``; then nothing was written.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        clock: Clock | None = None,
        hold_ttl_s: float = 900,
        on_expiry: OnExpiry = "charge",
        url: str = "",
    ) -> None:
        super().__init__(clock=clock, hold_ttl_s=hold_ttl_s, on_expiry=on_expiry, url=url)
        self._backend = backend
        self._keeps_unwritten = vars(type(backend)).get("keeps_unwritten", False)  # not of whoever stands before it

    @classmethod
    @accept_renamed
    def open(
        cls,
        url: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        tenant: str = "default",
        durability: Durability = "full",
        hold_ttl_s: float = 900,
        on_expiry: OnExpiry = "charge",
        lease: Lease = "off",
    ) -> Self:
        """Open a ledger.

        Args:
            url: ``memory://`` (its own), ``memory://name`` (shared by the ledgers of one process opened on the name,
                until the last is closed or gone), ``sqlite:///relative.db``, ``sqlite:////absolute.db`` (or a path),
                ``redis://user:password@host:port/db`` (also ``unix://``, ``rediss``, ``+cluster``, ``+sentinel``),
                ``postgresql://user:password@host:port/database``.
            clock: Source of time; the machine's, or the Redis server's, when ``None``.
            tenant: Ledgers of different tenants in one storage are separate.
            durability: ``full``: a verb that returned survives a power cut. ``normal`` (SQLite): it survives a crash.
            hold_ttl_s: Seconds until a reservation expires unless it is settled or extended.
            on_expiry: What happens to the money of an expired hold: ``charge`` it, ``unconfirmed``, or ``release`` it.
            lease: ``auto``: admit calls from blocks of the budgets that this process holds (``llm-cost help leases``).

        Raises:
            ConfigurationError: An unknown scheme or option.
            LedgerUnavailableError: The storage does not answer or cannot be written.
            LedgerVersionError: It was written by a newer version.
        """
        (factory, _), options = read_options(url, clock, tenant, durability, lease)
        return cls(factory(options), clock=clock, hold_ttl_s=hold_ttl_s, on_expiry=on_expiry, url=options.url)

    register = staticmethod(register)

    @property
    def backend(self) -> Backend:
        """Storage of the ledger."""
        return self._backend

    @property
    def blocks(self) -> bool:
        """True if a verb may wait for a disk or a network; false if the ledger lives and ends in this process."""
        return self._backend.blocks

    @property
    def reduces(self) -> bool:
        """True if a hold can be reduced."""
        return isinstance(self._backend, SupportsReduction)

    @property
    def journal(self) -> Journal | None:
        """Journal of the backend; ``None`` if it keeps none. Its calls may block."""
        return self._backend.journal if isinstance(self._backend, SupportsJournal) else None

    @property
    def shared_state(self) -> SharedState | None:
        """Values that processes share; ``None`` if the backend shares none. Its calls may block."""
        return self._backend.shared_state if isinstance(self._backend, SupportsSharedState) else None

    @property
    def takes_notes(self) -> bool:
        """True if ``settle`` and ``book`` write ``notes`` in their own transaction; otherwise give them none."""
        return isinstance(self._backend, SupportsNotes)

    set_budget = administration.blocking(administration.set_budget)
    remove_budget = administration.blocking(administration.remove_budget)
    raise_budget = administration.blocking(administration.raise_budget)
    configure_budgets = administration.blocking(administration.configure_budgets)
    learn_names = administration.blocking(administration.learn_names)
    budget_lives = administration.blocking(administration.budget_lives)
    budget_history = administration.blocking(administration.budget_history)
    pause = administration.blocking(administration.pause)
    resume = administration.blocking(administration.resume)
    pauses = administration.blocking(administration.pauses)
    check_paused = administration.check_paused

    def budgets(self) -> tuple[Budget, ...]:
        """Return every budget, ordered by scope and window; templates are not expanded."""
        return self._backend.read(()).budget_index.budgets

    def reserve(
        self,
        amount: USD | NanoUSD,
        scopes: Iterable[str] = (),
        *,
        id: str | None = None,
        ttl: Seconds | None = None,
        memo: bytes = b"",
    ) -> Reservation:
        """Hold money for a call, in every scope or in none (authorize).

        Args:
            amount: Most that the call can cost, US dollars.
            scopes: Scopes that pay: ``user:42``, ``team:a``; ``global`` is implied. One without a budget has no limit.
            id: The caller's own id, which makes the call repeatable; made when ``None``.
            ttl: Seconds (or a ``timedelta``, or ``"15m"``) until it expires; ``hold_ttl_s`` when ``None``.
            memo: Opaque; kept with the row.

        Raises:
            BudgetExceededError: Names the first scope without room and its sums. The id stays refused.
            ReservationConflictError: The id was used with another amount or other scopes.
        """
        id_, nanousd, paid, lasts, memo = self._reserve_arguments(amount, scopes, id, ttl, memo)
        self._make_room()
        return self._backend.reserve(id_, nanousd, paid, lasts, memo, fresh=id is None)

    def reserve_for_call(
        self, id_: str, amount: NanoUSD, scopes: tuple[str, ...], ttl: float, memo: bytes | UnwrittenMemo
    ) -> Reservation:
        """``reserve`` for the flow of a call, which made the id and the length of time itself: they need no check."""
        nanousd = amount if amount <= MAX_NANOUSD else bounded_nanousd(amount)
        lasts = self._hold_ttl if ttl == self._hold_ttl_s else to_ms(ttl, "ttl")
        written: Any = memo if self._keeps_unwritten else written_memo(memo)
        if self._monotonic() >= self._sweep_at:
            self._make_room()
        return self._backend.reserve(id_, nanousd, canonical_scopes(scopes), lasts, written, fresh=False)

    def _make_room(self) -> None:
        if self._sweep_due():  # before the reserve, because what it releases makes room
            self._backend.sweep(charge=self._charge_expired, limit=SWEEP)

    def settle(
        self,
        id: str,
        actual: USD | NanoUSD,
        *,
        memo: bytes = b"",
        status: SettlementStatus = "exact",
        notes: Notes | None = None,
    ) -> Receipt:
        """Book what a call cost, even more than was reserved (capture).

        Args:
            id: The reservation.
            actual: What it cost, US dollars.
            memo: Opaque; kept with the row.
            status: How sure that is.
            notes: Written in the same transaction, where the storage ``takes_notes``.

        Raises:
            ReservationNotFoundError: No such id.
            ReservationConflictError: It was settled at another amount, or voided.
        """
        id_, nanousd, checked = self._settle_arguments(id, actual, status)
        resolve = noting(self._backend.resolve, notes)
        return resolve("settle", id_, nanousd, status=checked, memo=self._memo(memo))

    def settle_for_call(
        self, id_: str, actual: NanoUSD, status: SettlementStatus, memo: bytes | UnwrittenMemo, notes: Notes | None
    ) -> Receipt:
        """``settle`` for the flow of a call, as ``reserve_for_call``."""
        nanousd = actual if actual <= MAX_NANOUSD else bounded_nanousd(actual)
        written: Any = memo if self._keeps_unwritten else written_memo(memo)
        resolve = self._backend.resolve if notes is None else noting(self._backend.resolve, notes)
        return resolve("settle", id_, nanousd, status=status, memo=written)

    def void(self, id: str, *, memo: bytes = b"") -> Receipt:
        """Give the money back, for a call that surely was not billed. Raises as ``settle``."""
        return self._backend.resolve("void", check_id(id), 0, status="void", memo=self._memo(memo))

    def reconcile(
        self, id: str, actual: USD | NanoUSD, *, memo: bytes = b"", status: SettlementStatus = "exact"
    ) -> Receipt:
        """Correct what a resolved id cost, by a new row. Raises as ``settle``; a conflict while it is pending."""
        id_, nanousd, checked = self._settle_arguments(id, actual, status)
        return self._backend.resolve("reconcile", id_, nanousd, status=checked, memo=self._memo(memo))

    def book(
        self,
        amount: USD | NanoUSD,
        scopes: Iterable[str] = (),
        *,
        id: str | None = None,
        memo: bytes = b"",
        status: SettlementStatus = "exact",
        notes: Notes | None = None,
    ) -> Receipt:
        """Book money that was spent without a reservation, past any limit.

        Raises:
            ReservationConflictError: The id was used for something else.
        """
        id_, nanousd, paid, _, memo = self._reserve_arguments(amount, scopes, id, None, memo)
        resolve = noting(self._backend.resolve, notes)
        return resolve("book", id_, nanousd, scopes=paid, status=check_status(status), memo=memo)

    def extend(self, id: str, ttl: Seconds) -> Reservation:
        """Let it expire ``ttl`` seconds from now, never earlier than before. Raises as ``settle``."""
        return self._backend.extend(check_id(id), to_ms(ttl, "ttl"))

    def reduce(self, id: str, amount: USD | NanoUSD) -> Reduction:
        """Give back a part of what is held for a call, because more is known: hold ``amount`` from now on.

        A hold is never raised, and what is unknown or resolved is left alone: the result says which. What was reserved
        must still cover what the call can cost: once sent, no less than its exact input with its output cap.

        Raises:
            ConfigurationError: This storage cannot (``reduces`` is false).
        """
        return (self.reduce_all({id: amount}))[0]

    def reduce_all(self, amounts: Mapping[str, USD | NanoUSD]) -> tuple[Reduction, ...]:
        """``reduce`` for several, by id; on SQLite in one transaction."""
        backend = self._backend
        if not isinstance(backend, SupportsReduction):
            raise ConfigurationError("this storage keeps a hold as it was made", key="ledger.url")
        return backend.reduce([(check_id(name), to_nanousd(amount)) for name, amount in amounts.items()])

    def balance(self, scope: str, window: WindowLike | None = None) -> Balance:
        """Return the balance of a scope. Raises ``ConfigurationError`` if it has several budgets and none is named."""
        return rules.balance(
            *self._backend.read((parse_scope(scope),)),
            parse_scope(scope),
            None if window is None else parse_window(window),
        )

    def balances(self, scopes: Iterable[str] | None = None) -> tuple[rules.ScopeBalance, ...]:
        """Return the balance of every budget (of these scopes), of scopes without one their sums; all at one moment.

        Runs and slices that hold no money are left out unless they are asked for: there is no end of them.
        """
        found = self._backend.read(None if scopes is None else parse_scopes(scopes))
        return rules.scope_balances(*found, passing=scopes is not None)

    def available(self, scopes: Iterable[str] = ()) -> NanoUSD | None:
        """Return the least that these scopes have left; negative after an overrun, ``None`` without a limit."""
        return rules.available(*self._backend.read(parse_scopes(scopes)))

    def headroom(self, scopes: Iterable[str] = ()) -> rules.Headroom | None:
        """Return what these scopes have left, as money and as a share of the limit; ``None`` without a limit."""
        return rules.headroom(*self._backend.read(parse_scopes(scopes)))

    def sweep(self) -> int:
        """Expire every reservation that is due; return how many."""
        # In steps, so that other callers get their turn in between.
        swept = step = self._backend.sweep(charge=self._charge_expired, limit=SWEEP)
        while step == SWEEP:
            swept += (step := self._backend.sweep(charge=self._charge_expired, limit=SWEEP))
        return swept

    def rows(self, since: Moment | None = None, scope: str | None = None) -> Iterator[Row]:
        """Stream the rows in the order they were written, from a time on, of one scope."""
        return self._backend.rows(self._since(since), None if scope is None else parse_scope(scope))

    def archive(
        self, before: Moment, summary: rules.MemoAggregator, to: Path | str | None = None, *, keep: bool = True
    ) -> ArchiveResult:
        """Move the rows of attempts that were resolved before a time to a file; their sums stay (``upkeep.archive``).

        Args:
            before: A ``datetime``, a ``date``, text such as ``2026-01-31``, or seconds since the epoch.
            summary: Adds up the memos of the rows (``metering.MemoSummary`` for those of a pipeline).
            to: The file, which must not exist; beside the ledger and numbered when ``None``. On Redis it must be named.
            keep: False: no file is kept; the rows are rolled up, and their sums are all that is left of them.
        """
        return upkeep.archive(self._backend, self._since(before, "before") or 0, summary, to, keep=keep)

    def back_up(self, to: Path | str) -> Path:
        """Copy the ledger to a file while it is in use (``upkeep.back_up``)."""
        return upkeep.back_up(self._backend, to)

    def erase(self, scope: str) -> Erasure:
        """Put another name in the place of a person's scope; the sums stay (``upkeep.erase``)."""
        return upkeep.erase(self._backend, scope)

    def hold(
        self,
        amount: USD | NanoUSD,
        scopes: Iterable[str] = (),
        *,
        id: str | None = None,
        ttl: Seconds | None = None,
        memo: bytes = b"",
    ) -> Hold:
        """Reserve for a block: ``with ledger.hold("0.05", ["user:42"]) as hold: ... hold.settle(cost)``.

        Entering it raises as ``reserve``.
        """
        return Hold(self, (amount, scopes), {"id": id, "ttl": ttl, "memo": memo})

    def close(self) -> None:
        """Close files and sockets. Idempotent."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
