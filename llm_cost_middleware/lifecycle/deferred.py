"""Bills that come later: an answer in the background reports its usage when somebody retrieves it.

Until then its money stays set aside. Whose it is is kept in the ledger's journal, because another process may retrieve
the answer; without a journal, in this process.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import UsageReport, without_model

DEFERRED_LIFETIME_S = 48 * 3_600
"""Both providers end what runs in the background within a day, and keep its answer for longer."""
_KIND = "response"
_KEPT = 10_000


class DeferredBill(NamedTuple):
    """The money of an answer that is to be retrieved."""

    booking_id: str
    """Of the reservation; or, where nothing could be set aside, of the row that was booked instead."""
    held: bool
    target: ModelRef
    requested_model: str
    amount_nanousd: NanoUSD
    scopes: tuple[str, ...]
    at: float
    """When it was asked for, in seconds since the epoch: the moment of its price."""
    prices: Mapping[str, Any] | None = None
    """The prices of a host's own, as ``Catalogue.with_prices`` takes them; ``None``: those of the catalogue."""

    def at_own_price(self, reading: UsageReport) -> UsageReport:
        """A reading of its answer: where its model has a price of the host's own, whatever model the answer names."""
        if str(self.target) not in (self.prices or ()):
            return reading
        return without_model(reading)


class DeferredBills:
    """The bills that are awaited, by provider and response id. Safe to share between threads.

    Args:
        ledger: Its journal keeps them.
        clock: Time.
    """

    _lock = ForkSafeLock()

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._journal, self._clock = ledger.journal, clock
        self._known: OrderedDict[str, DeferredBill | None] = OrderedDict()

    def expect(self, response_id: str, bill: DeferredBill) -> None:
        """Remember whose bill an answer will bring. May block."""
        key = f"{bill.target.provider}.{response_id}"
        self._keep(key, bill)
        if self._journal is not None:
            fields = {name: value for name, value in bill._asdict().items() if value is not None}
            data = json.dumps([fields | {"v": 1}]).encode()
            self._journal.append(_KIND, key, self._clock.now(), data)

    def find(self, provider: str, response_id: str) -> DeferredBill | None:
        """The bill that an answer brings; ``None`` where none is awaited, or no more. May block."""
        key = f"{provider}.{response_id}"
        with self._lock:
            if key in self._known:
                return self._known[key]
        found: DeferredBill | None = None
        if self._journal is not None:  # another process may have asked, and another one have retrieved it
            for mark in self._journal.read(_KIND, self._clock.now() - DEFERRED_LIFETIME_S):
                if mark.id == key:
                    found = _decode(mark.data)
        if found is not None:
            self._keep(key, found)
        return found

    def close(self, provider: str, response_id: str) -> None:
        """The bill is booked: it is awaited no more. May block."""
        key = f"{provider}.{response_id}"
        self._keep(key, None)
        if self._journal is not None:
            self._journal.append(_KIND, key, self._clock.now(), b"[]")

    def _keep(self, key: str, bill: DeferredBill | None) -> None:
        with self._lock:
            self._known[key] = bill
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)


def _decode(data: bytes) -> DeferredBill | None:
    """``None`` for a bill that was booked, or written by another version: its reservation expires and is charged."""
    try:
        (fields,) = json.loads(data)
        if fields.pop("v") != 1:
            return None
        target, amount = ModelRef(*fields.pop("target")), NanoUSD(fields.pop("amount_nanousd"))
        return DeferredBill(target=target, amount_nanousd=amount, scopes=tuple(fields.pop("scopes")), **fields)
    except (ValueError, TypeError, KeyError):
        return None
