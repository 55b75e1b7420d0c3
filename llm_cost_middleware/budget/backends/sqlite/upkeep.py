"""What is done to a whole SQLite ledger: it is looked over, copied, archived, pruned, and a person erased from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from llm_cost_middleware.budget.backend import ArchiveResult, Erasure
from llm_cost_middleware.budget.backends.sqlite import overview
from llm_cost_middleware.budget.backends.sqlite.archive import Archive
from llm_cost_middleware.budget.backends.sqlite.erasure import ScopeEraser
from llm_cost_middleware.budget.backends.sqlite.filling import AccountFilling
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.backends.sqlite.old_lines import OldLines
from llm_cost_middleware.budget.backends.sqlite.packing import Packing
from llm_cost_middleware.budget.backends.sqlite.resting import Resting
from llm_cost_middleware.budget.backends.sqlite.restoring import ArchiveTaking
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules import BudgetIndex, MemoAggregator, Sums
from llm_cost_middleware.budget.rules.overview import RowCount


class SQLiteUpkeep(ArchiveTaking):
    """The part of ``SQLiteBackend`` that no call waits for."""

    _file: LedgerFile
    _now: Callable[[], float]
    _tenant: int
    _name: str
    _packing: Packing
    _filling: AccountFilling
    _indexed: Callable[[sqlite3.Connection], tuple[int, BudgetIndex]]

    def count_rows(self) -> list[RowCount]:
        """See ``SupportsOverview``."""
        with self._file.snapshot() as db:
            return overview.count_rows(db, self._tenant)

    def unsure_rows(self) -> Iterator[Row]:
        """See ``SupportsOverview``."""
        with self._file.snapshot() as db:
            yield from overview.unsure_rows(db, self._tenant)

    def back_up(self, to: Path) -> None:
        """See ``SupportsBackup``."""
        self._file.back_up(to)

    def erase(self, scope: str) -> Erasure:
        """See ``SupportsErasure``."""
        return ScopeEraser(self._file, self._tenant, self._now).run(scope)

    def archive(self, before: int, path: Path | None, summary: MemoAggregator, *, keep: bool = True) -> ArchiveResult:
        """See ``SupportsArchive``."""
        now = int(self._now() * 1000)
        with self._file.reading() as db:
            index = self._indexed(db)[1]
        sums = Sums.made(summary, index, now)
        archive = Archive(self._file, self._packing, self._tenant, self._name, now, sums)
        return archive.run(min(before, now), path, keep=keep)

    def rest(self, idle: int) -> int:
        """See ``SupportsResting``."""
        with self._filling.turn():
            with self._file.reading() as db:
                index = self._indexed(db)[1]
            return Resting(self._file, self._tenant).run(index, int(self._now() * 1000), idle)

    def prune_journal(self, before: int | None, keep: int | None, *, most: int | None = None) -> int:
        """See ``SupportsPruning``."""
        return OldLines(self._file, self._packing, self._tenant).prune(before, keep, most)
