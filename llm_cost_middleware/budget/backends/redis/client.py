"""Two drivers of ``RedisProtocol`` over redis-py: one for threads, one for an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import cache
from hashlib import sha1
from importlib.resources import files
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from llm_cost_middleware.budget.backend import ArchiveResult, Erasure, redacted
from llm_cost_middleware.budget.backends.redis.archive import RedisArchive
from llm_cost_middleware.budget.backends.redis.bookings import read_bookings
from llm_cost_middleware.budget.backends.redis.journal import RedisJournal, RedisSharedState
from llm_cost_middleware.budget.backends.redis.maintenance import RedisEraser
from llm_cost_middleware.budget.backends.redis.slices import within_slices
from llm_cost_middleware.budget.backends.redis.storage import RedisCommand, RedisProtocol
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules import MemoAggregator
from llm_cost_middleware.budget.rules.bookings import Booking, BookingSums
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.commands import CommandFlow, Script
from llm_cost_middleware.budget.scripted.patience import TIMEOUT_S, Patience
from llm_cost_middleware.budget.spool_place import of_server
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError, LedgerUnavailableError
from llm_cost_middleware.extras import needed_for

P = ParamSpec("P")
T = TypeVar("T")


@cache
def load_script(name: str) -> tuple[str, str]:
    """Return a script and its SHA-1, by which the server caches it."""
    text = within_slices(name, lambda step: load_script(step)[0])
    if text is None:
        text = files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()


def _connect(url: str, *, asynchronous: bool) -> Any:
    """Make a client of redis-py that reconnects. It sends nothing again by itself: that is ``Patience``'s."""
    with needed_for("a ledger on Redis"):
        from redis.backoff import NoBackoff

        if asynchronous:
            from redis.asyncio import Redis, RedisCluster
            from redis.asyncio.retry import Retry
        else:
            from redis import Redis, RedisCluster  # type: ignore[assignment]  # the same names, blocking
            from redis.retry import Retry  # type: ignore[assignment]
    options: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    try:
        if url.startswith("redis+cluster://"):
            return RedisCluster.from_url(url.replace("redis+cluster://", "redis://", 1), **options)
        return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
    except (ValueError, TypeError) as error:
        # A password that was not encoded is read as a port, and repeated in the error of redis-py.
        advice = "cannot be read; write redis://user:password@host:port/db, the password percent-encoded"
        raise ConfigurationError(str(error) if url == redacted(url) else advice, key="ledger.url") from None
    except Exception as error:
        raise _unavailable(redacted(url), error) from error


def _is_lost(error: Exception) -> bool:
    """Whether the connection was lost, or the server was too late."""
    from redis.exceptions import ConnectionError as Lost
    from redis.exceptions import TimeoutError as TooLate

    return isinstance(error, Lost | TooLate)


def _unavailable(url: str, error: Exception) -> Exception:
    """Return an error of redis-py or the system as ``LedgerUnavailableError``; any other unchanged."""
    from redis.exceptions import RedisClusterException, RedisError

    if isinstance(error, RedisError | RedisClusterException | OSError):
        return LedgerUnavailableError(url, str(error) or type(error).__name__)
    return error


def _script_unknown(error: Exception) -> bool:
    from redis.exceptions import NoScriptError

    return isinstance(error, NoScriptError)


