"""Ledger whose storage was away when it was opened: opened by the first verb that finds it there.

Only where ``on_unavailable`` is ``allow``: until then every verb raises ``LedgerUnavailableError``, which it tolerates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from llm_cost_middleware.budget.backend import (
    Backend,
    BudgetStep,
    Journal,
    JournalEntry,
    SharedState,
    Snapshot,
    SupportsJournal,
    SupportsRegister,
    SupportsSharedState,
    redacted,
)
from llm_cost_middleware.budget.model import Budget, Receipt, Reservation, Row, RowStatus, Verb
from llm_cost_middleware.budget.rules.slices import SupportsSlices
from llm_cost_middleware.budget.spool_place import SpoolPlace, beside, of_server
from llm_cost_middleware.errors import ConfigurationError, LedgerUnavailableError
from llm_cost_middleware.fork import ForkSafeLock

_PAUSE_S = 1.0
"""Seconds for which a storage that was away is not asked again: a call must not wait for it each time."""


class LateBackend:
    """``Backend`` over a storage that is not there yet. Serves event loops by worker threads, whatever it is.

    Args:
        connect: Opens the storage, and puts the budgets in force. Raises ``LedgerUnavailableError``.
        monotonic: Time.
        spool_place: See ``SupportsSpool``.
        error: What the first try met.
    """

    blocks = True
    _lock = ForkSafeLock()

    def __init__(
        self,
        connect: Callable[[], Backend],
        monotonic: Callable[[], float],
        spool_place: SpoolPlace,
        error: LedgerUnavailableError,
    ) -> None:
        self._connect, self._monotonic, self.spool_place = connect, monotonic, spool_place
        self._backend: Backend | None = None
        self._error, self._again = error, monotonic() + _PAUSE_S
        self.journal, self.shared_state = LateJournal(self), LateSharedState(self)

    @property
    def storage(self) -> Backend:
        """The storage, opened. Raises ``LedgerUnavailableError``."""
        if self._backend is None:
            with self._lock:
                if self._backend is None:
                    self._open()
        if self._backend is None:
            raise LedgerUnavailableError(self._error.url, self._error.reason) from self._error
        return self._backend

    def _open(self) -> None:
        if self._monotonic() < self._again:
            return
        try:
            self._backend = self._connect()
        except LedgerUnavailableError as error:
            self._error, self._again = error, self._monotonic() + _PAUSE_S

    @property
    def slices(self) -> bool:
        """See ``SupportsSlices``."""
        if isinstance(self.storage, SupportsSlices):
            return True
        raise AttributeError("slices")

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation:
        """See ``Backend``."""
        return self.storage.reserve(id_, amount, scopes, ttl, memo, fresh=fresh)

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: RowStatus, memo: bytes = b""
    ) -> Receipt:
        """See ``Backend``."""
        return self.storage.resolve(verb, id_, amount, scopes=scopes, status=status, memo=memo)

    def extend(self, id_: str, ttl: int) -> Reservation:
        """See ``Backend``."""
        return self.storage.extend(id_, ttl)

    def sweep(self, *, charge: bool, limit: int) -> int:
        """See ``Backend``."""
        return self.storage.sweep(charge=charge, limit=limit)

    def read(self, scopes: tuple[str, ...] | None) -> Snapshot:
        """See ``Backend``."""
        return self.storage.read(scopes)

    def rows(self, since: int | None, scope: str | None) -> Iterator[Row]:
        """See ``Backend``."""
        return self.storage.rows(since, scope)

    def set_budget(self, budget: Budget) -> None:
        """See ``Backend``."""
        self.storage.set_budget(budget)

    def remove_budget(self, scope: str, window: str) -> bool:
        """See ``Backend``."""
        return self.storage.remove_budget(scope, window)

    def amend(self, decide: BudgetStep) -> None:
        """See ``SupportsRegister``."""
        storage = self.storage
        if not isinstance(storage, SupportsRegister):
            raise _lacking(storage)
        storage.amend(decide)

    def register(self) -> bytes:
        """See ``SupportsRegister``."""
        storage = self.storage
        if not isinstance(storage, SupportsRegister):
            raise _lacking(storage)
        return storage.register()

    def close(self) -> None:
        """See ``Backend``."""
        if self._backend is not None:
            self._backend.close()

    def own_journal(self) -> Journal | None:
        """Journal of the storage."""
        storage = self.storage
        return storage.journal if isinstance(storage, SupportsJournal) else None

    def own_shared_state(self) -> SharedState | None:
        """Shared values of the storage."""
        storage = self.storage
        return storage.shared_state if isinstance(storage, SupportsSharedState) else None


def _lacking(storage: Backend) -> ConfigurationError:
    return ConfigurationError(f"{type(storage).__name__} keeps no register of budgets", key="ledger.url")


class LateJournal:
    """Journal of a storage that is not there yet; of one that keeps none, it keeps nothing."""

    def __init__(self, backend: LateBackend) -> None:
        self._backend = backend

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        """See ``Journal``."""
        journal = self._backend.own_journal()
        if journal is not None:
            journal.append(kind, id_, at, data)

    def read(self, kind: str, since: float | None = None) -> Iterator[JournalEntry]:
        """See ``Journal``."""
        journal = self._backend.own_journal()
        return iter(()) if journal is None else journal.read(kind, since)


class LateSharedState:
    """Shared values of a storage that is not there yet."""

    def __init__(self, backend: LateBackend) -> None:
        self._backend = backend

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """See ``SharedState``."""
        shared = self._backend.own_shared_state()
        return [None] * len(keys) if shared is None else shared.read(keys)

    def change(self, keys: Sequence[str], to: Callable[[list[bytes | None]], Sequence[bytes]], at: float) -> None:
        """See ``SharedState``."""
        shared = self._backend.own_shared_state()
        if shared is not None:
            shared.change(keys, to, at)


def place_of(url: str, tenant: str) -> SpoolPlace:
    """Return the place of the ledger of a URL that was not opened."""
    if url.startswith("sqlite:"):
        from llm_cost_middleware.budget.backends.sqlite.connection import path_of

        return beside(path_of(url).resolve(), tenant)
    return of_server(redacted(url), tenant)
