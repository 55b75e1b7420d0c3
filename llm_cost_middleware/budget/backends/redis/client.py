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
from llm_cost_middleware.budget.backends.redis.connections import (
    Address,
    connect,
    is_passing,
    script_unknown,
    sentinels_of,
    unavailable,
    wait_for,
    written,
)
from llm_cost_middleware.budget.backends.redis.journal import RedisJournal, RedisSharedState
from llm_cost_middleware.budget.backends.redis.maintenance import RedisEraser
from llm_cost_middleware.budget.backends.redis.resting import RedisResting
from llm_cost_middleware.budget.backends.redis.slices import within_slices
from llm_cost_middleware.budget.backends.redis.storage import RedisCommand, RedisProtocol
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules import MemoAggregator
from llm_cost_middleware.budget.rules.bookings import Booking, BookingSums
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.commands import CommandFlow, Script
from llm_cost_middleware.budget.scripted.patience import Patience
from llm_cost_middleware.budget.scripted.sliced_protocol import SUFFIX
from llm_cost_middleware.budget.spool_place import of_server
from llm_cost_middleware.clock import Clock

P = ParamSpec("P")
T = TypeVar("T")

_KEPT = {"open", "reserve", "resolve", "extend", "reduce", "ship", "amend"}
"""Scripts whose writes must be on the replicas that a URL asks for."""


@cache
def load_script(name: str) -> tuple[str, str]:
    """Return a script and its SHA-1, by which the server caches it."""
    text = within_slices(name, lambda step: load_script(step)[0])
    if text is None:
        text = files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()


def _is_kept(command: Script) -> bool:
    return command.name.removesuffix(SUFFIX) in _KEPT


def _is_replay(command: Script, answer: Any) -> bool:
    """Whether a script wrote nothing because it was sent before: ``WAIT`` would tell nothing of that write."""
    fresh = {b"held", b"done", b"refused", b"ended", b"late"}
    return isinstance(answer, list) and bool(answer) and answer[0] not in fresh and command.name != "open"


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
        self.protocol = RedisProtocol(redacted(url), clock, tenant)
        self._client, address = self._connected(url)
        self._replicas, self._tries = address.replicas, address.tries
        self.drive(self.protocol.initialise())
        self.journal = RedisJournal(self)
        self.shared_state = RedisSharedState(self)

    def _connected(self, url: str) -> tuple[Any, Address]:
        patience = Patience(is_passing)
        while True:
            try:
                return connect(url, asynchronous=False)
            except Exception as error:
                pause = patience.pause_s(error)
                if pause is None:
                    raise unavailable(self.protocol.url, error) from error
            time.sleep(pause)

    def asynchronous(self) -> AsyncRedisBackend:
        """See ``SupportsAsync``."""
        return AsyncRedisBackend(*self._address)

    def drive(self, flow: CommandFlow[T]) -> T:
        """Run the commands of a flow."""
        reply: Any = None
        patience = Patience(is_passing, **self._tries)
        while True:
            try:
                command = flow.send(reply)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # what the flow returned
            reply = self.execute(command, patience)

    def execute(self, command: Script | RedisCommand, patience: Patience | None = None) -> Any:
        """Run one command. A script that is not in the server's cache is sent in full."""
        patience = patience or Patience(is_passing, **self._tries)
        while True:
            try:
                return self._send(command)
            except Exception as error:
                pause = patience.pause_s(error)
                if pause is None:
                    raise unavailable(self.protocol.url, error) from error
            time.sleep(pause)

    def _send(self, command: Script | RedisCommand) -> Any:
        if isinstance(command, RedisCommand):
            return self._client.execute_command(*command.words)
        text, digest = load_script(command.name)
        try:  # by its hash, which saves sending the text; a restarted server knows none
            return self._run("EVALSHA", digest, command)
        except Exception as error:
            if not script_unknown(error):
                raise
        return self._run("EVAL", text, command)

    def _run(self, how: str, script: str, command: Script) -> Any:
        words = how, script, len(command.keys), *command.keys, *command.args
        if not self._replicas or not _is_kept(command):
            return self._client.execute_command(*words)
        answer = self._on_replicas(words)
        if _is_replay(command, answer):
            self._on_replicas(("INCR", self.protocol.key("waited")))
        return answer

    def _on_replicas(self, words: tuple[Any, ...]) -> Any:
        with self._client.pipeline(transaction=False) as pipe:
            pipe.execute_command(*words)
            pipe.execute_command(*wait_for(self._replicas))
            return written(pipe.execute(raise_on_error=False), self._replicas)

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

    held_blocks = _blocking(RedisProtocol.held_blocks)

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

    def rest(self, idle: int) -> int:
        """See ``SupportsResting``."""
        return RedisResting(self).run(idle)

    def prune_journal(self, before: int | None, keep: int | None, *, most: int | None = None) -> int:
        """See ``SupportsPruning``; ``keep`` is of each kind."""
        return self.journal.prune(before, keep, most)

    def now_ms(self) -> int:
        """The time of the injected clock, or of the server."""
        return self.drive(self.protocol.current_ms())

    def close(self) -> None:
        """See ``Backend``."""
        for client in (self._client, *sentinels_of(self._client)):
            client.close()


class AsyncRedisBackend:
    """``AsyncBackend`` on the Redis server of a URL, for one event loop. Connects with its first verb."""

    slices = True

    def __init__(self, url: str, clock: Clock | None, tenant: str) -> None:
        self._client, address = connect(url, asynchronous=True)
        self._replicas, self._tries = address.replicas, address.tries
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
        patience = Patience(is_passing, **self._tries)
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
                    raise unavailable(self.protocol.url, error) from error
            await asyncio.sleep(pause)

    async def _send(self, command: Script | RedisCommand) -> Any:
        if isinstance(command, RedisCommand):
            return await self._client.execute_command(*command.words)
        text, digest = load_script(command.name)
        try:
            return await self._run("EVALSHA", digest, command)
        except Exception as error:
            if not script_unknown(error):
                raise
        return await self._run("EVAL", text, command)

    async def _run(self, how: str, script: str, command: Script) -> Any:
        words = how, script, len(command.keys), *command.keys, *command.args
        if not self._replicas or not _is_kept(command):
            return await self._client.execute_command(*words)
        answer = await self._on_replicas(words)
        if _is_replay(command, answer):
            await self._on_replicas(("INCR", self.protocol.key("waited")))
        return answer

    async def _on_replicas(self, words: tuple[Any, ...]) -> Any:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.execute_command(*words)
            pipe.execute_command(*wait_for(self._replicas))
            return written(await pipe.execute(raise_on_error=False), self._replicas)

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
    held_blocks = _asynchronous(RedisProtocol.held_blocks)

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
        for client in (self._client, *sentinels_of(self._client)):
            await client.aclose()
