"""Connections of one ledger file, shared by all ledgers of a process: one writer, one reader, safe across forks."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

from llm_cost_middleware.budget.backends.sqlite.connection import (
    back_up,
    connect,
    create,
    migrate,
    path_of,
    translate_errors,
)
from llm_cost_middleware.budget.backends.sqlite.file_identity import FileIdentity
from llm_cost_middleware.budget.backends.sqlite.group_commit import FileLock, GroupCommitWriter, Step
from llm_cost_middleware.errors import LedgerUnavailableError

T = TypeVar("T")


class LedgerFile:
    """Connections of one file.

    A SQLite connection must not cross a fork: its knowledge of its own locks would be wrong in the child. So they are
    closed before a fork, when nothing is under way, and parent and child open new ones on their next use.
    """

    def __init__(self, path: Path, url: str, *, full: bool) -> None:
        self.url, self.users = url, 0
        self.path, self._full = path, full
        self._caches: WeakSet[Any] = WeakSet()
        if not path.parent.is_dir():
            raise LedgerUnavailableError(url, f"there is no directory {path.parent}")
        with translate_errors(url):
            create(path)
        self._identity = FileIdentity(path, url)
        self._writing: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._start()
        self._queue_lock.acquire(wait=True)
        try:
            migrate(self._write_connection(), path, url)
        finally:
            self._queue_lock.release()

    def _start(self) -> None:
        """Make the locks and the queue of this process; connections are opened on first use."""
        # Not ForkSafeLock: both are held across the fork on purpose, and the child makes its own here.
        self._maintenance_lock, self._read_lock = Lock(), Lock()
        self._queue_lock = FileLock(self.path.with_name(self.path.name + "-queue"), self.path)
        self._writer = GroupCommitWriter(
            self._write_connection, self._maintenance_lock, self._queue_lock, self.url, self._drop_caches,
            full=self._full,
        )  # fmt: skip

    @classmethod
    def of(cls, url: str, *, full: bool) -> LedgerFile:
        """Return the object of a file, opened once per process. Raises as ``Ledger.open``."""
        path = path_of(url)
        with translate_errors(url):
            path = path.resolve()  # two names of one file must share one queue
            with _registry_lock:
                file = _registry.get((path, full))
                if file is None:
                    file = _registry[path, full] = cls(path, url, full=full)
                file.users += 1
        return file

    def _write_connection(self) -> sqlite3.Connection:
        if self._writing is None:
            self._writing = connect(self.path, full=self._full)
        return self._writing

    def on_rollback(self, cache: Any) -> None:
        """Call ``cache.drop_cache()`` whenever a transaction was rolled back."""
        self._caches.add(cache)

    def _drop_caches(self) -> None:
        for cache in list(self._caches):
            cache.drop_cache()

    def write(self, step: Step[T], *, durable: bool = True) -> T:
        """Run a step in a write transaction (``GroupCommitWriter.run``)."""
        self._identity.check()
        return self._writer.run(step, durable=durable)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open a read transaction: it sees the ledger at one moment and never waits for a writer."""
        self._identity.check()
        with translate_errors(self.url), self._read_lock:
            if self._reader is None:
                self._reader = connect(self.path, full=self._full)
            if self._reader.in_transaction:
                self._reader.execute("ROLLBACK")  # of a reader that was interrupted as it ended
            try:
                self._reader.execute("BEGIN")
                yield self._reader
            finally:
                with suppress(sqlite3.Error):
                    self._reader.execute("COMMIT")

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Open a read transaction on a connection of its own, for as long as a caller reads."""
        self._identity.check()
        with translate_errors(self.url):
            owner, connection = os.getpid(), connect(self.path, full=self._full)
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                if os.getpid() == owner:
                    connection.close()
                else:  # inherited by a fork: closing it here would drop the parent's locks, so keep it alive
                    _inherited.append(connection)

    def back_up(self, to: Path) -> None:
        """Copy the ledger as it is at one moment."""
        with self.snapshot() as db:
            back_up(db, to)

    def close(self) -> None:
        """Close the file when its last user does."""
        with _registry_lock:
            self.users -= 1
            if self.users:
                return
            _registry.pop((self.path, self._full), None)
        with self._maintenance_lock, self._read_lock, translate_errors(self.url):
            self._disconnect()
            self._queue_lock.close()

    def _disconnect(self) -> None:
        for connection in (self._reader, self._writing):
            if connection is not None:
                connection.close()
        self._reader = self._writing = None

    def before_fork(self) -> None:
        """Wait until no transaction is under way, then disconnect."""
        self._maintenance_lock.acquire()
        self._read_lock.acquire()
        with suppress(sqlite3.Error):
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Release the locks taken before the fork."""
        self._read_lock.release()
        self._maintenance_lock.release()

    def after_fork_in_child(self) -> None:
        """Start with an empty queue: the parent's waiting threads do not exist in the child."""
        self._queue_lock.close()
        self._drop_caches()
        self._start()


# By durability too: its pragma is set per connection.
_registry: WeakValueDictionary[tuple[Path, bool], LedgerFile] = WeakValueDictionary()
_registry_lock = Lock()
_disconnected: list[LedgerFile] = []
_inherited: list[sqlite3.Connection] = []


def _before_fork() -> None:
    _registry_lock.acquire()
    _disconnected.extend(_registry.values())
    for file in _disconnected:
        file.before_fork()


def _after_fork_in_parent() -> None:
    while _disconnected:
        _disconnected.pop().after_fork_in_parent()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    while _disconnected:
        _disconnected.pop().after_fork_in_child()
    _registry_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
