"""Opening a ledger file: pragmas, schema and its forward migration, one way to say what went wrong."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from llm_cost_middleware.errors import ConfigurationError, LedgerUnavailableError, LedgerVersionError

_BUSY_MS = 5_000  # a back-stop against programs that do not queue; ours never contend


def sections() -> list[str]:
    """The schema's sections: the n-th brings a database from version n to n + 1."""
    text = files(__package__).joinpath("schema.sql").read_text(encoding="utf-8")
    return re.split(r"^-- version \d+\n", text, flags=re.MULTILINE)[1:]


def path_of(url: str) -> Path:
    """The file of ``sqlite:///relative`` or ``sqlite:////absolute``. Raises ``ConfigurationError``."""
    rest = url.removeprefix("sqlite://")
    if not rest.startswith("/") or len(rest) == 1 or rest == "/:memory:":
        raise ConfigurationError(
            f"{url!r} names no file: sqlite:///relative.db or sqlite:////absolute.db; use memory:// to keep none",
            key="ledger.url",
        )
    return Path(rest[1:]).expanduser()


@contextmanager
def translated(url: str) -> Iterator[None]:
    """What SQLite or the system reports, as ``LedgerUnavailableError``."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnavailableError(url, str(error)) from error


def connect(path: Path, *, full: bool) -> sqlite3.Connection:
    """A connection in autocommit mode, usable from any one thread at a time."""
    connection = sqlite3.connect(path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
    if full:
        connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone does not reach the platter
    return connection


def prepare(connection: sqlite3.Connection, url: str) -> None:
    """Bring the database to WAL mode and to this version. The caller holds the queue.

    Raises:
        LedgerVersionError: It is newer.
        LedgerUnavailableError: It cannot be in WAL mode, as on a network file system.
    """
    found, steps = connection.execute("PRAGMA user_version").fetchone()[0], sections()
    if found > len(steps):
        raise LedgerVersionError(url, found, len(steps))
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal" and connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise LedgerUnavailableError(url, f"its file system allows no write-ahead log (journal mode {mode})")
    if found == len(steps):
        return
    foreign = connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone() if found == 0 else None
    if foreign is not None:
        raise LedgerUnavailableError(url, f"is another program's database (it has {foreign[0]!r})")
    script = "".join(
        f"{step};\nPRAGMA user_version = {number};\n" for number, step in enumerate(steps, 1) if number > found
    )
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
