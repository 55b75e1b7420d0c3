"""Upkeep of a ledger: copies, and the erasure of a person. Each is an ability of the storage."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from llm_cost_middleware.budget.backend import (
    ArchiveResult,
    Backend,
    Erasure,
    SupportsArchive,
    SupportsBackup,
    SupportsErasure,
)
from llm_cost_middleware.budget.model import GLOBAL, parse_scope
from llm_cost_middleware.budget.notes import SupportsPruning, SupportsResting, SupportsRestore
from llm_cost_middleware.budget.rules import MemoAggregator
from llm_cost_middleware.errors import ConfigurationError

T = TypeVar("T")
REST_S = 7 * 86_400.0
"""How long runs are idle at least whose accounts an archiving shortens."""


def archive(
    backend: Backend, before: int, summary: MemoAggregator, to: Path | str | None, *, keep: bool
) -> ArchiveResult:
    """Move the rows of attempts that were resolved before a time (ms) to a file; rows that carry their sums stay.

    No balance changes, and a budget that is set later counts no less. Open attempts stay, and those that are not
    ``exact``, until they are reconciled. An archived attempt takes no correction any more; its id stays known. The file
    has one JSON object per line: the register of budgets, the rows, their sums by day and scope; the lines of the
    journal that are as old lie beside it. If it was killed, call it again: it completes what was begun (``resumed``).

    Raises:
        ConfigurationError: The storage has no archive (a memory ledger has none), or the file exists.
        LedgerError: The file did not read back as written, or was changed before its rows were removed.
    """
    if not isinstance(backend, SupportsArchive):
        kind = type(backend).__name__.removesuffix("Backend").lower()
        raise ConfigurationError(f"a {kind} ledger has no archive; sqlite, redis and postgresql have", key="ledger.url")
    if to is not None and not keep:
        raise ConfigurationError("a file was named, and none is to be kept", key="to")
    done = backend.archive(before, None if to is None else Path(to), summary, keep=keep)
    rest(backend, REST_S)
    return done


def back_up(backend: Backend, to: Path | str) -> Path:
    """Copy a ledger to a file while it is in use: whole, as it was at one moment, readable by its owner alone.

    The copy is a ledger. To restore it, stop what uses the ledger, and put the copy in the place of its file, with no
    ``-wal`` and ``-shm`` of the old one beside it.

    Raises:
        ConfigurationError: The storage has no such ability (only SQLite has), or the file exists.
    """
    path = Path(to).absolute()
    if path.exists():
        raise ConfigurationError(f"{path} exists; name another file", key="to")
    if not isinstance(backend, SupportsBackup):
        raise ConfigurationError(
            "this storage makes no copy of itself: use the means of its server, such as pg_dump", key="ledger.url"
        )
    backend.back_up(path)
    return path


def erase(backend: Backend, scope: str) -> Erasure:
    """Put another name in the place of a person's scope (``user:alice``), everywhere; every sum stays as it was.

    What the person books afterwards is booked under the old name again. Files that were archived before still say it:
    ``Erasure.archives`` are theirs. Copies of the ledger do, too.

    Raises:
        ConfigurationError: The storage has no such ability, or the scope is no single one.
    """
    name = parse_scope(scope)
    if name == GLOBAL:
        raise ConfigurationError("'global' is nobody's scope", key="scope")
    if not isinstance(backend, SupportsErasure):
        raise ConfigurationError(f"{type(backend).__name__} erases no scope", key="ledger.url")
    return backend.erase(name)


def prune_journal(
    backend: Backend, *, before: float | None = None, keep: int | None = None, most: int | None = None
) -> int:
    """Remove old lines of the journal (decisions, outcomes, cache traces): no money. Return how many.

    Args:
        backend: Storage of the ledger.
        before: Lines before this time, seconds since the Unix epoch.
        keep: All but the newest so many; on Redis of each kind (it keeps 200,000 of a kind by itself).
        most: Remove no more than about so many at once.

    Raises:
        ConfigurationError: The storage prunes nothing by hand, or neither is given.
    """
    if before is None and keep is None:
        raise ConfigurationError("say before when, or how many to keep: --before 90d, or --keep 100000", key="before")
    if keep is not None and keep < 0:
        raise ConfigurationError("must not be negative", key="keep")
    if not isinstance(backend, SupportsPruning):
        raise ConfigurationError(f"{type(backend).__name__} prunes no journal", key="ledger.url")
    return backend.prune_journal(None if before is None else int(before * 1000), keep, most=most)


def rest(backend: Backend, idle_s: float) -> int:
    """Keep one short line of each run that is over in the place of its accounts (``SupportsResting``).

    Args:
        backend: Storage of the ledger; one that cannot does nothing.
        idle_s: Since when nothing was booked in it, seconds.

    Returns:
        How many runs, slices, threads and agents.
    """
    return backend.rest(int(idle_s * 1000)) if isinstance(backend, SupportsResting) else 0


def restore(archive: Path | str, backend: Backend, *, empty: bool) -> int:
    """Put what an archive holds into a ledger that holds nothing: every command reads it there as it was.

    The ledger it came from keeps its sums and is not changed: do not add the two up.

    Args:
        archive: The file, of whatever storage; lines of the journal come from the files beside it.
        backend: Storage of the ledger: SQLite.
        empty: It holds no rows.

    Returns:
        How many rows.

    Raises:
        ConfigurationError: The ledger is not empty, or its storage takes in no archive.
        LedgerError: The archive is not whole.
    """
    if not empty:
        raise ConfigurationError("it has rows of its own; restore to a new file", key="to")
    if not isinstance(backend, SupportsRestore):
        raise ConfigurationError("an archive is restored to a new SQLite ledger: sqlite:///old.db", key="to")
    return backend.take_archive(Path(archive))
