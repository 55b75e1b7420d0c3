"""Connections to a ledger file: pragmas, schema migration, translation of errors."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path

from llm_cost_middleware.errors import ConfigurationError, LedgerUnavailableError, LedgerVersionError

_BUSY_MS = 5_000  # for programs that do not queue, such as the sqlite3 shell; ledgers never contend here


def migrations() -> list[str]:
    """Return the steps of the schema: the n-th, counted from 0, brings a database from version n to n + 1."""
    text = files(__package__).joinpath("schema.sql").read_text(encoding="utf-8")
    return re.split(r"^-- version \d+\n", text, flags=re.MULTILINE)[1:]


def path_of(url: str) -> Path:
    """Return the file of ``sqlite:///relative`` or ``sqlite:////absolute``. Raises ``ConfigurationError``."""
    rest = url.removeprefix("sqlite://")
    if not rest.startswith("/") or len(rest) == 1 or rest == "/:memory:":
        raise ConfigurationError(
            f"{url!r} names no file: sqlite:///relative.db or sqlite:////absolute.db; use memory:// to keep none",
            key="ledger.url",
        )
    return Path(rest[1:]).expanduser()


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Raise errors of SQLite and of the system as ``LedgerUnavailableError``."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnavailableError(url, str(error)) from error


def create(path: Path) -> None:
    """Create the file of a ledger if it is missing, for its owner alone. SQLite gives its other files the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def connect(path: Path, *, full: bool) -> sqlite3.Connection:
    """Open a connection in autocommit mode, for use by any one thread at a time."""
    # Autocommit, because sqlite3's own BEGIN is deferred: two readers that turn into writers would fail as locked.
    connection = sqlite3.connect(path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    # NORMAL survives a crash of the process, but not a power cut.
    connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
    if full:
        connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone does not reach the platter
    return connection


def backup_of(path: Path, version: int) -> Path:
    """Return where the copy of a database is put before a newer version of the package changes its schema."""
    return path.with_name(f"{path.name}.schema-{version}.backup")


def back_up(connection: sqlite3.Connection, to: Path) -> None:
    """Copy a database while others use it. The copy is whole or absent; nobody else can read it."""
    part = to.with_name(f"{to.name}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(part)) as copy:
        connection.backup(copy)
    part.replace(to)


def migrate(connection: sqlite3.Connection, path: Path, url: str) -> None:
    """Bring the database to WAL mode and to this version. The caller holds the queue lock.

    A database of an older version is first copied beside itself (``backup_of``), so that the older version of the
    package can be gone back to with what it had booked until then.

    Raises:
        LedgerVersionError: It is newer.
        LedgerUnavailableError: It cannot be in WAL mode, as on a network file system.
    """
    found, steps = connection.execute("PRAGMA user_version").fetchone()[0], migrations()
    if found > len(steps):
        raise LedgerVersionError(url, found, len(steps))
    # WAL: readers never wait for the writer. Network file systems lack the shared memory that it needs.
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal" and connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise LedgerUnavailableError(url, f"its file system allows no write-ahead log (journal mode {mode})")
    if found == len(steps):
        return
    foreign = connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone() if found == 0 else None
    if foreign is not None:
        raise LedgerUnavailableError(url, f"is another program's database (it has {foreign[0]!r})")
    if found:
        back_up(connection, backup_of(path, found))
    script = "".join(
        f"{step};\nPRAGMA user_version = {number};\n" for number, step in enumerate(steps, 1) if number > found
    )
    try:  # in one transaction: a crash leaves the old version whole
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
