"""Queue before SQLite's write lock: fair between processes, and one transaction for many callers of a process.

SQLite's own busy handler polls, and starves: of 8 writers one gets 0.1 % of the fastest's share, and after five seconds
some fail. Here a process waits for its turn on a lock file (``flock``, served roughly in order of arrival), and every
call that arrives in a process while a transaction is being committed joins the next one (group commit). A lone caller
commits on its own thread and pays for no hand-over. A turn that must be waited for is waited for on a separate thread,
because ``flock`` has no timeout.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from threading import Lock, Semaphore, Thread
from typing import Any, TypeVar

from llm_cost_middleware.errors import LedgerUnavailableError, LLMCostError

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")
Step = Callable[[sqlite3.Connection], T]

PATIENCE_S = 30.0
"""Seconds that a call may wait in the queue."""

_BATCH = 256  # bounds how long one process keeps the others waiting


class FileLock:
    """Lock between processes: an exclusive ``flock`` on a side file. The system releases it when a process dies."""

    def __init__(self, path: Path, beside: Path | None = None) -> None:
        # CLOEXEC: a program that is started from here must not keep the lock.
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if sys.platform != "win32" and beside is not None and os.fstat(self._fd).st_uid == os.geteuid():
            os.fchmod(self._fd, stat.S_IMODE(beside.stat().st_mode))  # whoever may write the ledger may wait here

    def acquire(self, *, wait: bool) -> bool:
        """Acquire it; without ``wait``, return whether it was free. A no-op on Windows: SQLite's own lock must do."""
        if self._fd < 0:
            raise OSError(errno.EBADF, "the ledger was closed")
        if sys.platform != "win32":
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def release(self) -> None:
        """Release it to the next process."""
        if sys.platform != "win32" and self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file. In a forked child this does not release the parent's lock."""
        fd, self._fd = self._fd, -1  # its number may soon be another file's
        os.close(fd)


class _Job:
    """Step that waits to be committed. ``is_leader``: its caller was woken to commit the next batch."""

    __slots__ = ("_event", "done", "durable", "error", "is_leader", "result", "step")

    def __init__(self, step: Step[Any], *, durable: bool) -> None:
        self.step, self.durable = step, durable
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = self.is_leader = False
        self._event = Lock()  # a held lock is the cheapest event there is
        self._event.acquire()

    def notify(self) -> None:
        with suppress(RuntimeError):  # notified before
            self._event.release()

    def wait(self, seconds: float) -> bool:
        return self._event.acquire(timeout=seconds)


