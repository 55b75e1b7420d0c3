"""``Backend`` and ``AsyncBackend`` over a storage that ``SupportsLeases``."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any
from weakref import WeakSet

from llm_cost_middleware.budget.backend import (
    AsyncAdapter,
    AsyncBackend,
    Backend,
    BudgetStep,
    Snapshot,
    SupportsAsync,
)
from llm_cost_middleware.budget.leases.desk import Desk
from llm_cost_middleware.budget.leases.journal import LeaseJournal
from llm_cost_middleware.budget.leases.keeper import Keeper
from llm_cost_middleware.budget.leases.shipping import Shipping
from llm_cost_middleware.budget.model import Budget, Receipt, Reduction, Reservation, Row, RowStatus, Verb
from llm_cost_middleware.budget.notes import Notes
from llm_cost_middleware.budget.rules.leases import HeldBlock, LeasePolicy
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.fork import after_fork_in_child

_log = logging.getLogger(__name__)
SERVERLESS = ("AWS_LAMBDA_FUNCTION_NAME", "FUNCTION_TARGET", "K_SERVICE", "FUNCTIONS_WORKER_RUNTIME")
"""Variables of AWS Lambda, Google Cloud Functions and Run, and Azure Functions: they freeze a process at will."""
_HIDDEN = frozenset({"takes_notes", "asynchronous", "spool_place", "storage", "desk", "shipping", "keeper", "at_once"})
_DRAINED = frozenset({"archive", "erase", "back_up", "take_archive", "amend"})
"""What changes or copies the whole ledger: this process hands everything over first."""
_SHIPPED = frozenset({"bookings", "count_rows", "unsure_rows", "largest"})
"""What reads rows: this process ships first."""


class LeasedBackend:
    """A storage whose calls this process admits from blocks that it holds.

    Args:
        storage: The storage. It is closed with this.
        clock: Time; ``None``: the storage has its own.
        monotonic: Seconds that never go back.
        policy: How blocks are sized. With an interval of 0 every settle is shipped at once, and nothing runs beside.
    """

    blocks = True

    def __init__(
        self,
        storage: Backend,
        clock: Clock | None,
        monotonic: Callable[[], float],
        policy: LeasePolicy | None = None,
        journal: LeaseJournal | None = None,
    ) -> None:
        policy = policy or LeasePolicy()
        self.storage = storage
        self._adapter: AsyncAdapter | None = None
        self.at_once = not policy.interval_s
        self.desk = Desk(clock, monotonic, policy, journal)
        self.shipping = Shipping(self.desk, storage, policy, monotonic)
        self.keeper = Keeper(self.shipping, self.desk, policy.interval_s)
        if not self.at_once:
            self.desk.hurry, self.shipping.wake = self.keeper.hurry, self.keeper.ensure
        _living.add(self)

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation:
        """See ``Backend``."""
        arguments = id_, amount, scopes, ttl, memo
        made = self.desk.reserve(*arguments, fresh=fresh)
        for _ in range(2 if self.at_once else 0):  # the first look tells the budgets
            if made is None:
                self.shipping.tick()
                made = self.desk.reserve(*arguments, fresh=fresh)
        if made is not None:
            return made
        self.desk.goes_direct(id_, scopes)
        if self.desk.stands_in_the_way(scopes, amount, always=self.at_once):
            self.shipping.give_way(scopes)
        self._make_known(id_)
        return self.storage.reserve(*arguments, fresh=fresh)

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: RowStatus, memo: bytes = b"",
        notes: Notes | None = None,
    ) -> Receipt:  # fmt: skip
        """See ``Backend``. Notes beside money go with a parcel, whoever books the money."""
        self.shipping.keep(notes)
        if verb == "book":
            self.desk.book(id_, amount, scopes)
        receipt = self.desk.resolve(verb, id_, amount, status, memo)
        if receipt is not None:
            if self.at_once:
                self.shipping.flush()
                return self.desk.warned(id_, receipt)
            return receipt
        if verb == "reconcile":
            self.desk.correct_voided(id_)
        self._make_known(id_)
        return self.storage.resolve(verb, id_, amount, scopes=scopes, status=status, memo=memo)

    def extend(self, id_: str, ttl: int) -> Reservation:
        """See ``Backend``."""
        made = self.desk.extend(id_, ttl)
        if made is not None:
            return made
        self._make_known(id_)
        return self.storage.extend(id_, ttl)

    def sweep(self, *, charge: bool, limit: int) -> int:
        """See ``Backend``."""
        now = self.desk.now_ms()
        self.desk.hand_over(lambda hold: hold.record.expires <= now)
        self.shipping.flush()
        return self.storage.sweep(charge=charge, limit=limit)

    def read(self, scopes: tuple[str, ...] | None) -> Snapshot:
        """See ``Backend``. What this process has not shipped counts; what it has not used of its blocks does not."""
        return self.desk.seen(self.storage.read(scopes))

    def held_blocks(self) -> list[HeldBlock]:
        """See ``SupportsLeases``: those of other processes."""
        found: list[HeldBlock] = self.storage.held_blocks()  # type: ignore[attr-defined]  # it supports them
        with self.desk._lock:  # noqa: SLF001 - the two are one thing in two files
            mine = {block.id for block in self.desk.all_blocks()}
        return [block for block in found if block.id not in mine]

    def rows(self, since: int | None, scope: str | None) -> Iterator[Row]:
        """See ``Backend``. Other processes ship within the interval."""
        self.shipping.flush()
        return self.storage.rows(since, scope)

    def set_budget(self, budget: Budget) -> None:
        """See ``Backend``."""
        self._drained(self.storage.set_budget, budget)

    def remove_budget(self, scope: str, window: str) -> bool:
        """See ``Backend``."""
        return bool(self._drained(self.storage.remove_budget, scope, window))

    def close(self) -> None:
        """See ``Backend``. Everything is handed back."""
        if not self.desk.closed:
            self.keeper.close()
        self.storage.close()
        # Its own ``close`` would close the storage again.
        pool = None if self._adapter is None else self._adapter._pool  # noqa: SLF001 - as the line above says
        if pool is not None:
            pool.shutdown(wait=False)

    def asynchronous(self) -> AsyncLeasedBackend:
        """See ``SupportsAsync``."""
        storage = self.storage
        if isinstance(storage, SupportsAsync):
            return AsyncLeasedBackend(self, storage.asynchronous())
        if self._adapter is None:
            self._adapter = AsyncAdapter(storage)
        return AsyncLeasedBackend(self, self._adapter)

    def after_fork(self) -> None:
        """In a child: blocks, calls and journal are the parent's. It takes its own."""
        self.desk.forget()
        self.shipping.forget()
        self.keeper.forget()

    def _make_known(self, id_: str) -> None:
        if self.desk.holds_back(id_):
            self.shipping.flush()

    def _shipped(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.shipping.flush()
        return verb(*args, **kwargs)

    def _drained(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.desk.go_by(None)  # first, so that nothing is admitted meanwhile
        self.shipping.drain()
        try:
            return verb(*args, **kwargs)
        finally:
            self.desk.go_by(None)

    def _reduce(self, amounts: Sequence[tuple[str, int]]) -> tuple[Reduction, ...]:
        """See ``SupportsReduction``."""
        made = []
        for id_, amount in amounts:
            here = self.desk.reduce(id_, amount)
            if here is None:
                self._make_known(id_)
                (here,) = self.storage.reduce([(id_, amount)])  # type: ignore[attr-defined]  # it has the ability
            made.append(here)
        return tuple(made)


class AsyncLeasedBackend:
    """The same desk for an event loop. What it admits itself waits for nothing but a line of the journal."""

    def __init__(self, leased: LeasedBackend, storage: AsyncBackend) -> None:
        self.leased, self.storage = leased, storage
        self.desk = leased.desk

    async def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation:
        """See ``Backend``."""
        made = self.desk.reserve(id_, amount, scopes, ttl, memo, fresh=fresh)
        if made is not None:
            return made
        if self.leased.at_once or self.desk.holds_back(id_) or self.desk.stands_in_the_way(scopes, amount):
            return await asyncio.to_thread(partial(self.leased.reserve, id_, amount, scopes, ttl, memo, fresh=fresh))
        self.desk.goes_direct(id_, scopes)
        return await self.storage.reserve(id_, amount, scopes, ttl, memo, fresh=fresh)

    async def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: RowStatus, memo: bytes = b"",
        notes: Notes | None = None,
    ) -> Receipt:  # fmt: skip
        """See ``Backend``."""
        self.leased.shipping.keep(notes)
        if self.leased.at_once or verb == "reconcile":
            call = partial(self.leased.resolve, verb, id_, amount, scopes=scopes, status=status, memo=memo)
            return await asyncio.to_thread(call)
        if verb == "book":
            self.desk.book(id_, amount, scopes)
        receipt = self.desk.resolve(verb, id_, amount, status, memo)
        if receipt is not None:
            return receipt
        if self.desk.holds_back(id_):  # asked only now: another thread may hand a hold over at any moment
            await asyncio.to_thread(self.leased._make_known, id_)  # noqa: SLF001 - of this module
        return await self.storage.resolve(verb, id_, amount, scopes=scopes, status=status, memo=memo)

    async def extend(self, id_: str, ttl: int) -> Reservation:
        """See ``Backend``."""
        made = self.desk.extend(id_, ttl)
        return await asyncio.to_thread(self.leased.extend, id_, ttl) if made is None else made

    async def sweep(self, *, charge: bool, limit: int) -> int:
        """See ``Backend``."""
        return await asyncio.to_thread(partial(self.leased.sweep, charge=charge, limit=limit))

    async def read(self, scopes: tuple[str, ...] | None) -> Snapshot:
        """See ``Backend``."""
        return self.desk.seen(await self.storage.read(scopes))

    async def rows(self, since: int | None, scope: str | None) -> AsyncIterator[Row]:
        """See ``Backend``."""
        await asyncio.to_thread(self.leased.shipping.flush)
        async for row in self.storage.rows(since, scope):
            yield row

    async def set_budget(self, budget: Budget) -> None:
        """See ``Backend``."""
        await asyncio.to_thread(self.leased.set_budget, budget)

    async def remove_budget(self, scope: str, window: str) -> bool:
        """See ``Backend``."""
        return await asyncio.to_thread(self.leased.remove_budget, scope, window)

    async def amend(self, decide: BudgetStep) -> None:
        """See ``SupportsRegister``, which the storage must be."""
        await asyncio.to_thread(self.leased.amend, decide)  # type: ignore[attr-defined]  # whoever calls it has looked

    async def register(self) -> bytes:
        """See ``SupportsRegister``, which the storage must be."""
        return await asyncio.to_thread(self.leased.register)  # type: ignore[attr-defined]  # as above

    async def reduce(self, amounts: Sequence[tuple[str, int]]) -> tuple[Reduction, ...]:
        """See ``SupportsReduction``, which the storage must be."""
        return await asyncio.to_thread(self.leased._reduce, amounts)  # noqa: SLF001 - of this module

    async def held_blocks(self) -> list[HeldBlock]:
        """See ``SupportsLeases``: those of other processes."""
        return await asyncio.to_thread(self.leased.held_blocks)

    async def close(self) -> None:
        """See ``Backend``. The blocks are those of the process, and stay; so does a storage that all loops share."""
        if not isinstance(self.storage, AsyncAdapter):
            await self.storage.close()

    @property
    def slices(self) -> bool:
        """See ``SupportsSlices``."""
        return bool(getattr(self.leased.storage, "slices", False))


class OwnedAsyncLeasedBackend(AsyncLeasedBackend):
    """One that no blocking façade stands beside: closing it hands everything back."""

    async def close(self) -> None:
        """See ``Backend``."""
        await super().close()
        await asyncio.to_thread(self.leased.close)


_living: WeakSet[LeasedBackend] = WeakSet()


@after_fork_in_child
def _forget() -> None:
    for leased in list(_living):
        leased.after_fork()


def _forwarded(name: str) -> property:
    def value(self: LeasedBackend) -> Any:
        found = getattr(self.storage, name)
        if name in _DRAINED:
            return partial(self._drained, found)
        return partial(self._shipped, found) if name in _SHIPPED else found

    return property(value, doc=f"Of the storage: ``{name}``.")


@cache
def _class_over(storage: type, names: frozenset[str]) -> type[LeasedBackend]:
    """Return the class of leased backends that have the abilities of a storage, and no others."""
    own: dict[str, Any] = {name: _forwarded(name) for name in sorted(names - {"ship", "reduce"})}
    if hasattr(storage, "reduce"):
        own["reduce"] = LeasedBackend._reduce  # noqa: SLF001 - of this module
    if "journal" in names:
        own["takes_notes"] = True
    return type(f"Leased{storage.__name__}", (LeasedBackend,), own)


def leased_over(
    storage: Backend,
    clock: Clock | None,
    monotonic: Callable[[], float],
    policy: LeasePolicy | None = None,
    journal: LeaseJournal | None = None,
) -> LeasedBackend:
    """Return a leased backend over a storage, with the abilities of that. Arguments are those of ``LeasedBackend``."""
    # Of the object: an ability may be an attribute that its class does not name.
    names = {name for name in dir(storage) if not name.startswith("_")} - set(dir(LeasedBackend)) - _HIDDEN
    return _class_over(type(storage), frozenset(names))(storage, clock, monotonic, policy, journal)


def lease_from(
    storage: Backend,
    clock: Clock | None,
    monotonic: Callable[[], float],
    environment: Mapping[str, str] = os.environ,
    policy: LeasePolicy | None = None,
) -> Backend:
    """Return a storage with leases, where they are of use; otherwise the storage.

    They are not in memory, which one process has to itself; where the system freezes a process between calls
    (``SERVERLESS``), which could not give a sign of life; on a storage without the abilities; and where no journal can
    be written. A warning says so: whoever asked for them counts on them.
    """
    why = _why_off(storage, environment)
    if why is None:
        try:
            journal = LeaseJournal(storage.spool_place, os.urandom(6).hex())  # type: ignore[attr-defined]  # looked at above
        except OSError as error:
            why = f"no journal can be written: {error}"
    if why is not None:
        _log.warning('ledger.lease = "auto", but leases are off: %s', why)
        return storage
    leased = leased_over(storage, clock, monotonic, policy, journal)
    if journal.has_others:
        leased.keeper.ensure()  # what a killed process left is shipped now, whether or not a call comes
    return leased


def _why_off(storage: Backend, environment: Mapping[str, str]) -> str | None:
    """Why a process can have no blocks of a storage; ``None``: it can."""
    if not storage.blocks:
        return "a ledger in memory is this process' own, there is nobody to share it with"
    lacking = [name for name in ("ship", "held_blocks", "spool_place") if not hasattr(storage, name)]
    if lacking:
        return f"this storage has no {', '.join(lacking)} (SupportsLeases, SupportsSpool)"
    found = next((name for name in SERVERLESS if name in environment), None)
    if found is not None:
        return f"{found} is set: the system freezes this process between calls"
    return "Windows has no locks of files that end with their process" if sys.platform == "win32" else None
