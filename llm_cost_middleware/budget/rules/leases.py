"""Leases: a process holds a block of a scope's budget, and admits calls against it in memory.

A block is a hold of one scope at the storage. For each call that it admits the process keeps the hold and the cost
itself, and ships them in groups: one parcel books what calls have cost, under their own scopes, and lets the blocks
hold less by as much, in one atomic step. So at every moment, at the storage, in every account of a scope:

    settled + pending <= limit        where a block, used or not, is pending

A call takes from the block of ``global`` and of every scope of its that has a budget, or goes to the storage as without
leases: whenever a block is missing or too small, before every refusal, and where a budget is too small to split.
Everything here is pure: time and sums are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, inf
from typing import NamedTuple, Protocol, runtime_checkable

from llm_cost_middleware.budget.model import RowStatus
from llm_cost_middleware.budget.rules.accounts import BudgetIndex
from llm_cost_middleware.budget.rules.transitions import Crossed, ReservationRecord

LEASE = "lease:"
"""Begins the ids of blocks."""


class LeasePolicy(NamedTuple):
    """How blocks are sized, and how often a process ships."""

    interval_s: float = 1.0
    """Seconds between parcels: reports, pauses and changed limits lag by as much."""
    ttl_s: float = 60.0
    """Seconds after which the block of a process that gives no sign of life is charged."""
    horizon_s: float = 4.0
    """A block is what a process spends in so many seconds; in more, where it cannot look as often (``Usage.gap``)."""
    least_calls: int = 8
    """A block smaller than so many holds is not worth its steps: the budget is too small to split."""
    share: int = 4
    """All blocks of a budget together are at most this part of what is left of it."""
    idle_s: float = 5.0
    """A block from which nothing was taken for so long is handed back."""
    largest_parcel: int = 500
    """Calls in one parcel: it bounds how long the storage works at one."""
    processes: float | None = None
    """How many processes share a budget, where that is known; ``None``: it is estimated from what all of them spend."""
    longest_hold_s: float = 30.0
    """A call that goes on for longer gets a hold of its own at the storage."""


_LONGEST_GAPS = 4.0
"""Times ``horizon_s`` that a block is at most, however long nothing could be looked at."""


class Usage:
    """What one process takes out of a scope: sums that fade with time. Nano-dollars; times are monotonic seconds."""

    __slots__ = ("_calls", "_spent", "at", "calls", "gap", "largest", "last_taken", "own", "spent", "total")

    def __init__(self, now: float) -> None:
        self.at = self.last_taken = now
        self.calls = self.spent = self._calls = self._spent = 0.0
        self.gap = 0.0
        """Seconds between the last two looks at the storage: a block must outlast the next."""
        self.own = self.total = -1.0
        """What this process and what all spent since the storage was looked at first; below zero before."""
        self.largest = 0

    def take(self, amount: int, now: float) -> None:
        """A call held ``amount``."""
        self.calls += 1
        self.largest = max(self.largest, amount)
        self.last_taken = now

    def pay(self, amount: int) -> None:
        """A call cost ``amount``."""
        self.spent += amount
        if self.own >= 0:
            self.own += amount

    def fade(self, now: float, horizon_s: float, total: int) -> None:
        """Let time pass; ``total`` is what all processes spent since the last time."""
        self.own, self.total = max(self.own, 0.0), max(self.total, 0.0) + total
        self.gap = max(now - self.at, 0.0)
        kept = exp(-self.gap / horizon_s)
        self.at = now
        # What came since the last look came evenly: sums are what ``horizon_s`` brings, however rare looks are.
        fresh = (1 - kept) * horizon_s / self.gap if self.gap else 1.0
        self.calls = self._calls = self._calls * kept + (self.calls - self._calls) * fresh
        self.spent = self._spent = self._spent * kept + (self.spent - self._spent) * fresh
        self.own *= kept
        self.total *= kept
        self.largest = max(int(self.largest * (0.9 + 0.1 * kept)), 1 if self.largest else 0)

    @property
    def processes(self) -> float:
        """How many processes that spend as much as this one the spending of all amounts to; infinite if not known."""
        return max(self.total / self.own, 1.0) if self.own > 0 else inf


def block_size(usage: Usage, open_holds: int, left: int | None, policy: LeasePolicy) -> int:
    """Return what a process should hold of a scope beyond what its open calls hold, nano-dollars; 0 for nothing.

    Args:
        usage: What it took lately.
        open_holds: The sum of the holds of its calls that are under way.
        left: What is left of the scope's budgets, with what this process could hand back; ``None`` without a limit.
        policy: The bounds.
    """
    if usage.calls < policy.least_calls / 2:
        return 0
    # It is filled up when half of it is left, at a look.
    lasting = min(max(1.0, 2 * usage.gap / policy.horizon_s), _LONGEST_GAPS)
    wanted = int(usage.spent * lasting) + open_holds // 2 + policy.least_calls * usage.largest
    if left is None:
        return wanted
    most = int(left / (policy.share * (policy.processes or usage.processes)))
    size = min(wanted, most)
    return size if size >= policy.least_calls * usage.largest else 0


class ParcelEntry(NamedTuple):
    """A call in a parcel: what it cost (``book``), or what it still holds from now on by itself (``reserve``)."""

    kind: str
    id: str
    scopes: tuple[str, ...]
    amount: int
    """Nano-dollars."""
    created: int
    """When its hold was made, ms: decides in which windows it counts."""
    expires: int
    """When a hold expires, ms; of a booking ``created``."""
    status: RowStatus
    memo: bytes

    @property
    def settled(self) -> int:
        """What it adds to the settled sums of its scopes."""
        return self.amount if self.kind == "book" else 0

    @property
    def pending(self) -> int:
        """What it adds to the pending sums of its scopes."""
        return self.amount if self.kind == "reserve" else 0

    def record(self) -> ReservationRecord:
        """Return it as what a storage keeps of its id, before it is resolved."""
        held = self.amount if self.kind == "reserve" else 0
        verb = "book" if self.kind == "book" else "settle"
        return ReservationRecord(self.id, self.scopes, held, self.created, self.expires, verb=verb)  # type: ignore[arg-type]  # one of two


class ParcelHold(NamedTuple):
    """What a block holds after a parcel."""

    id: str
    amount: int
    """Nano-dollars. More than before only by what calls cost beyond their holds."""
    ttl: int
    """Ms from then until it expires; 0: it ends."""


class Parcel(NamedTuple):
    """What one process hands to the storage at once: all of it is done, or nothing."""

    entries: tuple[ParcelEntry, ...]
    holds: tuple[ParcelHold, ...]


class Shipped(NamedTuple):
    """What became of a parcel."""

    at: int
    """The time of the storage, ms."""
    known: frozenset[str]
    """Ids that the storage had before, and left as they were."""
    lost: frozenset[str]
    """Blocks that had ended before; of one that expired, what it was charged is lowered to what it should hold."""
    crossed: Crossed
    """Thresholds of budgets that the parcel crossed."""


class HeldBlock(NamedTuple):
    """A block at the storage: ``amount`` in nano-dollars; ``created``, ms, decides in which windows it counts."""

    id: str
    scope: str
    amount: int
    created: int


def leased_by_account(index: BudgetIndex, now: int, blocks: Iterable[HeldBlock]) -> dict[tuple[str, str], int]:
    """Return what blocks hold, by scope and window, in the windows that ``now`` (ms) is in; nano-dollars."""
    sums: dict[tuple[str, str], int] = {}
    for block in blocks:
        current = {posting.window: posting for posting in index.posting_plan((block.scope,), now).postings}
        for posting in index.posting_plan((block.scope,), block.created).postings:
            if posting.window in current and current[posting.window].first_cell <= posting.cell:
                key = posting.scope, posting.window
                sums[key] = sums.get(key, 0) + block.amount
    return sums


@runtime_checkable
class SupportsLeases(Protocol):
    """Ability of a backend to take in a parcel. A block is made by ``reserve`` and expires by ``sweep``."""

    def held_blocks(self) -> list[HeldBlock]:
        """Return the blocks that are pending; of a process with blocks those of others."""
        ...

    def ship(self, parcel: Parcel) -> Shipped:
        """Book the calls of a parcel and set what its blocks hold, in one atomic step.

        An id that is known is left alone, so a parcel may be sent twice. A block that expired meanwhile was charged for
        calls that are booked now: what it is charged is set instead.
        """
        ...


def is_lease(id_: str) -> bool:
    """Whether an id is that of a block."""
    return id_.startswith(LEASE)


def held_change(record: ReservationRecord | None, hold: ParcelHold) -> tuple[int, int]:
    """Return what a hold of a parcel changes in settled and pending of its block's accounts."""
    if record is None or record.state not in {"pending", "expired"}:
        return 0, 0
    if record.state == "pending":
        return 0, hold.amount - record.amount
    # It was charged whole, or released; what is booked now must not count twice, and no more than that is taken back.
    return min(hold.amount - record.charged, 0), 0
