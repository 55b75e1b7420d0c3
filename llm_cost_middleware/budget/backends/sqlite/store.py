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
    """The connections of one file. After a fork the child opens its own, and leaves the parent's alone."""

    def __init__(self, path: Path, url: str, *, full: bool) -> None:
        self.url, self.users = url, 0
        self._inherited = False
        self._path, self._full = path, full
        self._forgetters: WeakSet[Any] = WeakSet()
        self._open()

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

    def _open(self) -> None:
        with translated(self.url):
            if not self._path.parent.is_dir():
                raise LedgerUnavailableError(self.url, f"there is no directory {self._path.parent}")
            self._gate = Gate(self._path.with_name(self._path.name + "-queue"))
            self._gate.enter(wait=True)
            try:
                connection = connect(self._path, full=self._full)
                prepare(connection, self.url)
            finally:
                self._gate.leave()
            self._reader, self._reading = connect(self._path, full=self._full), Lock()
            self._writer, self._connection = Writer(connection, self._gate, self.url, self._forget), connection

    def on_rollback(self, forgetter: Any) -> None:
        """Let ``forgetter.forget()`` be called when a transaction was undone."""
        self._forgetters.add(forgetter)

    def _forget(self) -> None:
        for forgetter in list(self._forgetters):
            forgetter.forget()

    def write(self, step: Step[T]) -> T:
        """Run a step in a write transaction (``Writer.run``)."""
        if self._inherited:
            self._reopen()
        return self._writer.run(step)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: everything in it is of one moment. Never waits for a writer."""
        if self._inherited:
            self._reopen()
        with translated(self.url), self._reading:
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                with suppress(sqlite3.Error):
                    self._reader.execute("COMMIT")

    def close(self) -> None:
        """Close the file when its last user has."""
        with _registry_lock:
            self.users -= 1
            if self.users:
                return
            _registry.pop((self._path, self._full), None)
        with self._reading, translated(self.url):
            self._reader.close()
            self._connection.close()
            self._gate.close()

    def after_fork(self) -> None:
        """In a child: forget the parent's connections without closing them, which would undo its locks."""
        _graveyard.append((self._reader, self._connection, self._writer))
        self._gate.close()
        self._forget()
        self._inherited = True

    def _reopen(self) -> None:
        with _registry_lock:
            if self._inherited:
                self._open()
                self._inherited = False


_registry: WeakValueDictionary[tuple[Path, bool], Store] = WeakValueDictionary()
_registry_lock = Lock()
_graveyard: list[Any] = []


def _in_child() -> None:
    global _registry_lock  # noqa: PLW0603 - another thread of the parent may have held it
    _registry_lock = Lock()
    for store in list(_registry.values()):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
