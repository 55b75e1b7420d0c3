"""The right to do what one process at a time does to a ledger: a row with a lease, since a pooler shares sessions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, Self, TypeVar

from llm_cost_middleware.budget.backends.postgres.storage import Begin, PostgresProtocol, Query
from llm_cost_middleware.budget.scripted.commands import CommandFlow
from llm_cost_middleware.errors import LedgerError, LedgerUnavailableError

T = TypeVar("T")
LEASE_MS = 60_000
_TAKE = (
    "INSERT INTO llm_cost.upkeep AS known (tenant, token, until) VALUES (%s, %s, llm_cost.moment(NULL) + %s)"
    " ON CONFLICT (tenant) DO UPDATE SET token = excluded.token, until = excluded.until"
    " WHERE known.until < llm_cost.moment(NULL) OR known.token = excluded.token RETURNING 1"
)
_LEAVE = "DELETE FROM llm_cost.upkeep WHERE tenant = %s AND token = %s"
_KEEP = "SELECT llm_cost.keep_turn(%s, %s, %s)"


def only(query: Query) -> CommandFlow[list[tuple[Any, ...]]]:
    """Run one query; return its rows."""
    rows: list[tuple[Any, ...]] = yield query
    return rows


class Storage(Protocol):
    """What is needed of the backend."""

    @property
    def protocol(self) -> PostgresProtocol:
        """The verbs."""
        ...

    def drive(self, make: Callable[[], CommandFlow[T]]) -> T:
        """Run the steps of a flow."""
        ...

    def stream(self, *queries: Query) -> Iterator[tuple[Any, ...]]:
        """Stream the rows of queries."""
        ...


class Turn:
    """The right, until the block that took it ends. Every step renews it: it was lost where a step fails."""

    def __init__(self, backend: Storage) -> None:
        self.backend, self.tenant, self.token = backend, backend.protocol.number, os.urandom(8).hex()

    @classmethod
    @contextmanager
    def held(cls, backend: Storage) -> Iterator[Self]:
        """Hold it. Raises ``LedgerUnavailableError`` while another process has it."""
        turn = cls(backend)
        if not turn.ask(_TAKE, turn.tenant, turn.token, LEASE_MS):
            raise LedgerUnavailableError(backend.protocol.url, "another process is archiving it")
        try:
            yield turn
        finally:
            with suppress(LedgerError):
                turn.ask(_LEAVE, turn.tenant, turn.token)

    def ask(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a query; return its rows."""
        return self.backend.drive(lambda: only(Query(text, values)))

    def step(self, make: Callable[[], CommandFlow[T]]) -> T:
        """Run the steps of a flow in one transaction, which may be sent twice."""

        def flow() -> CommandFlow[T]:
            yield Begin()
            yield Query(_KEEP, (self.tenant, self.token, LEASE_MS))
            return (yield from make())

        return self.backend.drive(flow)
