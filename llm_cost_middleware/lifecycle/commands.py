"""What the flow of a call asks of the outside world, one value a command. ``drivers`` runs them, sync and async."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.tallies import written_memo
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import Attempt, CallStream, InputCounter, ModelRef

if TYPE_CHECKING:
    from llm_cost_middleware.budget.ledger import AsyncLedger, SettlementStatus
    from llm_cost_middleware.budget.notes import Notes
    from llm_cost_middleware.lifecycle.open_holds import OpenHold
    from llm_cost_middleware.lifecycle.waiting import Ticket
    from llm_cost_middleware.usage import UsageReport


class OpenedStream(NamedTuple):
    """A stream whose first chunk has arrived: from here on nothing is retried."""

    stream: CallStream
    rest: Any
    """The iterator behind the first chunk, sync or async."""
    first: tuple[Any, ...]
    """The first chunk; empty where the stream had none."""

    def chunks(self) -> Iterator[Any]:
        """All chunks."""
        return chain(self.first, self.rest)


class Send(Struct, frozen=True, gc=False):
    """Send one attempt and wait for the answer (a ``CallResult``), or for a stream's first chunk (``OpenedStream``)."""

    attempt: Attempt


class Sleep(NamedTuple):
    """Wait."""

    seconds: float


class RunInThread(NamedTuple):
    """Run a slow pure function; on an event loop, in a thread."""

    function: Callable[[], object]


class CountInput(NamedTuple):
    """Ask the provider how many input tokens a call has. Raises whatever the host's client raises."""

    counter: InputCounter
    target: ModelRef
    timeout_s: float


class AwaitMoney(NamedTuple):
    """Wait until money may have come back, at most so many seconds. The answer: whether it was told so."""

    ticket: Ticket
    seconds: float


class WriteLog(NamedTuple):
    """Write something down beside the money; on an event loop in a thread where the storage may block."""

    function: Callable[[], None]


class StreamEnd(NamedTuple):
    """How a stream was left, and the usage it had reported until then."""

    reading: UsageReport
    error: BaseException | None = None
    """What ended it; ``GeneratorExit`` where the caller walked away, ``None`` where it ran out."""


class HandOffStream(NamedTuple):
    """Hand an opened stream to the caller. The answer to this command is a ``StreamEnd``."""

    opened: OpenedStream
    reservation_id: str | None
    hold_ttl_s: float
    deadline: float = inf
    """Monotonic seconds at which the call has lasted long enough."""
    call_id: str = ""
    hold: OpenHold | None = None
    """Its hold, where that is loose."""


class LedgerCommand:
    """A verb of the ledger with its arguments. Those that every call makes are frozen, the others are not.

    A command that has begun to move money is finished even when the caller is cancelled meanwhile; the cancellation is
    delivered afterwards.
    """

    __slots__ = ()

    def apply(self, ledger: Ledger | AsyncLedger) -> object:
        """Run the verb; on an ``AsyncLedger`` the result is a coroutine."""
        raise NotImplementedError


class Reserve(Struct, LedgerCommand, frozen=True, gc=False):
    """Set money aside. Raises ``BudgetExceededError``."""

    reservation_id: str
    amount: NanoUSD
    scopes: tuple[str, ...]
    ttl: float
    memo: Any

    def apply(self, ledger: Ledger | AsyncLedger) -> object:
        """``reserve``, without its checks where nobody has made another of it."""
        if type(ledger) is Ledger:
            return ledger.reserve_for_call(self.reservation_id, self.amount, self.scopes, self.ttl, self.memo)
        return ledger.reserve(
            self.amount, self.scopes, id=self.reservation_id, ttl=self.ttl, memo=written_memo(self.memo)
        )


class Settle(Struct, LedgerCommand, frozen=True, gc=False):
    """Book the cost of an attempt."""

    reservation_id: str
    amount: NanoUSD
    status: SettlementStatus
    memo: Any
    notes: Notes | None

    def apply(self, ledger: Ledger | AsyncLedger) -> object:
        """``settle``, as ``Reserve``."""
        if type(ledger) is Ledger:
            return ledger.settle_for_call(self.reservation_id, self.amount, self.status, self.memo, self.notes)
        return ledger.settle(
            self.reservation_id, self.amount, status=self.status, memo=written_memo(self.memo), notes=self.notes
        )


@dataclass(slots=True)
class Void(LedgerCommand):
    """Give a reservation back: the attempt was certainly not billed."""

    reservation_id: str
    memo: Any = b""

    def apply(self, ledger: Ledger | AsyncLedger) -> object:
        """``void``."""
        return ledger.void(self.reservation_id, memo=self.memo)


@dataclass(slots=True)
class PostUnreserved(LedgerCommand):
    """Book money that was spent without a reservation."""

    reservation_id: str
    amount: NanoUSD
    scopes: tuple[str, ...]
    status: SettlementStatus
    memo: Any = b""
    notes: Notes | None = None

    def apply(self, ledger: Ledger | AsyncLedger) -> object:
        """``book``."""
        return ledger.book(
            self.amount, self.scopes, id=self.reservation_id, memo=self.memo, status=self.status, notes=self.notes
        )


@dataclass(slots=True)
class Available(LedgerCommand):
    """Ask for the least that is available over some scopes; ``None``: unlimited."""

    scopes: tuple[str, ...]

    def apply(self, ledger: Ledger | AsyncLedger) -> object:
        """``available``."""
        return ledger.available(self.scopes)


@dataclass(slots=True)
class CheckPaused(LedgerCommand):
    """Look whether one of some scopes is paused, where nothing is reserved."""

    scopes: tuple[str, ...]

    def apply(self, ledger: Ledger | AsyncLedger) -> object:
        """``check_paused``."""
        return ledger.check_paused(self.scopes)


@dataclass(slots=True)
class ReadHeadroom(LedgerCommand):
    """Ask for the least that is left over some scopes, as money and as a share; ``None``: unlimited."""

    scopes: tuple[str, ...]

    def apply(self, ledger: Ledger | AsyncLedger) -> object:
        """``headroom``."""
        return ledger.headroom(self.scopes)


@dataclass(slots=True)
class ReadBalances(LedgerCommand):
    """Ask what some scopes have spent, under each of their budgets."""

    scopes: tuple[str, ...]

    def apply(self, ledger: Ledger | AsyncLedger) -> object:
        """``balances``."""
        return ledger.balances(self.scopes)


@dataclass(slots=True)
class Extend(LedgerCommand):
    """Keep a reservation whose stream is still running."""

    reservation_id: str
    ttl: float

    def apply(self, ledger: Ledger | AsyncLedger) -> object:
        """``extend``."""
        return ledger.extend(self.reservation_id, self.ttl)


@dataclass(slots=True)
class Reduce(LedgerCommand):
    """Give back a part of what reservations hold, by id; where the storage cannot, nothing."""

    amounts: dict[str, NanoUSD]

    def apply(self, ledger: Ledger | AsyncLedger) -> object:
        """``reduce_all``."""
        return ledger.reduce_all(self.amounts)


Command = Send | Sleep | RunInThread | CountInput | AwaitMoney | WriteLog | HandOffStream | LedgerCommand
