"""State transitions of a reservation, and the replay of an id that is used again."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from llm_cost_middleware.budget.model import Receipt, Reservation, ReservationState, RowStatus, Verb
from llm_cost_middleware.budget.rules.slices import slice_budget
from llm_cost_middleware.errors import ReservationConflictError
from llm_cost_middleware.money import ZERO, NanoUSD

Crossed = dict[tuple[str, str], int]
"""Scope and window to the sum that a booking crossed there."""


class ReservationRecord(Struct, gc=False):
    """State of one id as backends keep it. Amounts in nano-dollars, times in ms.

    ``charged`` is what its scopes carry for it now. ``actual``, ``status``, ``late``, ``resolved`` and ``warnings``
    belong to the first resolution, so that a repeated settle returns its first receipt even after a correction.
    """

    id: str
    scopes: tuple[str, ...]
    amount: int
    created: int
    expires: int
    state: ReservationState = "pending"
    charged: int = 0
    verb: Verb = "settle"
    actual: int = 0
    status: RowStatus = "reserved"
    late: bool = False
    resolved: int = 0
    reconciled: int = 0
    warnings: tuple[tuple[str, str], ...] = ()
    thresholds: tuple[int, ...] = ()
    archived: bool = False
    requested: int | None = None
    """What was reserved, where ``amount`` was reduced since."""

    def charged_if_expired(self, *, charge: bool) -> int:
        """What it costs to let it expire. A slice was nothing that was sent: what it has left is released."""
        return self.amount if charge and slice_budget(self.id) is None else 0

    def reservation(self) -> Reservation:
        """Return it as the public value."""
        created, expires = self.created / 1000, self.expires / 1000
        return Reservation(self.id, NanoUSD(self.amount), self.scopes, created, expires, self.state)

    def extend(self, until: int) -> None:
        """Let it expire later, never earlier. Raises ``ReservationConflictError`` unless it is pending."""
        if self.state != "pending":
            raise ReservationConflictError(self.id, f"cannot be extended, it is {self.state}")
        self.expires = max(self.expires, until)

    def receipt(self) -> Receipt:
        """Return the receipt of the first resolution. A booking without a reservation has no overrun."""
        paid, reserved = self.actual, self.amount
        paid = paid if type(paid) is NanoUSD else NanoUSD(paid)
        reserved = reserved if type(reserved) is NanoUSD else NanoUSD(reserved)
        over = ZERO if self.verb == "book" or paid <= reserved else NanoUSD(paid - reserved)
        thresholds = tuple(map(NanoUSD, self.thresholds)) if self.thresholds else ()
        return Receipt(
            self.id, self.verb, paid, reserved, over, self.status, self.late, self.warnings, self.resolved / 1000,
            thresholds=thresholds,
        )  # fmt: skip

    def correction(self) -> Receipt:
        """Return the receipt of the last reconciliation."""
        paid, reserved, at = NanoUSD(self.charged), NanoUSD(self.amount), self.reconciled / 1000
        over = NanoUSD(max(paid - reserved, 0))
        return Receipt(self.id, "reconcile", paid, reserved, over, "exact", self.late, (), at)

    def told(self, verb: Verb, crossed: Crossed) -> Receipt:
        """Return the receipt of the resolution that was just written, with the thresholds that it crossed."""
        if verb == "reconcile":
            thresholds = tuple(map(NanoUSD, crossed.values()))
            return replace(self.correction(), warnings=tuple(crossed), thresholds=thresholds)
        if crossed or self.warnings:
            self.warnings, self.thresholds = tuple(crossed), tuple(crossed.values())
        return self.receipt()

    def replay(self, verb: Verb) -> Receipt:
        """Return the receipt of a resolution that an earlier call made."""
        return replace(self.correction() if verb == "reconcile" else self.receipt(), repeated=True)


class Transition(Struct, frozen=True, gc=False):
    """Change of a reservation: its new state and ``charged``, and what is added to the sums of every account."""

    state: ReservationState
    charged: int
    pending: int
    settled: int


def resolve(record: ReservationRecord, verb: Verb, amount: int) -> Transition | None:
    """Decide what a verb does to a reservation; ``None`` if an earlier call made the same resolution (a replay).

    ======== ============================= =================== ============== ===========
    state    settle(a)                     void                expire(a)      reconcile(a)
    ======== ============================= =================== ============== ===========
    pending  settled at a                  voided              expired at a   conflict
    settled  again with the same a: replay conflict            nothing        settled at a
    expired  settled at a (late)           voided (late)       nothing        settled at a
    voided   conflict                      replay              nothing        settled at a
    refused  conflict                      conflict            nothing        conflict
    ======== ============================= =================== ============== ===========

    A reservation resolves at most once, as in payments; an expiry is a guess and gives way to the answer, because the
    money is spent whether or not the hold had expired. An archived id is closed: a new reconcile is a conflict.

    Raises:
        ReservationConflictError: It was resolved otherwise before.
    """
    state = record.state
    if verb == "expire":
        # Not pending: it was resolved between the search for what is due and this step.
        return Transition("expired", amount, -record.amount, amount) if state == "pending" else None
    if state == "refused":
        raise ReservationConflictError(record.id, "was refused; nothing was reserved")
    if verb == "reconcile":
        return _reconcile(record, amount)
    if state == "pending":
        if verb == "void":
            return Transition("voided", 0, -record.amount, 0)
        return Transition("settled", amount, -record.amount, amount)
    if state == "expired":
        return Transition("voided" if verb == "void" else "settled", amount, 0, amount - record.charged)
    if state == "voided" and verb == "void":
        return None
    if state == "settled" and verb == "settle" and record.actual == amount:
        return None
    detail = f"settled at {NanoUSD(record.actual)}" if state == "settled" else state
    raise ReservationConflictError(record.id, f"was already {detail}")


def _reconcile(record: ReservationRecord, amount: int) -> Transition | None:
    if record.state == "pending":
        raise ReservationConflictError(record.id, "is still pending; settle it")
    # Before the check for archived ids: a correction stays repeatable after its rows were archived.
    if record.reconciled and record.charged == amount:
        return None
    if record.archived:
        raise ReservationConflictError(record.id, "was archived; book a difference under an id of its own")
    return Transition("settled", amount, 0, amount - record.charged)


def apply(
    record: ReservationRecord, verb: Verb, transition: Transition, amount: int, status: RowStatus, now: int
) -> None:
    """Write a transition into its record."""
    # By time, not by state alone: a settle after the end is late whether or not a sweep came first.
    late = record.state == "expired" or (verb != "book" and now >= record.expires)
    if verb == "reconcile":
        record.reconciled = now
        if record.state != "settled":  # voided or expired: the correction becomes its first resolution
            record.verb, record.actual, record.status, record.late, record.resolved = verb, amount, status, late, now
            record.warnings = record.thresholds = ()
    else:
        record.verb, record.actual, record.status, record.late, record.resolved = verb, amount, status, late, now
    record.state, record.charged = transition.state, transition.charged


def check_replay(record: ReservationRecord, amount: int, scopes: tuple[str, ...], *, booked: bool = False) -> None:
    """Check that an id which is used again means the same as before.

    Raises:
        ReservationConflictError: Another amount, other scopes, or a booking where a reservation was made.
    """
    if booked != (record.verb == "book"):
        raise ReservationConflictError(record.id, "a booking and a reservation cannot share an id")
    if record.scopes != scopes:
        raise ReservationConflictError(record.id, "was used with other scopes")
    # A booking reserved nothing: what it stands for is the amount it was booked at.
    before = record.actual if booked else record.amount
    if amount not in (before, record.requested):  # a hold that was reduced since is the same hold
        asked = NanoUSD(record.requested or before)
        raise ReservationConflictError(record.id, f"was used with another amount, {asked}")
