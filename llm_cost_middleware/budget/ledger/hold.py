"""A reservation for a block of code."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from llm_cost_middleware.budget.ledger.arguments import Seconds, SettlementStatus
from llm_cost_middleware.budget.model import Receipt, Reservation
from llm_cost_middleware.errors import LedgerError
from llm_cost_middleware.money import USD, NanoUSD

if TYPE_CHECKING:
    from llm_cost_middleware.budget.ledger.blocking import Ledger


class Hold:
    """Reservation for a block. Left without a settle or void, it is booked in full, ``unconfirmed``.

    So too on an exception: a call that failed may have been billed. If the ledger then cannot be reached, the exception
    gets a note and is raised on, and the hold is left to expire.
    """

    __slots__ = ("_arguments", "_ledger", "_options", "receipt", "reservation")

    reservation: Reservation

    def __init__(self, ledger: Ledger, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._ledger, self._arguments, self._options = ledger, arguments, options
        self.receipt: Receipt | None = None

    @property
    def id(self) -> str:
        """Id of the reservation."""
        return self.reservation.id

    def __enter__(self) -> Self:
        self.reservation = self._ledger.reserve(*self._arguments, **self._options)
        return self

    def settle(self, actual: USD | NanoUSD, *, memo: bytes = b"", status: SettlementStatus = "exact") -> Receipt:
        """See ``Ledger.settle``."""
        self.receipt = self._ledger.settle(self.id, actual, memo=memo, status=status)
        return self.receipt

    def void(self, *, memo: bytes = b"") -> Receipt:
        """See ``Ledger.void``."""
        self.receipt = self._ledger.void(self.id, memo=memo)
        return self.receipt

    def extend(self, ttl: Seconds) -> Reservation:
        """See ``Ledger.extend``."""
        self.reservation = self._ledger.extend(self.id, ttl)
        return self.reservation

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.receipt is None:
            try:  # not void: the call may have been sent, and billed
                self.settle(self.reservation.amount_nanousd, status="unconfirmed")
            except LedgerError as failure:
                if error is None:
                    raise
                # The caller's own exception matters more than this one.
                error.add_note(f"and its reservation {self.id} was left to expire: {failure}")