def _blocking(
    verb: Callable[Concatenate[RedisProtocol, P], CommandFlow[T]],
) -> Callable[Concatenate[RedisBackend, P], T]:
    """Make the blocking form of a verb of ``RedisProtocol``."""

    def run(self: RedisBackend, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.drive(verb(self.protocol, *args, **kwargs))

    run.__name__, run.__doc__ = verb.__name__, f"See ``Backend.{verb.__name__}``."
    return run


def _asynchronous(
    verb: Callable[Concatenate[RedisProtocol, P], CommandFlow[T]],
) -> Callable[Concatenate[AsyncRedisBackend, P], Coroutine[Any, Any, T]]:
    """Make the asynchronous form of a verb of ``RedisProtocol``."""

    async def run(self: AsyncRedisBackend, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.drive(verb(self.protocol, *args, **kwargs))

    run.__name__, run.__doc__ = verb.__name__, f"See ``Backend.{verb.__name__}``."
    return run


class RedisBackend:
    """``Backend`` on the Redis server of a URL. Connects at once; raises as ``Ledger.open``."""

    blocks = answers_late = slices = True

    def __init__(self, url: str, clock: Clock | None, tenant: str) -> None:
        self._address = url, clock, tenant
        self.spool_place = of_server(redacted(url), tenant)
        self._client = _connect(url, asynchronous=False)
        self.protocol = RedisProtocol(redacted(url), clock, tenant)
        self.drive(self.protocol.initialise())
        self.journal = RedisJournal(self)
        self.shared_state = RedisSharedState(self)

    def asynchronous(self) -> AsyncRedisBackend:
        """See ``SupportsAsync``."""
        return AsyncRedisBackend(*self._address)

    def drive(self, flow: CommandFlow[T]) -> T:
        """Run the commands of a flow."""
        reply: Any = None
        patience = Patience(_is_lost)
        while True:
            try:
                command = flow.send(reply)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # what the flow returned
            reply = self.execute(command, patience)

    def execute(self, command: Script | RedisCommand, patience: Patience | None = None) -> Any:
        """Run one command. A script that is not in the server's cache is sent in full."""
        patience = patience or Patience(_is_lost)
        while True:
            try:
                return self._send(command)
            except Exception as error:
                pause = patience.pause_s(error)
                if pause is None:
                    raise _unavailable(self.protocol.url, error) from error
            time.sleep(pause)

    def _send(self, command: Script | RedisCommand) -> Any:
        if isinstance(command, RedisCommand):
            return self._client.execute_command(*command.words)
        text, digest = load_script(command.name)
        try:  # by its hash, which saves sending the text; a restarted server knows none
            return self._client.evalsha(digest, len(command.keys), *command.keys, *command.args)
        except Exception as error:
            if not _script_unknown(error):
                raise
        return self._client.eval(text, len(command.keys), *command.keys, *command.args)

    reserve = _blocking(RedisProtocol.reserve)
    resolve = _blocking(RedisProtocol.resolve)
    extend = _blocking(RedisProtocol.extend)
    reduce = _blocking(RedisProtocol.reduce)
    ship = _blocking(RedisProtocol.ship)
    sweep = _blocking(RedisProtocol.sweep)
    read = _blocking(RedisProtocol.read)
    set_budget = _blocking(RedisProtocol.set_budget)
    remove_budget = _blocking(RedisProtocol.remove_budget)
    amend = _blocking(RedisProtocol.amend)
    register = _blocking(RedisProtocol.register)

    def rows(self, since: int | None, scope: str | None) -> Iterator[Row]:
        """See ``Backend``."""
        reader = self.protocol.new_reader()
        try:
            for row in self.read_rows(since, reader):
                if scope is None or scope in row.scopes:
                    yield row
        finally:
            self.drive(self.protocol.end_reading(reader))

    def read_rows(self, since: int | None, reader: str) -> Iterator[Row]:
        """Stream rows in the name of a reader: none is archived meanwhile."""
        last = self.drive(self.protocol.before_first_row(since))
        while block := self.drive(self.protocol.read_block(last, reader)):
            for stream_id, fields in block:
                row = encoding.read_row(stream_id, fields)
                last = row.seq
                if since is None or row.at * 1000 >= since:
                    yield row

    def bookings(self, since: int | None, until: int | None, sums: BookingSums) -> Iterator[Booking]:
        """See ``SupportsBookings``. What was archived is read from the rows that carry its sums."""
        del sums  # these are finer than anybody asks for
        return read_bookings(self, since, until)

    def archive(self, before: int, path: Path | None, summary: MemoAggregator, *, keep: bool = True) -> ArchiveResult:
        """See ``SupportsArchive``."""
        return RedisArchive(self, summary).run(before, path, keep=keep)

    def erase(self, scope: str) -> Erasure:
        """See ``SupportsErasure``."""
        return RedisEraser(self).run(scope)

    def prune_journal(self, before: int | None, keep: int | None, *, most: int | None = None) -> int:
        """See ``SupportsPruning``; ``keep`` is of each kind."""
        return self.journal.prune(before, keep, most)

    def now_ms(self) -> int:
        """The time of the injected clock, or of the server."""
        return self.drive(self.protocol.current_ms())

    def close(self) -> None:
        """See ``Backend``."""
        self._client.close()


class AsyncRedisBackend:
    """``AsyncBackend`` on the Redis server of a URL, for one event loop. Connects with its first verb."""

    slices = True

    def __init__(self, url: str, clock: Clock | None, tenant: str) -> None:
        self._client = _connect(url, asynchronous=True)
        self.protocol, self._initialised = RedisProtocol(redacted(url), clock, tenant), False

    async def drive(self, flow: CommandFlow[T]) -> T:
        """Run the commands of a flow."""
        if not self._initialised:
            self._initialised = True  # first: the flow below comes through here too
            try:
                await self.drive(self.protocol.initialise())
            except BaseException:
                self._initialised = False
                raise
        reply: Any = None
        patience = Patience(_is_lost)
        while True:
            try:
                command = flow.send(reply)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # what the flow returned
            reply = await self._execute(command, patience)

    async def _execute(self, command: Script | RedisCommand, patience: Patience) -> Any:
        while True:
            try:
                return await self._send(command)
            except Exception as error:
                pause = patience.pause_s(error)
                if pause is None:
                    raise _unavailable(self.protocol.url, error) from error
            await asyncio.sleep(pause)

    async def _send(self, command: Script | RedisCommand) -> Any:
        if isinstance(command, RedisCommand):
            return await self._client.execute_command(*command.words)
        text, digest = load_script(command.name)
        try:
            return await self._client.evalsha(digest, len(command.keys), *command.keys, *command.args)
        except Exception as error:
            if not _script_unknown(error):
                raise
        return await self._client.eval(text, len(command.keys), *command.keys, *command.args)

    reserve = _asynchronous(RedisProtocol.reserve)
    resolve = _asynchronous(RedisProtocol.resolve)
    extend = _asynchronous(RedisProtocol.extend)
    reduce = _asynchronous(RedisProtocol.reduce)
    sweep = _asynchronous(RedisProtocol.sweep)
    read = _asynchronous(RedisProtocol.read)
    set_budget = _asynchronous(RedisProtocol.set_budget)
    remove_budget = _asynchronous(RedisProtocol.remove_budget)
    amend = _asynchronous(RedisProtocol.amend)
    register = _asynchronous(RedisProtocol.register)

    async def rows(self, since: int | None, scope: str | None) -> AsyncIterator[Row]:
        """See ``Backend``."""
        reader = self.protocol.new_reader()
        last = await self.drive(self.protocol.before_first_row(since))
        try:
            while block := await self.drive(self.protocol.read_block(last, reader)):
                for stream_id, fields in block:
                    row = encoding.read_row(stream_id, fields)
                    last = row.seq
                    if (since is None or row.at * 1000 >= since) and (scope is None or scope in row.scopes):
                        yield row
        finally:
            await self.drive(self.protocol.end_reading(reader))

    async def close(self) -> None:
        """See ``Backend``."""
        await self._client.aclose()
