"""The queue in front of SQLite's write lock: fair between processes, grouped within one.

SQLite's own busy handler polls, and starves: of 8 writers one gets 0.1 % of the fastest's share, and after five seconds
some fail. Here a process waits for its turn on a lock file (``flock``, served roughly in order of arrival), and every
call that arrives in a process while a transaction is being committed rides in the next one (group commit). A lone
caller commits on its own thread and never pays for a hand-over; only a turn that has to be waited for is waited for on
a thread of its own, so that the wait can be bounded.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock, Semaphore, Thread
from typing import Any, TypeVar

from llm_cost_middleware.errors import LedgerUnavailableError, LLMCostError

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")
Step = Callable[[sqlite3.Connection], T]

PATIENCE_S = 30.0
"""How long a call may stand in the queue before it gives up."""

_BATCH = 256


class Gate:
    """A turn among processes: an exclusive ``flock`` on a side file. The system lets go of it when a process dies."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def enter(self, *, wait: bool) -> bool:
        """Take the turn; without waiting, whether it was free. On Windows there is SQLite's busy handler alone."""
        if sys.platform != "win32":
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def leave(self) -> None:
        """Give the turn to the next."""
        if sys.platform != "win32":
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file. In a forked child this leaves the parent's turn alone."""
        os.close(self._fd)


class _Job:
    """One step that waits to be committed. ``leads`` says that its caller was woken to lead."""

    __slots__ = ("_bell", "done", "error", "leads", "result", "step")

    def __init__(self, step: Step[Any]) -> None:
        self.step = step
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = self.leads = False
        self._bell = Lock()
        self._bell.acquire()

    def ring(self) -> None:
        with suppress(RuntimeError):  # rung before
            self._bell.release()

    def wait(self, seconds: float) -> bool:
        return self._bell.acquire(timeout=seconds)


class Writer:
    """Runs steps in write transactions, each committed when its call returns.

    A step reads, decides and then writes: what it raises of ours (a refusal) leaves a transaction that may be
    committed. Anything else rolls the whole transaction back, and its steps are tried again one by one, so that only
    the one at fault fails.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        still: Lock,
        gate: Gate,
        url: str,
        forget: Callable[[], None],
    ) -> None:
        self._connection, self._still, self._gate, self._url, self._forget = connect, still, gate, url, forget
        self._mutex = Lock()
        self._waiting: deque[_Job] = deque()
        self._led = False
        self._turns = Semaphore(0)
        self._thread: Thread | None = None

    def run(self, step: Step[T]) -> T:
        """Run a step and return its result once it is committed.

        Raises:
            LedgerUnavailableError: It could not be committed, or its turn did not come in ``PATIENCE_S``.
        """
        job = _Job(step)
        with self._mutex:
            self._waiting.append(job)
            lead, self._led = not self._led, True
        try:
            while not job.done:
                if lead:
                    self._lead()
                elif not job.wait(PATIENCE_S) and self._withdraw(job):
                    job.error, job.done = _stuck(self._url), True
                lead, job.leads = job.leads, False
        except BaseException:
            self._withdraw(job)
            raise
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[no-any-return]  # what its step returned

    def _lead(self) -> None:
        try:
            entered = self._gate.enter(wait=False)
        except OSError as error:
            self._abandon(error)
            return
        if entered:
            self._serve()
            return
        if self._thread is None:
            self._thread = Thread(target=self._wait_for_turns, name="llm-cost-ledger-queue", daemon=True)
            self._thread.start()
        self._turns.release()

    def _wait_for_turns(self) -> None:
        while True:
            self._turns.acquire()
            try:
                self._gate.enter(wait=True)
            except OSError as error:
                self._abandon(error)
            else:
                with suppress(OSError):  # the gate was closed meanwhile
                    self._serve()

    def _serve(self) -> None:
        """Commit what waits, in the turn that was taken; then wake the next to lead."""
        with self._mutex:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        try:
            self._commit(batch)
        finally:
            self._gate.leave()
            with self._mutex:
                self._promote()
            for job in batch:
                if not job.done:
                    job.error, job.done = LedgerUnavailableError(self._url, "interrupted"), True
                job.ring()

    def _abandon(self, error: OSError) -> None:
        """The ledger was closed under its callers: tell all who wait, at once."""
        with self._mutex:
            batch = list(self._waiting)
            self._waiting.clear()
            self._led = False
        self._fail(batch, error)
        for job in batch:
            job.ring()

    def _promote(self) -> None:
        """Hand the lead to whoever has waited longest. The mutex is held."""
        self._led = bool(self._waiting)
        if self._led:
            self._waiting[0].leads = True
            self._waiting[0].ring()

    def _withdraw(self, job: _Job) -> bool:
        """Take a job out of the queue, and the lead from it; whether it still stood there."""
        with self._mutex:
            try:
                self._waiting.remove(job)
            except ValueError:
                return False
            if job.leads:
                self._promote()
            return True

    def _commit(self, batch: list[_Job]) -> None:
        if not batch:
            return
        try:
            with self._still:
                self._transact(batch)
        except _StepError as failed:
            if len(batch) == 1:
                self._fail(batch, failed.error)
            for job in batch if len(batch) > 1 else ():
                self._commit([job])
        except (sqlite3.Error, OSError) as error:
            self._fail(batch, error)

    def _transact(self, batch: list[_Job]) -> None:
        connection = self._connection()
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                job.error = None
                try:
                    job.result = job.step(connection)
                except LLMCostError as error:
                    job.error = error
                except Exception as error:
                    raise _StepError(error) from error
            connection.execute("COMMIT")
        except BaseException:
            self._forget()
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        for job in batch:
            job.done = True

    def _fail(self, batch: list[_Job], error: Exception) -> None:
        for job in batch:
            job.error = error
            if isinstance(error, sqlite3.Error | OSError):
                job.error = LedgerUnavailableError(self._url, str(error))
                job.error.__cause__ = error
            job.done = True


def _stuck(url: str) -> LedgerUnavailableError:
    return LedgerUnavailableError(url, f"its queue did not move for {PATIENCE_S:g} s")


class _StepError(Exception):
    """Carries what a step raised past the rollback."""

    def __init__(self, error: Exception) -> None:
        self.error = error
