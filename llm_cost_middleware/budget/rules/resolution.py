"""What a reservation may become, and what a repeated id gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from llm_cost_middleware.budget.model import Receipt, Reservation, State, Status, Verb
from llm_cost_middleware.errors import ReservationConflictError
from llm_cost_middleware.money import ZERO, NanoUSD


@dataclass(slots=True)
class Record:
    """What a backend keeps of one id: the state of a reservation, and what it was first resolved with.

    ``charged`` is what its scopes carry for it now; ``actual``, ``status``, ``late``, ``resolved`` and ``warnings`` are
    those of the first resolution, so that a repeated settle gets its first receipt even after a correction.
    """

    id: str
    scopes: tuple[str, ...]
    amount: int
    created: int
    expires: int
    state: State = "pending"
    charged: int = 0
    verb: Verb = "settle"
    actual: int = 0
    status: Status = "reserved"
    late: bool = False
    resolved: int = 0
    reconciled: int = 0
    warnings: tuple[tuple[str, str], ...] = ()
    archived: bool = False

    def reservation(self) -> Reservation:
        """As its caller sees it."""
        created, expires = self.created / 1000, self.expires / 1000
        return Reservation(self.id, as_nanousd(self.amount), self.scopes, created, expires, self.state)

    def extend(self, until: int) -> None:
        """Lengthen the lease, never shorten it. Raises ``ReservationConflictError`` unless it is pending."""
        if self.state != "pending":
            raise ReservationConflictError(self.id, f"cannot be extended, it is {self.state}")
        self.expires = max(self.expires, until)

    def receipt(self) -> Receipt:
        """Of its first resolution."""
        return receipt(
            self.id, self.verb, self.actual, self.amount, self.status, self.late, self.warnings, self.resolved
        )

    def correction(self) -> Receipt:
        """Of its last reconciliation."""
        return receipt(self.id, "reconcile", self.charged, self.amount, "exact", self.late, (), self.reconciled)

    def replay(self, verb: Verb) -> Receipt:
        """Receipt of a resolution that an earlier call made."""
        return (self.correction() if verb == "reconcile" else self.receipt())._replace(repeated=True)


def receipt(
    id_: str,
    verb: Verb,
    amount: int,
    reserved: int,
    status: Status,
    late: bool,
    warnings: tuple[tuple[str, str], ...],
    at: int,
) -> Receipt:
    """A receipt from a record's integers. What was booked without a reservation overran nothing."""
    over = NanoUSD(amount - reserved) if verb != "book" and amount > reserved else ZERO
    return Receipt(id_, verb, as_nanousd(amount), as_nanousd(reserved), over, status, late, warnings, at / 1000)


def as_nanousd(amount: int) -> NanoUSD:
    """An amount as a caller sees it; on the hot path it mostly is one already."""
    return amount if type(amount) is NanoUSD else NanoUSD(amount)


class Move(NamedTuple):
    """What a resolution changes: the state, what is charged from now on, and the sums of every account."""

    state: State
    charged: int
    pending: int
    settled: int


def resolve(record: Record, verb: Verb, amount: int) -> Move | None:
    """What becomes of a reservation; ``None`` when this very resolution was made before.

    ======== ============================= =================== ============== ===========
    state    settle(a)                     void                lapse(a)       reconcile(a)
    ======== ============================= =================== ============== ===========
    pending  settled at a                  voided              lapsed at a    conflict
    settled  again with the same a: replay conflict            nothing        settled at a
    lapsed   settled at a (late)           voided (late)       nothing        settled at a
    voided   conflict                      replay              nothing        settled at a
    refused  conflict                      conflict            nothing        conflict
    ======== ============================= =================== ============== ===========

    A reservation resolves at most once, as in payments; a lapse is a guess and gives way to the answer, because the
    money is spent whether or not the lease had ended. What was archived is closed: a new reconcile is a conflict.

    Raises:
        ReservationConflictError: Another resolution was made before.
    """
    state = record.state
    if verb == "lapse":
        return Move("lapsed", amount, -record.amount, amount) if state == "pending" else None
    if state == "refused":
        raise ReservationConflictError(record.id, "was refused; nothing was reserved")
    if verb == "reconcile":
        return _reconcile(record, amount)
    if state == "pending":
        return (
            Move("voided", 0, -record.amount, 0) if verb == "void" else Move("settled", amount, -record.amount, amount)
        )
    if state == "lapsed":
        return Move("voided" if verb == "void" else "settled", amount, 0, amount - record.charged)
    if state == "voided" and verb == "void":
        return None
    if state == "settled" and verb == "settle" and record.actual == amount:
        return None
    detail = f"settled at {NanoUSD(record.actual)}" if state == "settled" else state
    raise ReservationConflictError(record.id, f"was already {detail}")


def _reconcile(record: Record, amount: int) -> Move | None:
    if record.state == "pending":
        raise ReservationConflictError(record.id, "is still pending; settle it")
    if record.reconciled and record.charged == amount:
        return None
    if record.archived:
        raise ReservationConflictError(record.id, "was archived; book a difference under an id of its own")
    return Move("settled", amount, 0, amount - record.charged)


def apply(record: Record, verb: Verb, move: Move, amount: int, status: Status, now: int) -> None:
    """Write a move into its record."""
    late = record.state == "lapsed" or (verb != "book" and now >= record.expires)
    if verb == "reconcile":
        record.reconciled = now
        if record.state != "settled":
            record.verb, record.actual, record.status, record.late, record.resolved = verb, amount, status, late, now
            record.warnings = ()
    else:
        record.verb, record.actual, record.status, record.late, record.resolved = verb, amount, status, late, now
    record.state, record.charged = move.state, move.charged


def check_replay(record: Record, amount: int, scopes: tuple[str, ...], *, booked: bool = False) -> None:
    """Refuse an id that is used again for something else.

    Raises:
        ReservationConflictError: Another amount, other scopes, or a booking where a reservation was made.
    """
    if booked != (record.verb == "book"):
        raise ReservationConflictError(record.id, "a booking and a reservation cannot share an id")
    if record.scopes != scopes:
        raise ReservationConflictError(record.id, "was used with other scopes")
    before = record.actual if booked else record.amount
    if before != amount:
        raise ReservationConflictError(record.id, f"was used with another amount, {NanoUSD(before)}")
