"""Connections of psycopg that give up in time, and what its errors mean."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from threading import BoundedSemaphore
from typing import Any

from llm_cost_middleware.budget.backend import redacted
from llm_cost_middleware.budget.scripted.patience import TIMEOUT_S
from llm_cost_middleware.errors import ConfigurationError, LedgerUnavailableError, MissingExtraError
from llm_cost_middleware.extras import needed_for

CONNECTIONS = 8
"""Connections of a process, or of an event loop, at most: a server serves a hundred by default."""
READ_S = 600.0
"""Seconds that one answer to a report may take."""
_ADVICE = "cannot be read; write postgresql://user:password@host:port/database, the password percent-encoded"


@cache
def classes() -> tuple[type[Any], type[Any]]:
    """Return the classes of connections, made when a driver is there."""
    with needed_for("a ledger on PostgreSQL"):
        import psycopg

    class Connection(psycopg.Connection[Any]):
        """Gives up on an answer after ``timeout_s``: a server that is frozen keeps its sockets open."""

        timeout_s = TIMEOUT_S

        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            return super().wait(gen, interval, self.timeout_s if timeout is None else timeout)

    class AsyncConnection(psycopg.AsyncConnection[Any]):
        """The same for an event loop."""

        timeout_s = TIMEOUT_S

        async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg's
            return await super().wait(gen, interval, self.timeout_s if timeout is None else timeout)

    return Connection, AsyncConnection


def _options() -> dict[str, Any]:
    # No prepared statements: PgBouncer may hand the next one to another session. Autocommit: a step is a transaction.
    options = {"autocommit": True, "prepare_threshold": None, "connect_timeout": int(TIMEOUT_S)}
    return {**options, "application_name": "llm-cost-middleware"}


def connect(url: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Connect for threads. Raises ``ConfigurationError`` for a URL that cannot be read, else as psycopg."""
    made, _ = classes()
    with _readable(url):
        db = made.connect(url, **_options())
    db.timeout_s = timeout_s
    return db


async def connect_async(url: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Connect for an event loop; as ``connect``."""
    _, made = classes()
    with _readable(url):
        db = await made.connect(url, **_options())
    db.timeout_s = timeout_s
    return db


@contextmanager
def _readable(url: str) -> Iterator[None]:
    from psycopg import ProgrammingError

    try:
        yield
    except (ProgrammingError, UnicodeError) as error:  # the error repeats a password that was not encoded
        raise ConfigurationError(str(error) if url == redacted(url) else _ADVICE, key="ledger.url") from None


def is_passing(error: Exception) -> bool:
    """Whether an error of psycopg may be gone at the next try: of the connection, a lock, or a server that changes."""
    if isinstance(error, MissingExtraError):  # there is no driver to ask for its errors
        return False
    from psycopg import InterfaceError, OperationalError
    from psycopg.errors import ReadOnlySqlTransaction

    return isinstance(error, OperationalError | InterfaceError | ReadOnlySqlTransaction)


def is_lost(error: BaseException) -> bool:
    """Whether an error tells of a lost connection: a server that ended one may have ended all, and each costs a try."""
    if isinstance(error, MissingExtraError):  # there is no driver to ask for its errors
        return False
    from psycopg import OperationalError

    # without a code it is the driver's, of the connection; else an exception of it, or a server that shuts down
    return isinstance(error, OperationalError) and (error.sqlstate or "08")[:3] in {"08", "080", "57P"}


def unavailable(url: str, error: Exception) -> Exception:
    """Return an error of psycopg or the system as ``LedgerUnavailableError``; any other unchanged."""
    if isinstance(error, MissingExtraError):  # there is no driver to ask for its errors
        return error
    from psycopg import Error

    if isinstance(error, Error | OSError):
        return LedgerUnavailableError(url, str(error).strip().partition("\n")[0] or type(error).__name__)
    return error


class Connections:
    """Connections of a process, taken by one thread each. Those that failed are not used again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._start()

    def _start(self) -> None:
        self._idle, self._room = deque[Any](), BoundedSemaphore(CONNECTIONS)
        self._pid = os.getpid()  # last: a thread that finds it finds the others

    @contextmanager
    def one(self) -> Iterator[Any]:
        """Take one for as long as the block lasts."""
        if self._pid != os.getpid():  # after a fork those of the parent are the parent's: closing one would end it
            _inherited.append(self._idle)
            self._start()
        idle, room = self._idle, self._room
        if not room.acquire(timeout=TIMEOUT_S):
            raise LedgerUnavailableError(redacted(self._url), f"its {CONNECTIONS} connections are all busy")
        try:
            db = _newest(idle)
            if db is None:
                db = connect(self._url)
            try:
                yield db
            except BaseException as error:
                db.close()
                while is_lost(error) and (other := _newest(idle)) is not None:
                    other.close()
                raise
            idle.append(db)
        finally:
            room.release()

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._pid == os.getpid() and (db := _newest(self._idle)) is not None:
            db.close()


class AsyncConnections:
    """The same for an event loop."""

    def __init__(self, url: str) -> None:
        self._url, self._idle, self._room = url, deque[Any](), asyncio.Semaphore(CONNECTIONS)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Any]:
        """Take one for as long as the block lasts."""
        async with self._room:
            db = _newest(self._idle)
            if db is None:
                db = await connect_async(self._url)
            try:
                yield db
            except BaseException as error:
                await db.close()
                while is_lost(error) and (other := _newest(self._idle)) is not None:
                    await other.close()
                raise
            self._idle.append(db)

    async def close(self) -> None:
        """Close those that nobody uses."""
        while (db := _newest(self._idle)) is not None:
            await db.close()


def _newest(idle: deque[Any]) -> Any:
    try:
        return idle.pop()
    except IndexError:
        return None


_inherited: list[deque[Any]] = []
