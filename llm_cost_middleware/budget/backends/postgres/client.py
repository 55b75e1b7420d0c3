"""Two drivers of ``NotedProtocol`` over psycopg: one for threads, one for an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from llm_cost_middleware.budget.backend import redacted
from llm_cost_middleware.budget.backends.postgres.connections import (
    READ_S,
    AsyncConnections,
    Connections,
    connect,
    connect_async,
    is_passing,
    unavailable,
)
from llm_cost_middleware.budget.backends.postgres.noted import NotedProtocol
from llm_cost_middleware.budget.backends.postgres.notes import PostgresJournal, PostgresSharedState
from llm_cost_middleware.budget.backends.postgres.storage import Query, read_row, rows_query
from llm_cost_middleware.budget.backends.postgres.upkeep import PostgresUpkeep
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.scripted.commands import CommandFlow
from llm_cost_middleware.budget.scripted.patience import Patience
from llm_cost_middleware.budget.spool_place import of_server
from llm_cost_middleware.clock import Clock

P = ParamSpec("P")
T = TypeVar("T")

_AT_ONE_MOMENT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BLOCK = 2_000


def _blocking(
    verb: Callable[Concatenate[NotedProtocol, P], CommandFlow[T]],
) -> Callable[Concatenate[PostgresBackend, P], T]:
    """Make the blocking form of a verb of ``NotedProtocol``."""

    def run(self: PostgresBackend, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.drive(lambda: verb(self.protocol, *args, **kwargs))

    run.__name__, run.__doc__ = verb.__name__, f"See ``Backend.{verb.__name__}``."
    return run


def _asynchronous(
    verb: Callable[Concatenate[NotedProtocol, P], CommandFlow[T]],
) -> Callable[Concatenate[AsyncPostgresBackend, P], Coroutine[Any, Any, T]]:
    """Make the asynchronous form of a verb of ``NotedProtocol``."""

    async def run(self: AsyncPostgresBackend, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.drive(lambda: verb(self.protocol, *args, **kwargs))

    run.__name__, run.__doc__ = verb.__name__, f"See ``Backend.{verb.__name__}``."
    return run


class PostgresBackend(PostgresUpkeep):
    """``Backend`` in the database of a URL. Connects at once; raises as ``Ledger.open``."""

    blocks = answers_late = slices = takes_notes = True

    def __init__(self, url: str, clock: Clock | None, tenant: str) -> None:
        self._address = url, clock, tenant
        self.spool_place = of_server(redacted(url), tenant)
        self.protocol = NotedProtocol(redacted(url), clock, tenant)
        self._connections = Connections(url)
        try:
            self.drive(self.protocol.initialise)
        except BaseException:
            self._connections.close()
            raise
        self.journal, self.shared_state = PostgresJournal(self), PostgresSharedState(self)

    def asynchronous(self) -> AsyncPostgresBackend:
        """See ``SupportsAsync``."""
        return AsyncPostgresBackend(*self._address)

    def drive(self, make: Callable[[], CommandFlow[T]]) -> T:
        """Run the steps of a flow; from its beginning again where the connection was lost: each may be sent twice."""
        patience = Patience(is_passing)
        while True:
            try:
                return self._drive(make())
            except Exception as error:
                pause = patience.pause_s(error)
                if pause is None:
                    raise unavailable(self.protocol.url, error) from error
            time.sleep(pause)

    def _drive(self, flow: CommandFlow[T]) -> T:
        statements, rows = self.protocol.statements(flow), None
        with self._connections.one() as db:
            while True:
                try:
                    query = statements.send(rows)
                except StopIteration as end:
                    result, error = end.value
                    break
                cursor = db.execute(query.text, query.values or None)
                rows = cursor.fetchall() if cursor.description else []
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]  # what the flow returned

    reserve = _blocking(NotedProtocol.reserve)
    resolve = _blocking(NotedProtocol.resolve)
    extend = _blocking(NotedProtocol.extend)
    reduce = _blocking(NotedProtocol.reduce)
    ship = _blocking(NotedProtocol.ship)
    sweep = _blocking(NotedProtocol.sweep)
    read = _blocking(NotedProtocol.read)
    set_budget = _blocking(NotedProtocol.set_budget)
    remove_budget = _blocking(NotedProtocol.remove_budget)
    amend = _blocking(NotedProtocol.amend)
    register = _blocking(NotedProtocol.register)

    held_blocks = _blocking(NotedProtocol.held_blocks)

    def stream(self, *queries: Query) -> Iterator[tuple[Any, ...]]:
        """Stream the rows of queries, one after the other, as they are at one moment.

        By a connection of its own: the reader may be slow.
        """
        try:
            with connect(self._address[0], READ_S) as db:
                db.execute(_AT_ONE_MOMENT)
                for query in queries:
                    with db.cursor("stream") as cursor:
                        cursor.itersize = _BLOCK
                        yield from cursor.execute(query.text, query.values)
        except Exception as error:
            raise unavailable(self.protocol.url, error) from error

    def rows(self, since: int | None, scope: str | None) -> Iterator[Row]:
        """See ``Backend``."""
        yield from map(read_row, self.stream(rows_query(self.protocol.number, since, scope)))

    def close(self) -> None:
        """See ``Backend``."""
        self._connections.close()


class AsyncPostgresBackend:
    """``AsyncBackend`` in the database of a URL, for one event loop. Connects with its first verb."""

    slices = takes_notes = True

    def __init__(self, url: str, clock: Clock | None, tenant: str) -> None:
        self._url = url
        self.protocol, self._initialised = NotedProtocol(redacted(url), clock, tenant), False
        self._connections = AsyncConnections(url)

    async def drive(self, make: Callable[[], CommandFlow[T]]) -> T:
        """Run the steps of a flow, as ``PostgresBackend``."""
        patience = Patience(is_passing)
        while True:
            try:
                if not self._initialised:
                    await self._drive(self.protocol.initialise())
                    self._initialised = True
                return await self._drive(make())
            except Exception as error:
                pause = patience.pause_s(error)
                if pause is None:
                    raise unavailable(self.protocol.url, error) from error
            await asyncio.sleep(pause)

    async def _drive(self, flow: CommandFlow[T]) -> T:
        statements, rows = self.protocol.statements(flow), None
        async with self._connections.one() as db:
            while True:
                try:
                    query = statements.send(rows)
                except StopIteration as end:
                    result, error = end.value
                    break
                cursor = await db.execute(query.text, query.values or None)
                rows = await cursor.fetchall() if cursor.description else []
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]  # what the flow returned

    reserve = _asynchronous(NotedProtocol.reserve)
    resolve = _asynchronous(NotedProtocol.resolve)
    extend = _asynchronous(NotedProtocol.extend)
    reduce = _asynchronous(NotedProtocol.reduce)
    sweep = _asynchronous(NotedProtocol.sweep)
    read = _asynchronous(NotedProtocol.read)
    set_budget = _asynchronous(NotedProtocol.set_budget)
    remove_budget = _asynchronous(NotedProtocol.remove_budget)
    amend = _asynchronous(NotedProtocol.amend)
    register = _asynchronous(NotedProtocol.register)
    held_blocks = _asynchronous(NotedProtocol.held_blocks)

    async def rows(self, since: int | None, scope: str | None) -> AsyncIterator[Row]:
        """See ``Backend``."""
        try:
            if not self._initialised:
                await self.read(())
            query = rows_query(self.protocol.number, since, scope)
            async with await connect_async(self._url, READ_S) as db:
                await db.execute(_AT_ONE_MOMENT)
                async with db.cursor("stream") as cursor:
                    cursor.itersize = _BLOCK
                    async for row in await cursor.execute(query.text, query.values):
                        yield read_row(row)
        except Exception as error:
            raise unavailable(self.protocol.url, error) from error

    async def close(self) -> None:
        """See ``Backend``."""
        await self._connections.close()
