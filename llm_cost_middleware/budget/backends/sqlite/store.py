"""One ledger file, shared by everybody in the process who opened it: one writer, one reader; threads, forks."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

from llm_cost_middleware.budget.backends.sqlite.file import connect, path_of, prepare, translated
from llm_cost_middleware.budget.backends.sqlite.queue import Gate, Step, Writer
from llm_cost_middleware.errors import LedgerUnavailableError

T = TypeVar("T")


class Store:
    """The connections of one file.

    SQLite's must not cross a fork: what it knows in memory of its locks would be wrong in the child. So they are closed
    before one, when nothing is under way, and both sides open their own when they next need one.
    """

    def __init__(self, path: Path, url: str, *, full: bool) -> None:
        self.url, self.users = url, 0
        self.path, self._full = path, full
        self._forgetters: WeakSet[Any] = WeakSet()
        if not path.parent.is_dir():
            raise LedgerUnavailableError(url, f"there is no directory {path.parent}")
        self._writing: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._start()
        self._gate.enter(wait=True)
        try:
            prepare(self._write_connection(), url)
        finally:
            self._gate.leave()

    def _start(self) -> None:
        """Locks, queue and turn of a process; connections are opened when they are needed."""
        self._still, self._reading = Lock(), Lock()
        self._gate = Gate(self.path.with_name(self.path.name + "-queue"))
        self._writer = Writer(self._write_connection, self._still, self._gate, self.url, self._forget)

    @classmethod
    def of(cls, url: str, *, full: bool) -> Store:
        """The store of a file, opened once a process. Raises as ``Ledger.open``."""
        path = path_of(url)
        with translated(url):
            path = path.resolve()
            with _registry_lock:
                store = _registry.get((path, full))
                if store is None:
                    store = _registry[path, full] = cls(path, url, full=full)
                store.users += 1
        return store

    def _write_connection(self) -> sqlite3.Connection:
        if self._writing is None:
            self._writing = connect(self.path, full=self._full)
        return self._writing

    def on_rollback(self, forgetter: Any) -> None:
        """Let ``forgetter.forget()`` be called when a transaction was undone."""
        self._forgetters.add(forgetter)

    def _forget(self) -> None:
        for forgetter in list(self._forgetters):
            forgetter.forget()

    def write(self, step: Step[T]) -> T:
        """Run a step in a write transaction (``Writer.run``)."""
        return self._writer.run(step)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: everything in it is of one moment. Never waits for a writer."""
        with translated(self.url), self._reading:
            if self._reader is None:
                self._reader = connect(self.path, full=self._full)
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                with suppress(sqlite3.Error):
                    self._reader.execute("COMMIT")

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A read transaction on a connection of its own, for as long as a caller takes to read: of one moment."""
        with translated(self.url):
            owner, connection = os.getpid(), connect(self.path, full=self._full)
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                if os.getpid() == owner:
                    connection.close()
                else:  # a fork's copy: the parent's to close
                    _inherited.append(connection)

    def close(self) -> None:
        """Close the file when its last user has."""
        with _registry_lock:
            self.users -= 1
            if self.users:
                return
            _registry.pop((self.path, self._full), None)
        with self._still, self._reading, translated(self.url):
            self._disconnect()
            self._gate.close()

    def _disconnect(self) -> None:
        for connection in (self._reader, self._writing):
            if connection is not None:
                connection.close()
        self._reader = self._writing = None

    def before_fork(self) -> None:
        """Wait until nothing is under way, and disconnect."""
        self._still.acquire()
        self._reading.acquire()
        with suppress(sqlite3.Error):
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._reading.release()
        self._still.release()

    def after_fork_in_child(self) -> None:
        """Start with a queue of its own: those who stand in the parent's are not here."""
        self._gate.close()
        self._forget()
        self._start()


_registry: WeakValueDictionary[tuple[Path, bool], Store] = WeakValueDictionary()
_registry_lock = Lock()
_resting: list[Store] = []
_inherited: list[sqlite3.Connection] = []


def _before_fork() -> None:
    _registry_lock.acquire()
    _resting.extend(_registry.values())
    for store in _resting:
        store.before_fork()


def _after_fork_in_parent() -> None:
    while _resting:
        _resting.pop().after_fork_in_parent()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    while _resting:
        _resting.pop().after_fork_in_child()
    _registry_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
