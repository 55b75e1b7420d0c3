"""The two drivers of a dialogue, over redis-py: one for threads, one for an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from llm_cost_middleware.budget.backend import Mark, Snapshot
from llm_cost_middleware.budget.backends.redis import records
from llm_cost_middleware.budget.backends.redis.dialogue import Command, Dialogue, Script, Talk
from llm_cost_middleware.budget.model import Budget, Receipt, Reservation, Row, Status, Verb
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError, LedgerUnavailableError, MissingExtraError

T = TypeVar("T")

_TIMEOUT_S = 5.0
_MARKS = 200_000  # lines a journal keeps, about


@cache
def source(name: str) -> tuple[str, str]:
    """A script and the SHA-1 that the server knows it by."""
    text = files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()


def redacted(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def _connect(url: str, *, asynchronous: bool) -> Any:
    """A client of redis-py that reconnects: every command of a dialogue may be sent twice."""
    try:
        from redis.backoff import ExponentialBackoff
        from redis.exceptions import ConnectionError as Lost
        from redis.exceptions import TimeoutError as TooLate

        if asynchronous:
            from redis.asyncio import Redis, RedisCluster
            from redis.asyncio.retry import Retry
        else:
            from redis import Redis, RedisCluster  # type: ignore[assignment]  # the same names, blocking
            from redis.retry import Retry  # type: ignore[assignment]
    except ImportError:
        raise MissingExtraError("a ledger on Redis", "redis") from None
    options: dict[str, Any] = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S}
    try:
        if url.startswith("redis+cluster://"):
            return RedisCluster.from_url(url.replace("redis+cluster://", "redis://", 1), **options)
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.02), 6)
        return Redis.from_url(url, retry=retry, retry_on_error=[Lost, TooLate], **options)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(str(error), key="ledger.url") from None
    except Exception as error:
        raise _unavailable(redacted(url), error) from error


def _unavailable(url: str, error: Exception) -> Exception:
    """What redis-py or the system reports, as ours; anything else as it is."""
    from redis.exceptions import RedisError

    if isinstance(error, RedisError | OSError):
        return LedgerUnavailableError(url, str(error) or type(error).__name__)
    return error


def _lost(error: Exception) -> bool:
    from redis.exceptions import NoScriptError

    return isinstance(error, NoScriptError)


class RedisBackend:
    """``Backend`` on a server, blocking."""

    def __init__(self, client: Any, dialogue: Dialogue) -> None:
        self._client, self._dialogue = client, dialogue
        self._drive(dialogue.greet())
        self.journal = RedisJournal(self)

    @classmethod
    def open(cls, url: str, clock: Clock | None, tenant: str) -> RedisBackend:
        """Connect to the server of a URL. Raises as ``Ledger.open``."""
        return cls(_connect(url, asynchronous=False), Dialogue(redacted(url), clock, tenant))

    def _drive(self, talk: Talk[T]) -> T:
        reply: Any = None
        while True:
            try:
                line = talk.send(reply)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # what the dialogue returned
            reply = self.say(line)

    def say(self, line: Script | Command) -> Any:
        """Run one command; a script that the server has lost is sent in full."""
        try:
            if isinstance(line, Command):
                return self._client.execute_command(*line.words)
            text, digest = source(line.name)
            try:
                return self._client.evalsha(digest, len(line.keys), *line.keys, *line.args)
            except Exception as error:
                if not _lost(error):
                    raise
            return self._client.eval(text, len(line.keys), *line.keys, *line.args)
        except Exception as error:
            raise _unavailable(self._dialogue.url, error) from error

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation:
        """See ``Backend``."""
        return self._drive(self._dialogue.reserve(id_, amount, scopes, ttl, memo, fresh=fresh))

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: Status, memo: bytes = b""
    ) -> Receipt:
        """See ``Backend``."""
        return self._drive(self._dialogue.resolve(verb, id_, amount, scopes=scopes, status=status, memo=memo))

    def extend(self, id_: str, ttl: int) -> Reservation:
        """See ``Backend``."""
        return self._drive(self._dialogue.extend(id_, ttl))

    def sweep(self, *, charge: bool, limit: int) -> int:
        """See ``Backend``."""
        return self._drive(self._dialogue.sweep(charge=charge, limit=limit))

    def read(self, scopes: tuple[str, ...] | None) -> Snapshot:
        """See ``Backend``."""
        return self._drive(self._dialogue.read(scopes))

    def rows(self, since: int | None, scope: str | None) -> Iterator[Row]:
        """See ``Backend``."""
        last = 0
        while block := self._drive(self._dialogue.block(last)):
            for stream_id, fields in block:
                row = records.row(stream_id, fields)
                last = row.seq
                if self._dialogue.row_wanted(row, since, scope):
                    yield row

    def set_budget(self, budget: Budget) -> None:
        """See ``Backend``."""
        self._drive(self._dialogue.set_budget(budget))

    def remove_budget(self, scope: str, window: str) -> bool:
        """See ``Backend``."""
        return self._drive(self._dialogue.remove_budget(scope, window))

    def close(self) -> None:
        """See ``Backend``."""
        self._client.close()


class AsyncRedisBackend:
    """``AsyncBackend`` on a server: for the event loop it is first used on."""

    journal = None

    def __init__(self, client: Any, dialogue: Dialogue) -> None:
        self._client, self._dialogue, self._greeted = client, dialogue, False

    @classmethod
    def open(cls, url: str, clock: Clock | None, tenant: str) -> AsyncRedisBackend:
        """A client for the server of a URL; it connects with the first verb."""
        return cls(_connect(url, asynchronous=True), Dialogue(redacted(url), clock, tenant))

    async def _drive(self, talk: Talk[T]) -> T:
        if not self._greeted:
            self._greeted = True
            try:
                await self._drive(self._dialogue.greet())
            except BaseException:
                self._greeted = False
                raise
        reply: Any = None
        while True:
            try:
                line = talk.send(reply)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # what the dialogue returned
            reply = await self.say(line)

    async def say(self, line: Script | Command) -> Any:
        """As ``RedisBackend.say``."""
        try:
            if isinstance(line, Command):
                return await self._client.execute_command(*line.words)
            text, digest = source(line.name)
            try:
                return await self._client.evalsha(digest, len(line.keys), *line.keys, *line.args)
            except Exception as error:
                if not _lost(error):
                    raise
            return await self._client.eval(text, len(line.keys), *line.keys, *line.args)
        except Exception as error:
            raise _unavailable(self._dialogue.url, error) from error

    async def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> Reservation:
        """See ``Backend``."""
        return await self._drive(self._dialogue.reserve(id_, amount, scopes, ttl, memo, fresh=fresh))

    async def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: Status, memo: bytes = b""
    ) -> Receipt:
        """See ``Backend``."""
        return await self._drive(self._dialogue.resolve(verb, id_, amount, scopes=scopes, status=status, memo=memo))

    async def extend(self, id_: str, ttl: int) -> Reservation:
        """See ``Backend``."""
        return await self._drive(self._dialogue.extend(id_, ttl))

    async def sweep(self, *, charge: bool, limit: int) -> int:
        """See ``Backend``."""
        return await self._drive(self._dialogue.sweep(charge=charge, limit=limit))

    async def read(self, scopes: tuple[str, ...] | None) -> Snapshot:
        """See ``Backend``."""
        return await self._drive(self._dialogue.read(scopes))

    async def rows(self, since: int | None, scope: str | None) -> AsyncIterator[Row]:
        """See ``Backend``."""
        last = 0
        while block := await self._drive(self._dialogue.block(last)):
            for stream_id, fields in block:
                row = records.row(stream_id, fields)
                last = row.seq
                if self._dialogue.row_wanted(row, since, scope):
                    yield row

    async def set_budget(self, budget: Budget) -> None:
        """See ``Backend``."""
        await self._drive(self._dialogue.set_budget(budget))

    async def remove_budget(self, scope: str, window: str) -> bool:
        """See ``Backend``."""
        return await self._drive(self._dialogue.remove_budget(scope, window))

    async def close(self) -> None:
        """See ``Backend``."""
        await self._client.aclose()


class RedisJournal:
    """``Journal`` on a server: a stream a kind, the last 200,000 lines of it or so."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        """See ``Journal``."""
        words = "XADD", self._key(kind), "MAXLEN", "~", _MARKS, "*", "id", id_, "at", repr(at), "data", data
        self._backend.say(Command(words))

    def read(self, kind: str, since: float | None = None) -> Iterator[Mark]:
        """See ``Journal``."""
        start = "-"
        while block := self._backend.say(Command(("XRANGE", self._key(kind), start, "+", "COUNT", 500))):
            for stream_id, fields in block:
                start = f"({stream_id.decode()}"
                at = float(fields[b"at"])
                if since is None or at >= since:
                    yield Mark(kind, fields[b"id"].decode(), at, fields[b"data"])

    def _key(self, kind: str) -> str:
        return self._backend._dialogue._key(f"marks:{kind}")  # noqa: SLF001 - one client in two classes
