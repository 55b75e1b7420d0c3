"""What the ledger could not take, while it was locked, full or away: kept, and booked as soon as it can be.

In memory for this process, which tries again on its next activity; in a file beside the ledger for the next one. Ids
make it safe that several processes book the same: all but the first change nothing.
"""

from __future__ import annotations

import logging

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.notes import SupportsSpool
from llm_cost_middleware.budget.spool_place import SpoolPlace
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LedgerError, LedgerUnavailableError, ReservationNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.spool_file import SpoolFile, Unbooked

_log = logging.getLogger(__name__)
_KEPT = 10_000
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0


class Spool:
    """Resolutions that wait for the ledger. Safe to share between threads.

    Args:
        ledger: Where they are to be booked.
        clock: Time.
    """

    _lock = ForkSafeLock()
    _turn = ForkSafeLock()

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock
        self._waiting: dict[str, Unbooked] = {}
        self._due, self._wait_s = 0.0, _FIRST_WAIT_S
        self._file: SpoolFile | None = None
        self._place: SpoolPlace | None = None
        backend = ledger.backend
        if isinstance(backend, SupportsSpool):
            self._place = backend.spool_place
            if self._place.same_disk or self._place.path.exists():
                self._file = _opened(self._place)
                self._found(self._file)
        # What a server is asked may be done although its answer never comes.
        self.voids = getattr(backend, "answers_late", False)
        """Whether a reserve without an answer is to be given back."""

    @property
    def due(self) -> bool:
        """Whether something waits and may be tried now."""
        return bool(self._waiting) and self._clock.monotonic() >= self._due

    def keep(self, entry: Unbooked) -> None:
        """Keep a resolution. May block, and never raises."""
        with self._lock:
            if len(self._waiting) >= _KEPT:
                _log.error("too much waits for the ledger; %s will expire and be charged", entry.id)
                return
            if not self._waiting:
                self._due, self._wait_s = self._clock.monotonic() + _FIRST_WAIT_S, _FIRST_WAIT_S
            self._waiting[entry.id] = entry
        if self._file is None and self._place is not None:
            self._file = _opened(self._place)
        if self._file is not None:
            try:
                self._file.append(entry)
            except OSError as error:
                _log.warning("what waits for the ledger is kept in memory alone: %s", error)

    def retry(self, *, force: bool = False) -> None:
        """Book what waits, if it is time to try. May block, and never raises."""
        if not (self.due or (force and self._waiting)) or not self._turn.acquire(blocking=False):
            return
        try:
            with self._lock:
                waiting = list(self._waiting.values())
            if not waiting:  # another thread booked it meanwhile
                return
            # While the storage is away only one waits for it.
            done = set()
            if self._booked(waiting[0]):
                done = {waiting[0].id, *(entry.id for entry in waiting[1:] if self._booked(entry))}
            with self._lock:
                for id_ in done:
                    self._waiting.pop(id_, None)
                self._wait_s = _FIRST_WAIT_S if done else min(self._wait_s * 2, _LONGEST_WAIT_S)
                self._due = self._clock.monotonic() + self._wait_s
            if self._file is not None and done:
                self._file.remove(done)
        except OSError as error:  # of the file: what is in it is booked again by the next process, to no effect
            _log.warning("the file of what waits for the ledger was not written: %s", error)
        finally:
            self._turn.release()

    def _booked(self, entry: Unbooked) -> bool:
        """Book one; return whether it is done with."""
        try:
            self._apply(entry)
        except LedgerUnavailableError:
            return False
        except LedgerError as error:  # somebody settled it otherwise in the meantime
            _log.error("what waited for the ledger was not booked: %s", error)
        except Exception as error:  # noqa: BLE001 - a storage of somebody's own fails in words of its own
            _log.error("what waited for the ledger was not booked yet: %s", type(error).__qualname__)
            return False
        else:
            _log.info("booked, as the ledger takes it again: %s", entry.id)
        return True

    def _apply(self, entry: Unbooked) -> None:
        ledger = self._ledger
        if entry.verb == "void":
            try:
                ledger.void(entry.id, memo=entry.memo)
            except ReservationNotFoundError:
                return
        elif entry.verb == "book":
            ledger.book(entry.amount, entry.scopes, id=entry.id, memo=entry.memo, status=entry.status)
        else:
            try:
                ledger.settle(entry.id, entry.amount, memo=entry.memo, status=entry.status)
            except ReservationNotFoundError:  # the storage lost it; the money is spent all the same
                ledger.book(entry.amount, entry.scopes, id=entry.id, memo=entry.memo, status=entry.status)

    def _found(self, file: SpoolFile | None) -> None:
        """Take over what another process left."""
        if file is None:
            return
        try:
            self._waiting = {entry.id: entry for entry in file.read()}
        except OSError as error:
            _log.warning("the file of what waits for the ledger cannot be read: %s", error)


def _opened(place: SpoolPlace) -> SpoolFile | None:
    try:
        return SpoolFile(place.path, place.name)
    except OSError as error:
        _log.debug("what waits for the ledger is kept in memory alone: %s", error)
        return None
