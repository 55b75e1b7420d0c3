"""The holds of calls in flight that are looser than need be, so that somebody who is refused may have them reduced.

An ordinary call costs two dictionary operations here, and one whose input was counted none.
"""

from __future__ import annotations

from weakref import WeakSet

from msgspec import Struct
from msgspec.structs import replace

from llm_cost_middleware.budget.model import GLOBAL
from llm_cost_middleware.event_loops import current_loop
from llm_cost_middleware.fork import after_fork_in_child
from llm_cost_middleware.lifecycle.commands import Reduce
from llm_cost_middleware.lifecycle.stages.price import PriceStage
from llm_cost_middleware.lifecycle.state import CallReport, Quote, ReservedAttempt, RoutedCall
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import InputCounter
from llm_cost_middleware.usage import UsageReport

_MOST = 10_000


class OpenHold(Struct, eq=False):
    """One hold by the bytes of its input, or by an estimate of them."""

    price: PriceStage
    call: RoutedCall
    counter: InputCounter | None
    reserved: ReservedAttempt
    quote: Quote
    loop: object | None
    """The event loop of its counter."""
    is_final: bool = False
    wanted: bool = False

    @property
    def id(self) -> str:
        """The id of its reservation."""
        return str(self.reserved.reservation_id)

    def pays(self, scope: str) -> bool:
        """Whether it holds money of a scope."""
        return scope == GLOBAL or scope in self.reserved.scopes

    def reduced(self, quote: Quote) -> Reduce:
        """The command that brings it down to a quote, which also counts from now on."""
        self.quote, self.is_final = quote, True
        return Reduce({self.id: quote.amount_nanousd})

    def by_stream(self, reading: UsageReport) -> Reduce | None:
        """What somebody who was refused wants of a stream that runs: its input as the provider counted it.

        Called by whoever reads the stream, before a chunk. Nothing where the provider has not told it yet, or where
        more input may follow.
        """
        self.wanted = False
        quote = self.quote
        if not quote.bound.guaranteed or self.call.request.server_tools or not reading.usage.input_tokens:
            return None
        most = self.price.interrupted_posting(replace(self.reserved, quote=quote), reading).amount_nanousd
        return self.reduced(replace(quote, amount_nanousd=NanoUSD(most))) if most < quote.amount_nanousd else None


class OpenHolds:
    """The loose holds of a pipeline in this process. Safe to share between threads: each step is one of a dictionary.

    Args:
        price: Quotes.
        notes: Whether holds are noted: not where they cannot be reduced.
    """

    def __init__(self, price: PriceStage, *, notes: bool) -> None:
        self._price, self._notes = price, notes
        self._held: dict[str, OpenHold] = {}
        _all.add(self)

    def opened(self, call: RoutedCall, report: CallReport, reserved: ReservedAttempt) -> None:
        """Take note of a hold, if it is loose."""
        if self._notes and not reserved.quote.counted and reserved.reservation_id is not None:
            if len(self._held) >= _MOST:  # calls that were never ended, by whoever was to send them
                self._held.pop(next(iter(self._held)), None)
            loop = None if report.counter is None else current_loop()  # nobody asks for it without
            hold = OpenHold(self._price, call, report.counter, reserved, reserved.quote, loop)
            self._held[reserved.reservation_id] = hold

    def of(self, reserved: ReservedAttempt) -> OpenHold | None:
        """The hold of an attempt, if it is loose."""
        return self._held.get(reserved.reservation_id) if self._held and reserved.reservation_id else None

    def closed(self, reserved: ReservedAttempt) -> ReservedAttempt:
        """Its attempt has ended: the attempt with what it holds now, which is the most that it can have cost."""
        if not self._held or reserved.reservation_id is None:
            return reserved
        hold = self._held.pop(reserved.reservation_id, None)
        return reserved if hold is None or hold.quote is reserved.quote else replace(reserved, quote=hold.quote)

    def loose(self, scope: str) -> list[OpenHold]:
        """Those that hold money of a scope and were not reduced yet, the largest first."""
        found = [hold for hold in list(self._held.values()) if not hold.is_final and hold.pays(scope)]
        return sorted(found, key=lambda hold: -hold.quote.amount_nanousd)

    def forget(self) -> None:
        """In a forked child: these are its parent's."""
        self._held = {}


_all: WeakSet[OpenHolds] = WeakSet()


@after_fork_in_child
def _forget() -> None:
    for holds in list(_all):
        holds.forget()
