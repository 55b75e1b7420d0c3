"""Upkeep of the ledger while calls go on: old lines of its journal are removed, old rows are archived.

On a thread of its own that a call starts when it is time, in small steps: a call waits for none of it, a writer at most
for one step. Every process of a ledger may do it; what one has done, another finds done.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from llm_cost_middleware.budget.backend import SupportsArchive, SupportsAsync
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.ledger.upkeep import prune_journal, rest
from llm_cost_middleware.budget.notes import SupportsPruning
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.metering import MemoSummary

_log = logging.getLogger(__name__)
STEP = 5_000
"""Lines that are removed at once."""
_DAY = 86_400.0
_FIRST_S, _AGAIN_S, _SOON_S = 300.0, 3_600.0, 5.0


class UpkeepPlan(NamedTuple):
    """What is to be done; 0 is never."""

    journal_days: float = 0
    journal_lines: int = 0
    archive_after_days: float = 0
    archive_to: str = ""
    rest_after_days: float = 0


NO_UPKEEP = UpkeepPlan()


class Upkeep:
    """Looks after one ledger. Safe to share between threads.

    Args:
        ledger: The ledger.
        clock: Time.
        plan: What is to be done.
    """

    _turn = ForkSafeLock()

    def __init__(self, ledger: Ledger, clock: Clock, plan: UpkeepPlan) -> None:
        self._ledger, self._clock, self.plan = ledger, clock, plan
        self._due = clock.monotonic() + _FIRST_S  # a short life needs none
        self._archive_due = self._rest_due = 0.0
        self._thread: Thread | None = None

    @property
    def due(self) -> bool:
        """Whether it is time."""
        return self._clock.monotonic() >= self._due

    def start(self) -> None:
        """Do a step on a thread of its own, unless one is under way. Never raises."""
        if not self._turn.acquire(blocking=False):
            return
        self._due = self._clock.monotonic() + _AGAIN_S
        try:
            self._thread = Thread(target=self._run, name="llm-cost-upkeep", daemon=True)
            self._thread.start()
        except RuntimeError as error:  # the interpreter is ending, or has no thread left
            _log.debug("no upkeep: %s", error)
            self._turn.release()

    def close(self) -> None:
        """Wait for the step that is under way, for a while."""
        if self._thread is not None:
            with suppress(RuntimeError):  # it is this thread
                self._thread.join(timeout=10)

    def _run(self) -> None:
        try:
            if self.step():
                self._due = self._clock.monotonic() + _SOON_S
        except LLMCostError as error:  # the storage is away, or another process is at it
            _log.info("the upkeep of the ledger waits: %s", error)
        except Exception:  # noqa: BLE001 - of a thread that nobody waits for
            _log.exception("the upkeep of the ledger failed")
        finally:
            self._turn.release()

    def step(self) -> bool:
        """Do a part; return whether more is left.

        Raises:
            LedgerError: The storage cannot do it now.
        """
        plan, now, backend = self.plan, self._clock.now(), self._ledger.backend
        removed = 0
        if isinstance(backend, SupportsPruning) and (plan.journal_days or plan.journal_lines):
            before = now - plan.journal_days * _DAY if plan.journal_days else None
            removed = prune_journal(backend, before=before, keep=plan.journal_lines or None, most=STEP)
        archives = plan.archive_after_days and isinstance(backend, SupportsArchive) and now >= self._archive_due
        if archives and removed < STEP:
            self._archive_due = now + _DAY
            to = self._target(now)
            keep = to is not None or not isinstance(backend, SupportsAsync)  # a server has no folder of its own
            moved = self._ledger.archive(now - plan.archive_after_days * _DAY, MemoSummary(), to, keep=keep)
            if moved.rows:
                _log.info("%d old rows of the ledger were archived to %s", moved.rows, moved.path or "their sums")
        if plan.rest_after_days and now >= self._rest_due:
            self._rest_due = now + _DAY
            rested = rest(backend, plan.rest_after_days * _DAY)
            _log.debug("%d ended runs keep one line each", rested)
        return removed >= STEP

    def _target(self, now: float) -> Path | None:
        """The file, where a folder is named: else a file of SQLite has its place, and a server keeps the sums alone."""
        if not self.plan.archive_to:
            return None
        return Path(self.plan.archive_to).expanduser() / f"llm-cost-archive-{int(now)}.jsonl"
