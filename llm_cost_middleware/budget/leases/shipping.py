"""Between a desk and the storage: ships parcels, looks at what is left, takes blocks and hands them back."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count, islice

from llm_cost_middleware.budget.backend import Backend, Journal, JournalEntry
from llm_cost_middleware.budget.leases.block import Block
from llm_cost_middleware.budget.leases.desk import Desk
from llm_cost_middleware.budget.leases.journal import line_of, read_journal
from llm_cost_middleware.budget.model import GLOBAL
from llm_cost_middleware.budget.notes import Notes, SharedChange
from llm_cost_middleware.budget.rules import AccountTotals, BudgetIndex
from llm_cost_middleware.budget.rules.leases import (
    LEASE,
    LeasePolicy,
    Parcel,
    ParcelEntry,
    ParcelHold,
    Shipped,
    Usage,
    block_size,
)
from llm_cost_middleware.errors import BudgetExceededError, LedgerError, LedgerUnavailableError, ScopePausedError
from llm_cost_middleware.fork import ForkSafeLock

_log = logging.getLogger(__name__)
_ADOPT_S = 15.0
_RENEW_S = 60.0
"""Seconds after which the journal is written anew, without the names and the memos of what is shipped."""
_MOST_NOTES = 10_000
_FADED = 0.01
"""Calls of a scope that are too long ago to be kept count of."""


class Shipping:
    """Ships for one desk. Every method may block, one at a time.

    Args:
        desk: The desk.
        storage: A backend that ``SupportsLeases``.
        policy: How blocks are sized.
        monotonic: Seconds that never go back.
    """

    _turn = ForkSafeLock()

    def __init__(self, desk: Desk, storage: Backend, policy: LeasePolicy, monotonic: Callable[[], float]) -> None:
        self._desk, self._storage, self._policy, self._monotonic = desk, storage, policy, monotonic
        self._numbers, self._token = count(1), os.urandom(6).hex()
        self._merging: list[tuple[str, Block | None]] = []
        """Holds that the next parcel ends: the block that has taken one in, if any."""
        self._settled: dict[str, int] = {}
        self._adopt_at = self._renew_at = 0.0
        self._renew_now = False
        """Whether the journal is to be written anew whatever it says: its lines may name somebody who is erased."""
        self._notes: deque[Notes] = deque()
        self.wake: Callable[[], None] = lambda: None

    def keep(self, notes: Notes | None) -> None:
        """Keep what is noted beside money for the next parcel."""
        if notes is not None:
            notes.written = True
            if len(self._notes) < _MOST_NOTES:
                self._notes.append(notes)
            self.wake()

    @property
    def has_notes(self) -> bool:
        """Whether anything that was noted waits for the next parcel."""
        return bool(self._notes)

    def tick(self) -> None:
        """Ship what is due, see what is left, and let the blocks follow. Raises ``LedgerUnavailableError``."""
        with self._turn:
            self._retire()
            self._resize()  # first, and between parcels: a call that finds no block does not wait until all is shipped
            self._ship(follow=True)
            if self._monotonic() >= self._adopt_at:
                self._adopt_at = self._monotonic() + _ADOPT_S
                self._adopt()

    def flush(self) -> None:
        """Ship what is due. Raises ``LedgerUnavailableError``."""
        with self._turn:
            self._ship()

    def give_way(self, scopes: tuple[str, ...]) -> bool:
        """Hand back what this process does not use of some scopes; return whether it had anything."""
        with self._turn:
            with self._desk._lock:  # noqa: SLF001 - the two are one thing in two files
                mine = [block for block in self._desk.blocks.values() if block.scope in scopes and block.free > 0]
                for block in mine:
                    block.free = 0
            if mine:
                self._ship_one()  # one parcel says what every block holds: the caller waits for no more
            return bool(mine)

    def drain(self) -> None:
        """Hand everything over: the storage then knows what it would know without leases."""
        with self._turn:
            desk = self._desk
            desk.hand_over(lambda _: True)
            with desk._lock:  # noqa: SLF001
                desk.ending.extend(desk.blocks.values())
                desk.blocks = {}
                for block in desk.ending:
                    block.free = 0
            self._renew_now = True  # whoever erases a name leaves none in the journal
            self._ship()

    def forget(self) -> None:
        """After a fork."""
        self._token, self._merging, self._settled, self._adopt_at = os.urandom(6).hex(), [], {}, 0.0
        self._notes.clear()  # the parent writes them

    # --- parts; the caller has the turn ------------------------------------------------------------------------------

    def _retire(self) -> None:
        """Let blocks end that calls can no longer be admitted from, and hand over what has been open for long."""
        desk, now, moment = self._desk, self._desk.now_ms(), self._monotonic()
        old = now - int(self._policy.longest_hold_s * 1000)
        margin = int(self._policy.interval_s * 2000)
        desk.hand_over(lambda hold: hold.record.created <= old or hold.record.expires <= now + margin)
        with desk._lock:  # noqa: SLF001
            for scope, block in list(desk.blocks.items()):
                if now >= min(block.until, block.expires) or moment >= block.alive_until:
                    block.free = 0
                    desk.ending.append(desk.blocks.pop(scope))

    def _ship(self, *, follow: bool = False) -> None:
        while self._ship_one():
            if follow and self._desk.missing:
                self._resize()
        self._tidy()
        self._write_notes()

    def _ship_one(self) -> bool:
        """Ship one parcel; return whether there is more."""
        desk, policy, moment, now = self._desk, self._policy, self._monotonic(), self._desk.now_ms()
        ttl = int(policy.ttl_s * 1000)
        with desk._lock:  # noqa: SLF001
            sent = list(islice(desk.due.items(), policy.largest_parcel))
            shipped: dict[str, int] = {}
            for _, (entry, blocks) in sent:
                for block in blocks:
                    shipped[block.id] = shipped.get(block.id, 0) + entry.amount
            holds, touched = [], []
            merged = list(self._merging)
            merging = [block for _, block in merged]
            for block in desk.ending:
                block.free = min(block.free, 0)
            for block in desk.all_blocks():
                target = block.target - shipped.get(block.id, 0)
                ends = block in desk.ending and not block.open and block.due == shipped.get(block.id, 0)
                stale = moment >= block.extended + policy.ttl_s / 4 or now >= block.expires - ttl // 2
                if ends or target != block.held or stale or block in merging:
                    holds.append(ParcelHold(block.id, target, 0 if ends else ttl))
                    touched.append((block, target, ends))
            holds += [ParcelHold(id_, 0, 0) for id_, _ in merged]
        if not sent and not holds:
            return False
        told = self._storage.ship(Parcel(tuple(entry for _, (entry, _) in sent), tuple(holds)))  # type: ignore[attr-defined]  # it supports them
        self._took(told, sent, touched, moment)
        with desk._lock:  # noqa: SLF001
            self._merging = [one for one in self._merging if one not in merged]
            more = bool(desk.due)
        return more and len(sent) == policy.largest_parcel

    def _took(
        self,
        told: Shipped,
        sent: list[tuple[str, tuple[ParcelEntry, tuple[Block, ...]]]],
        touched: list[tuple[Block, int, bool]],
        sent_at: float,
    ) -> None:
        """The storage has taken a parcel in."""
        desk, ttl = self._desk, int(self._policy.ttl_s * 1000)
        desk.note_time(told.at)
        desk.note_crossed(told.crossed)
        with desk._lock:  # noqa: SLF001
            for id_, (entry, blocks) in sent:
                del desk.due[id_]
                for block in blocks:
                    block.due -= entry.amount
            for block, target, ends in touched:
                block.held, block.expires = target, told.at + ttl
                block.extended, block.alive_until = sent_at, sent_at + self._policy.ttl_s * 0.75
                if ends:
                    desk.ending.remove(block)
                elif block.id in told.lost and desk.blocks.get(block.scope) is block:
                    block.free = 0
                    desk.ending.append(desk.blocks.pop(block.scope))
        if told.lost:
            _log.warning("a block of the budget had ended before this process gave a sign of life: %s", told.lost)

    def _resize(self) -> None:
        """Let the blocks follow."""
        desk, moment = self._desk, self._monotonic()
        with desk._lock:  # noqa: SLF001
            desk.missing = False
            scopes = tuple(dict.fromkeys((GLOBAL, *desk.usage, *desk.blocks)))
        found = self._storage.read(scopes)
        desk.note_time(found.now)
        index = found.budget_index
        if desk.index is not None and desk.index is not index:
            self._renew_now = True  # as after an erasure
        desk.go_by(index)
        left = _left(index, found.now, found.totals)
        desk.left = {scope: room for scope, (_, room) in left.items() if room is not None}
        for scope in scopes:
            usage = desk.usage.get(scope)
            if usage is None:
                continue
            with desk._lock:  # noqa: SLF001
                settled, _ = left.get(scope, (0, None))
                grown = max(settled - self._settled.get(scope, settled), 0)
                self._settled[scope] = settled
                usage.fade(moment, self._policy.horizon_s, grown)
                block = desk.blocks.get(scope)
                open_, free = (block.open, max(block.free, 0)) if block is not None else (0, 0)
            self._follow(scope, usage, open_, free, left, index)
        with desk._lock:  # noqa: SLF001
            for scope in [
                scope for scope, usage in desk.usage.items() if usage.calls < _FADED and scope not in desk.blocks
            ]:
                del desk.usage[scope]
                self._settled.pop(scope, None)

    def _follow(
        self, scope: str, usage: Usage, open_: int, free: int, left: dict[str, tuple[int, int | None]],
        index: BudgetIndex,
    ) -> None:  # fmt: skip
        """Let the block of a scope be as large as it should be."""
        desk = self._desk
        room = left.get(scope, (0, None))[1]
        size = 0
        if scope in left and self._monotonic() - usage.last_taken <= self._policy.idle_s:
            size = block_size(usage, open_, None if room is None else max(room + free, 0), self._policy)
        if free > size + size // 2 or (free and not size):
            with desk._lock:  # noqa: SLF001
                block = desk.blocks.get(scope)
                if block is not None:
                    block.free = min(block.free, size)
                    if not size:  # too small to split: what its calls do not need goes back as they end
                        desk.ending.append(desk.blocks.pop(scope))
        elif free < size // 2:
            self._take(scope, size - free, index)

    def _take(self, scope: str, size: int, index: BudgetIndex) -> None:
        """Take a block, or let the one of this window hold more."""
        desk, policy = self._desk, self._policy
        id_ = f"{LEASE}{self._token}-{next(self._numbers):x}"
        with desk._lock:  # noqa: SLF001
            if not desk.write(line_of("L", id_)):
                return
        asked = self._monotonic()
        try:
            made = self._storage.reserve(id_, size, (scope,), int(policy.ttl_s * 1000), b"", fresh=True)
        except (BudgetExceededError, ScopePausedError):  # one scope's: the blocks of others follow all the same
            return
        except BaseException:
            self._merging.append((id_, None))  # it may stand all the same
            raise
        created = round(made.created_at * 1000)
        alive = asked + policy.ttl_s * 0.75
        with desk._lock:  # noqa: SLF001
            if desk.index is not index:  # budgets are being changed: nothing is admitted by what it was taken under
                self._merging.append((id_, None))
                return
            until = index.posting_plan((scope,), created).until
            block = desk.blocks.get(scope)
            if block is not None and block.until == until:
                block.free += size
                block.held += size
                self._merging.append((id_, block))
            else:
                if block is not None:
                    block.free = 0
                    desk.ending.append(block)
                desk.blocks[scope] = Block(
                    id_, scope, created, until, round(made.expires_at * 1000), size, size, alive, asked
                )

    def _write_notes(self) -> None:
        """Write what was noted beside money, all at once. It never costs a parcel."""
        kept = [self._notes.popleft() for _ in range(len(self._notes))]
        if not kept:
            return
        lines = [line for notes in kept for line in notes.lines]
        changes = [notes.change for notes in kept if notes.change is not None]
        try:
            if lines:
                append_all(self._storage.journal, lines)  # type: ignore[attr-defined]  # it has one, or nobody notes
            if changes:
                self._storage.shared_state.change(*_merged(changes))  # type: ignore[attr-defined]  # as above
        except Exception as error:  # noqa: BLE001 - of the storage, or of a function that makes a shared value
            _log.debug("notes were not written with their calls: %s", error)

    def _tidy(self) -> None:
        desk = self._desk
        if desk.journal is None:
            return
        try:
            # Names and memos of what is shipped do not stay: not for long, and not where there is nothing to do.
            over = desk.journal.has_lines and (not desk.busy or self._monotonic() >= self._renew_at)
            if desk.journal.long or over or self._renew_now:
                with desk._lock:  # noqa: SLF001
                    desk.journal.renew(desk.journal_lines())
                self._renew_now, self._renew_at = False, self._monotonic() + _RENEW_S
            desk.journal.sync()
        except OSError as error:
            _log.warning("the journal of leases was not written: %s", error)

    def _adopt(self) -> None:
        """Ship what processes that are gone left on this machine."""
        journal = self._desk.journal
        if journal is None:
            return
        for path, file in journal.left_by_others():
            try:
                found = read_journal(file)
                holds = tuple(ParcelHold(id_, 0, 0) for id_ in found.blocks) if found.whole else ()
                most = self._policy.largest_parcel
                # The blocks end with the last of the calls that they held for.
                for start in range(0, max(len(found.entries), 1), most):
                    last = start + most >= len(found.entries)
                    parcel = Parcel(found.entries[start : start + most], holds if last else ())
                    self._storage.ship(parcel)  # type: ignore[attr-defined]  # it supports them
                path.unlink(missing_ok=True)
                _log.info("shipped what another process left: %d calls", len(found.entries))
            except LedgerUnavailableError:
                return
            except (OSError, LedgerError, LookupError, ValueError, TypeError) as error:
                _log.warning("what another process left was not shipped: %s", error)
            finally:
                os.close(file)


def append_all(journal: Journal, lines: Sequence[JournalEntry]) -> None:
    """Append lines to a journal, in one step where it can."""
    many = getattr(journal, "append_all", None)
    if many is not None:
        many(lines)
        return
    for line in lines:
        journal.append(*line)


def _merged(changes: list[SharedChange]) -> SharedChange:
    """Return one change of shared values that does what several do, one after the other."""
    keys = tuple(dict.fromkeys(key for change in changes for key in change.keys))

    def to(found: list[bytes | None]) -> list[bytes]:
        values = dict(zip(keys, found, strict=True))
        for change in changes:
            values |= zip(change.keys, change.to([values[key] for key in change.keys]), strict=True)
        return [values[key] or b"" for key in keys]

    return SharedChange(keys, to, max(change.at for change in changes))


def _left(index: BudgetIndex, now: int, totals: tuple[AccountTotals, ...]) -> dict[str, tuple[int, int | None]]:
    """Return, by scope, what is settled for ever and what any process may still take; ``None`` without a limit."""
    found: dict[str, tuple[int, int | None]] = {}
    for account in totals:
        scope, window, settled, pending, carried = account
        before, room = found.get(scope, (0, None))
        if window == "none":
            before = settled
        budget = index.for_scope(scope).get(window)
        if budget is not None:
            limit = index.limit(budget, now)
            free = limit + carried - budget.kept_from((scope,), limit) - settled - pending
            room = free if room is None else min(room, free)
        found[scope] = before, room
    return found
