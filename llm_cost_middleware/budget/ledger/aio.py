"""Façade for one event loop."""

# ruff: noqa: A002 - ``id`` is the word of the domain, on objects that do not need the builtin

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from llm_cost_middleware.budget import rules
from llm_cost_middleware.budget.backend import (
    AsyncAdapter,
    AsyncBackend,
    Journal,
    SharedState,
    SupportsAsync,
    SupportsJournal,
    SupportsReduction,
    SupportsSharedState,
    storage_of,
)
from llm_cost_middleware.budget.balance import Balance
from llm_cost_middleware.budget.ledger import administration
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
from llm_cost_middleware.budget.ledger.blocking import Ledger
from llm_cost_middleware.budget.ledger.schemes import read_options, register
from llm_cost_middleware.budget.model import (
    Budget,
    Receipt,
    Reduction,
    Reservation,
    Row,
    WindowLike,
    parse_scope,
    parse_scopes,
    parse_window,
)
from llm_cost_middleware.budget.notes import Notes, SupportsNotes
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError, LedgerError
from llm_cost_middleware.money import USD, NanoUSD


class AsyncLedger(LedgerArguments):
    """``Ledger`` for one event loop, verb for verb. On one URL the two share one state."""

    def __init__(
        self,
        backend: AsyncBackend,
        *,
        clock: Clock | None = None,
        hold_ttl_s: float = 900,
        on_expiry: OnExpiry = "charge",
        url: str = "",
    ) -> None:
        super().__init__(clock=clock, hold_ttl_s=hold_ttl_s, on_expiry=on_expiry, url=url)
        self._backend = backend

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
        """Open a ledger, as ``Ledger.open``; a plain call, not awaited."""
        (_, factory), options = read_options(url, clock, tenant, durability, lease)
        return cls(factory(options), clock=clock, hold_ttl_s=hold_ttl_s, on_expiry=on_expiry, url=options.url)

    @classmethod
    def over(cls, ledger: Ledger) -> Self:
        """Return the same ledger for event loops.

        A storage that ``SupportsAsync`` gives a client of its own, for the running event loop. Any other is shared by
        all loops, its verbs run in worker threads, and closing it closes ``ledger``.
        """
        backend = ledger.backend
        return cls(
            backend.asynchronous() if isinstance(backend, SupportsAsync) else AsyncAdapter(backend), **ledger.options
        )

    register = staticmethod(register)

    @property
    def reduces(self) -> bool:
        """True if a hold can be reduced."""
        return isinstance(storage_of(self._backend), SupportsReduction)

    @property
    def journal(self) -> Journal | None:
        """Journal of the backend; ``None`` if it keeps none. Its calls may block."""
        return self._backend.journal if isinstance(self._backend, SupportsJournal) else None

    @property
    def shared_state(self) -> SharedState | None:
        """Values that processes share; ``None`` if the backend shares none. Its calls may block."""
        return self._backend.shared_state if isinstance(self._backend, SupportsSharedState) else None

    @property
    def backend(self) -> AsyncBackend:
        """Storage of the ledger."""
        return self._backend

    @property
    def takes_notes(self) -> bool:
        """True if ``settle`` and ``book`` write ``notes`` in their own transaction; otherwise give them none."""
        return isinstance(storage_of(self._backend), SupportsNotes)

    set_budget = administration.asynchronous(administration.set_budget)
    remove_budget = administration.asynchronous(administration.remove_budget)
    raise_budget = administration.asynchronous(administration.raise_budget)
    configure_budgets = administration.asynchronous(administration.configure_budgets)
    learn_names = administration.asynchronous(administration.learn_names)
    budget_lives = administration.asynchronous(administration.budget_lives)
    budget_history = administration.asynchronous(administration.budget_history)
    pause = administration.asynchronous(administration.pause)
    resume = administration.asynchronous(administration.resume)
    pauses = administration.asynchronous(administration.pauses)
    check_paused = administration.acheck_paused

    async def budgets(self) -> tuple[Budget, ...]:
        """See ``Ledger``."""
        return (await self._backend.read(())).budget_index.budgets

    async def reserve(
        self,
        amount: USD | NanoUSD,
        scopes: Iterable[str] = (),
        *,
        id: str | None = None,
        ttl: Seconds | None = None,
        memo: bytes = b"",
    ) -> Reservation:
        """See ``Ledger``. If cancelled, it voids what it may have reserved, unless the id is the caller's."""
        id_, nanousd, paid, lasts, memo = self._reserve_arguments(amount, scopes, id, ttl, memo)
        if self._sweep_due():  # before the reserve, because what it releases makes room
            await self._backend.sweep(charge=self._charge_expired, limit=SWEEP)
        try:
            return await self._backend.reserve(id_, nanousd, paid, lasts, memo, fresh=id is None)
        except asyncio.CancelledError:
            if id is None:  # nobody else knows this id: else the money would stay held until it expires
                with suppress(LedgerError):
                    await self.void(id_)
            raise

    async def settle(
        self,
        id: str,
        actual: USD | NanoUSD,
        *,
        memo: bytes = b"",
        status: SettlementStatus = "exact",
        notes: Notes | None = None,
    ) -> Receipt:
        """See ``Ledger``."""
        id_, nanousd, checked = self._settle_arguments(id, actual, status)
        resolve = noting(self._backend.resolve, notes)
        return await resolve("settle", id_, nanousd, status=checked, memo=self._memo(memo))

    async def void(self, id: str, *, memo: bytes = b"") -> Receipt:
        """See ``Ledger``."""
        return await self._backend.resolve("void", check_id(id), 0, status="void", memo=self._memo(memo))

    async def reconcile(
        self, id: str, actual: USD | NanoUSD, *, memo: bytes = b"", status: SettlementStatus = "exact"
    ) -> Receipt:
        """See ``Ledger``."""
        id_, nanousd, checked = self._settle_arguments(id, actual, status)
        return await self._backend.resolve("reconcile", id_, nanousd, status=checked, memo=self._memo(memo))

    async def book(
        self,
        amount: USD | NanoUSD,
        scopes: Iterable[str] = (),
        *,
        id: str | None = None,
        memo: bytes = b"",
        status: SettlementStatus = "exact",
        notes: Notes | None = None,
    ) -> Receipt:
        """See ``Ledger``."""
        id_, nanousd, paid, _, memo = self._reserve_arguments(amount, scopes, id, None, memo)
        resolve = noting(self._backend.resolve, notes)
        return await resolve("book", id_, nanousd, scopes=paid, status=check_status(status), memo=memo)

    async def extend(self, id: str, ttl: Seconds) -> Reservation:
        """See ``Ledger``."""
        return await self._backend.extend(check_id(id), to_ms(ttl, "ttl"))

    async def reduce(self, id: str, amount: USD | NanoUSD) -> Reduction:
        """See ``Ledger``."""
        return (await self.reduce_all({id: amount}))[0]

    async def reduce_all(self, amounts: Mapping[str, USD | NanoUSD]) -> tuple[Reduction, ...]:
        """See ``Ledger``."""
        if not self.reduces:
            raise ConfigurationError("this storage keeps a hold as it was made", key="ledger.url")
        asked = [(check_id(name), to_nanousd(amount)) for name, amount in amounts.items()]
        made: tuple[Reduction, ...] = await self._backend.reduce(asked)  # type: ignore[attr-defined]  # just looked at
        return made

    async def balance(self, scope: str, window: WindowLike | None = None) -> Balance:
        """See ``Ledger``."""
        return rules.balance(
            *await self._backend.read((parse_scope(scope),)),
            parse_scope(scope),
            None if window is None else parse_window(window),
        )

    async def balances(self, scopes: Iterable[str] | None = None) -> tuple[rules.ScopeBalance, ...]:
        """See ``Ledger``."""
        found = await self._backend.read(None if scopes is None else parse_scopes(scopes))
        return rules.scope_balances(*found, passing=scopes is not None)

    async def available(self, scopes: Iterable[str] = ()) -> NanoUSD | None:
        """See ``Ledger``."""
        return rules.available(*await self._backend.read(parse_scopes(scopes)))

    async def headroom(self, scopes: Iterable[str] = ()) -> rules.Headroom | None:
        """See ``Ledger``."""
        return rules.headroom(*await self._backend.read(parse_scopes(scopes)))

    async def sweep(self) -> int:
        """See ``Ledger``."""
        swept = step = await self._backend.sweep(charge=self._charge_expired, limit=SWEEP)
        while step == SWEEP:
            swept += (step := await self._backend.sweep(charge=self._charge_expired, limit=SWEEP))
        return swept

    def rows(self, since: Moment | None = None, scope: str | None = None) -> AsyncIterator[Row]:
        """See ``Ledger``; an async iterator."""
        return self._backend.rows(self._since(since), None if scope is None else parse_scope(scope))

    def hold(
        self,
        amount: USD | NanoUSD,
        scopes: Iterable[str] = (),
        *,
        id: str | None = None,
        ttl: Seconds | None = None,
        memo: bytes = b"",
    ) -> AsyncHold:
        """Reserve for a block: ``async with ledger.hold("0.05", ["user:42"]) as hold: ... await hold.settle(cost)``."""
        return AsyncHold(self, (amount, scopes), {"id": id, "ttl": ttl, "memo": memo})

    async def aclose(self) -> None:
        """Close files and sockets. Idempotent."""
        await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncHold:
    """``Hold`` for an ``AsyncLedger``."""

    __slots__ = ("_arguments", "_ledger", "_options", "receipt", "reservation")

    reservation: Reservation

    def __init__(self, ledger: AsyncLedger, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._ledger, self._arguments, self._options = ledger, arguments, options
        self.receipt: Receipt | None = None

    @property
    def id(self) -> str:
        """Id of the reservation."""
        return self.reservation.id

    async def __aenter__(self) -> Self:
        self.reservation = await self._ledger.reserve(*self._arguments, **self._options)
        return self

    async def settle(self, actual: USD | NanoUSD, *, memo: bytes = b"", status: SettlementStatus = "exact") -> Receipt:
        """See ``Ledger.settle``."""
        self.receipt = await self._ledger.settle(self.id, actual, memo=memo, status=status)
        return self.receipt

    async def void(self, *, memo: bytes = b"") -> Receipt:
        """See ``Ledger.void``."""
        self.receipt = await self._ledger.void(self.id, memo=memo)
        return self.receipt

    async def extend(self, ttl: Seconds) -> Reservation:
        """See ``Ledger.extend``."""
        self.reservation = await self._ledger.extend(self.id, ttl)
        return self.reservation

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.receipt is None:
            try:  # not void: the call may have been sent, and billed
                await self.settle(self.reservation.amount_nanousd, status="unconfirmed")
            except LedgerError as failure:
                if error is None:
                    raise
                # The caller's own exception matters more than this one.
                error.add_note(f"and its reservation {self.id} was left to expire: {failure}")
