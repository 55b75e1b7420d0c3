"""Journal and shared values on a Redis server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.budget.archive_file import beside, write_lines
from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.backends.redis.storage import RedisCommand
from llm_cost_middleware.budget.notes import LASTING
from llm_cost_middleware.budget.scripted.commands import Script

if TYPE_CHECKING:
    from llm_cost_middleware.budget.backends.redis.client import RedisBackend

_SHARED_KEPT, _SHARED_S = 20_000, 86_400  # shared values that are kept, and for how long after their last change
_JOURNAL_LENGTH = 200_000  # entries kept per kind, about: an exact MAXLEN costs Redis more
_CHUNK = 500


class RedisJournal:
    """``Journal`` on a Redis server: one stream per kind, trimmed to about 200,000 entries."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend, self._listed = backend, set[str]()

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        """See ``Journal``."""
        if kind not in self._listed:  # once a process: a flushed server is an error elsewhere
            self._do("SADD", self._backend.protocol.key("kinds"), kind)
            self._listed.add(kind)
        words = "XADD", self._key(kind), "MAXLEN", "~", _JOURNAL_LENGTH, "*", "id", id_, "at", repr(at), "data", data
        self._backend.execute(RedisCommand(words))

    def append_all(self, lines: Sequence[JournalEntry]) -> None:
        """Append entries, in one step."""
        for kind in {line.kind for line in lines} - self._listed:
            self._do("SADD", self._backend.protocol.key("kinds"), kind)
            self._listed.add(kind)
        args: list[Any] = [_JOURNAL_LENGTH]
        for line in lines:
            args += line.id, repr(line.at), line.data
        self._backend.execute(Script("append", [self._key(line.kind) for line in lines], args))

    def read(self, kind: str, since: float | None = None) -> Iterator[JournalEntry]:
        """See ``Journal``."""
        start = "-"
        while block := self._backend.execute(RedisCommand(("XRANGE", self._key(kind), start, "+", "COUNT", 500))):
            for stream_id, fields in block:
                start = f"({stream_id.decode()}"
                entry = _entry(kind, fields)
                if since is None or entry.at >= since:
                    yield entry

    def newest(self, kind: str) -> Iterator[JournalEntry]:
        """Stream the entries of a kind, the last one first."""
        end = "+"
        while block := self._backend.execute(RedisCommand(("XREVRANGE", self._key(kind), end, "-", "COUNT", 500))):
            for stream_id, fields in block:
                end = f"({stream_id.decode()}"
                yield _entry(kind, fields)

    def kinds(self) -> list[str]:
        """The kinds of entries that there are."""
        return sorted(name.decode() for name in self._do("SMEMBERS", self._backend.protocol.key("kinds")))

    def _passing(self) -> list[str]:
        """The kinds of entries that may be taken away."""
        return [kind for kind in self.kinds() if kind not in LASTING]

    def move(self, before_ms: int, archive: str) -> int:
        """Move the entries before a time to a file beside an archive; return how many. Without an archive none."""
        if not archive:
            return 0
        last: dict[str, bytes] = {}

        def lines() -> Iterator[JournalEntry]:
            for kind in self._passing():
                for place, entry in self._old(kind, before_ms):
                    last[kind] = place
                    yield entry

        count = write_lines(beside(Path(archive)), lines)
        for kind, place in last.items():
            self._drop(kind, before_ms, None, place)
        return count

    def prune(self, before_ms: int | None, keep: int | None, most: int | None = None) -> int:
        """Remove the entries before a time, and all but the newest ``keep`` of a kind; at most about ``most``."""
        removed = 0
        for kind in self._passing():
            left = None if most is None else max(most - removed, 0)
            if before_ms is not None:
                removed += self._drop(kind, before_ms, left)
            if keep is not None:
                length = self._do("XLEN", self._key(kind))
                left = None if most is None else max(most - removed, 0)
                wanted = keep if left is None else max(keep, length - left)
                if length > wanted:
                    removed += self._do("XTRIM", self._key(kind), "MAXLEN", "=", wanted)
        return removed

    def _old(self, kind: str, before_ms: int) -> Iterator[tuple[bytes, JournalEntry]]:
        """The entries of a kind before a time. They are nearly in its order: the first block without one is the end."""
        start = "-"
        while True:
            block = self._do("XRANGE", self._key(kind), start, "+", "COUNT", _CHUNK)
            found = [(place, _entry(kind, fields)) for place, fields in block]
            old = [(place, entry) for place, entry in found if entry.at * 1000 < before_ms]
            yield from old
            if not old:
                return
            start = f"({block[-1][0].decode()}"

    def _drop(self, kind: str, before_ms: int, most: int | None, last: bytes | None = None) -> int:
        removed, places = 0, list[bytes]()
        for place, _ in self._old(kind, before_ms):
            if most is not None and removed + len(places) >= most:
                break
            places.append(place)
            if len(places) >= _CHUNK:
                removed += self._do("XDEL", self._key(kind), *places)
                places = []
            if place == last:
                break
        return removed + (self._do("XDEL", self._key(kind), *places) if places else 0)

    def _do(self, *words: Any) -> Any:
        return self._backend.execute(RedisCommand(words))

    def _key(self, kind: str) -> str:
        return self._backend.protocol.key(f"marks:{kind}")


class RedisSharedState:
    """``SharedState`` on a Redis server: a string per key, and a sorted set of all of them by age."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """See ``SharedState``."""
        if not keys:
            return []
        found: list[bytes | None] = self._backend.execute(RedisCommand(("MGET", *map(self._key, keys))))
        return found

    def change(self, keys: Sequence[str], to: Callable[[list[bytes | None]], Sequence[bytes]], at: float) -> None:
        """See ``SharedState``."""
        if not keys:
            return
        names = tuple(map(self._key, keys))
        values = to(self.read(keys))
        index = self._backend.protocol.key("shared")
        self._backend.execute(Script("share", [index, *names], [repr(at), _SHARED_KEPT, _SHARED_S, *values]))

    def _key(self, key: str) -> str:
        return self._backend.protocol.key(f"s:{key}")


def _entry(kind: str, fields: dict[bytes, bytes]) -> JournalEntry:
    return JournalEntry(kind, fields[b"id"].decode(), float(fields[b"at"]), fields[b"data"])
