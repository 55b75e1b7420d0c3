"""What a process holds of one scope, and what of a call it keeps in memory."""

from __future__ import annotations

from dataclasses import dataclass

from llm_cost_middleware.budget.rules import ReservationRecord


@dataclass(slots=True, eq=False)
class Block:
    """A hold of one scope at the storage, and what this process did with it. Nano-dollars.

    ``held = free + open + due`` once a parcel is in. What calls cost beyond their holds makes ``free`` negative, and
    the next parcel lets the block hold so much more: that money is spent.
    """

    id: str
    scope: str
    created: int
    """Ms: decides in which windows it counts."""
    until: int
    """Ms: from when on it is of another window than a call made then."""
    expires: int
    """Ms: when the storage lets it expire."""
    held: int
    """At the storage, with what was taken for it since, after the last parcel that is known to be in."""
    free: int
    alive_until: float
    """Monotonic seconds: until then the storage surely has not let it expire."""
    extended: float
    """When a parcel last let it live on, monotonic seconds."""
    open: int = 0
    """Holds of calls that are under way."""
    due: int = 0
    """What calls have cost that are not shipped yet, and holds that are handed over."""

    @property
    def target(self) -> int:
        """What it must hold at the storage while nothing of ``due`` is shipped."""
        return self.open + self.due + max(self.free, 0)


@dataclass(slots=True, eq=False)
class LocalHold:
    """A call that was admitted in memory and is under way."""

    record: ReservationRecord
    blocks: tuple[Block, ...]
    memo: bytes