class GroupCommitWriter:
    """Runs steps in write transactions, each committed when its call returns.

    A step reads, decides and then writes: what it raises of ours (a refusal) leaves a transaction that may be
    committed. Anything else rolls the whole transaction back, and its steps are tried again one by one, so that only
    the one at fault fails.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        maintenance_lock: Lock,
        queue_lock: FileLock,
        url: str,
        drop_caches: Callable[[], None],
        *,
        full: bool,
    ) -> None:
        self._connection, self._url, self._drop_caches = connect, url, drop_caches
        self._full = full
        self._relaxed: sqlite3.Connection | None = None
        self._maintenance_lock, self._queue_lock = maintenance_lock, queue_lock
        self._mutex = Lock()
        self._waiting: deque[_Job] = deque()
        self._has_leader = False
        self._ended: object = None  # the turn that was ended last
        self._turns_wanted = Semaphore(0)
        self._thread: Thread | None = None

    def run(self, step: Step[T], *, durable: bool = True) -> T:
        """Run a step; return its result once it is committed.

        Args:
            step: Reads, decides and then writes.
            durable: The commit is flushed to the disk, if the ledger is ``full``; else it survives a crash of the
                process, but perhaps no power cut. A transaction that it shares with a durable step is flushed.

        Raises:
            LedgerUnavailableError: It could not be committed, or waited longer than ``PATIENCE_S``.
        """
        job, lead = _Job(step, durable=durable), False
        try:
            with self._mutex:
                self._waiting.append(job)
                lead, self._has_leader = not self._has_leader, True
            while not job.done:
                if lead:
                    self._lead()
                elif not job.wait(PATIENCE_S) and self._withdraw(job):
                    job.error, job.done = _stuck(self._url), True
                lead, job.is_leader = job.is_leader, False
        except BaseException:  # say a KeyboardInterrupt: nobody waits for this job any more
            if self._withdraw(job, leads=lead) and lead:
                with suppress(OSError):
                    self._queue_lock.release()  # it may have been taken just now
            raise
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[no-any-return]  # what its step returned

    def _lead(self) -> None:
        try:
            is_ours = self._queue_lock.acquire(wait=False)
        except OSError as error:
            self._abandon(error)
            return
        if is_ours:
            self._commit_turn()
            return
        if self._thread is None:
            # A daemon: it may be waiting in flock when the process ends.
            self._thread = Thread(target=self._wait_for_turns, name="llm-cost-ledger-queue", daemon=True)
            self._thread.start()
        self._turns_wanted.release()

    def _wait_for_turns(self) -> None:
        while True:
            self._turns_wanted.acquire()
            try:
                self._queue_lock.acquire(wait=True)
            except OSError as error:
                self._abandon(error)
            else:
                with suppress(OSError):  # the lock file was closed in the meantime
                    self._commit_turn()

    def _commit_turn(self) -> None:
        """Commit what waits, holding the queue lock; then release it and wake the next leader."""
        batch: list[_Job] = []
        turn = object()
        try:
            with self._mutex:
                taken, rest = list(islice(self._waiting, _BATCH)), deque(islice(self._waiting, _BATCH, None))
                batch, self._waiting = taken, rest  # in one: no signal comes between, and nobody's job is lost
            self._commit_batch(batch)
        finally:
            try:
                self._end_turn(turn, batch)
            except BaseException:  # say a KeyboardInterrupt: the others wait for what is left of it
                self._end_turn(turn, batch)
                raise

    def _end_turn(self, turn: object, batch: list[_Job]) -> None:
        """Release the queue lock, wake the next leader and those whose jobs were in the batch. Safe to run again."""
        with self._mutex:
            if self._ended is not turn:  # else the next one may have begun
                self._queue_lock.release()
                self._promote_next()
                self._ended = turn
        for job in batch:
            if not job.done:
                job.error, job.done = LedgerUnavailableError(self._url, "interrupted"), True
            job.notify()

    def _abandon(self, error: OSError) -> None:
        """Fail everyone who waits, at once: the ledger was closed under them."""
        with self._mutex:
            batch = list(self._waiting)
            self._waiting.clear()
            self._has_leader = False
        self._fail(batch, error)
        for job in batch:
            job.notify()

    def _promote_next(self) -> None:
        """Make the job that has waited longest the leader. The caller holds the mutex."""
        self._has_leader = bool(self._waiting)
        if self._has_leader:
            self._waiting[0].is_leader = True
            self._waiting[0].notify()

    def _withdraw(self, job: _Job, *, leads: bool = False) -> bool:
        """Remove a job from the queue, passing its leadership on; return whether it was still there."""
        with self._mutex:
            try:
                self._waiting.remove(job)
            except ValueError:
                return False
            if leads or job.is_leader:
                self._promote_next()
            return True

    def _commit_batch(self, batch: list[_Job]) -> None:
        if not batch:
            return
        try:
            with self._maintenance_lock:
                self._transact(batch)
        except _StepError as failed:
            if len(batch) == 1:
                self._fail(batch, failed.error)
            for job in batch if len(batch) > 1 else ():  # one by one, so that only the step at fault fails
                self._commit_batch([job])
        except (sqlite3.Error, OSError) as error:
            self._fail(batch, error)

    def _transact(self, batch: list[_Job]) -> None:
        connection = self._connection()
        try:
            if self._full:
                self._set_flush(connection, flush=any(job.durable for job in batch))
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                job.error = None  # of an earlier try that was rolled back
                try:
                    job.result = job.step(connection)
                except LLMCostError as error:  # a refusal is a result: the others still commit
                    job.error = error
                except Exception as error:
                    raise _StepError(error) from error
            connection.execute("COMMIT")
        except BaseException:
            self._drop_caches()  # they were filled from rows that are not there any more
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        for job in batch:
            job.done = True

    def _set_flush(self, connection: sqlite3.Connection, *, flush: bool) -> None:
        """Let the next commit be flushed or not. A new connection flushes."""
        if flush == (self._relaxed is connection):
            connection.execute(f"PRAGMA synchronous = {'FULL' if flush else 'NORMAL'}")
            self._relaxed = None if flush else connection

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
    """Error of one step, carried past the rollback of its batch."""

    def __init__(self, error: Exception) -> None:
        self.error = error
