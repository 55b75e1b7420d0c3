"""What was booked by day, set of scopes, model, terms and status: what exports and reconciliation read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.rules import DAY
from llm_cost_middleware.budget.rules.bookings import BookingSums
from llm_cost_middleware.platform import answered_name
from llm_cost_middleware.reports.folding import BUCKETS, SAYS_NOTHING, bookings_of, told_of
from llm_cost_middleware.usage import TokenUsage

STANDARD = "standard"


@dataclass(slots=True)
class Charge:
    """Bookings of one kind on one UTC day."""

    day: int
    """Its first second since the Unix epoch."""
    scopes: tuple[str, ...]
    provider: str
    """Empty where the rows do not say, as ``model``."""
    model: str
    terms: Mapping[str, Any]
    """``service_tier``, ``speed``, ``geo``, ``batch``, as the answers said."""
    status: str
    calls: int = 0
    amount_nanousd: int = 0
    tokens: dict[str, list[int]] = field(default_factory=dict)
    """By the model that answered, in the order of ``TokenUsage``. Empty where nobody knows them."""

    @property
    def tier(self) -> str:
        """How it was served: ``standard``, ``batch``, ``flex``, ``priority``."""
        served = "batch" if self.terms.get("batch") else self.terms.get("service_tier")
        return STANDARD if served in {None, "", "default", "auto"} else str(served)

    def usage(self) -> dict[str, TokenUsage]:
        """The tokens by the model that answered."""
        return {model: TokenUsage(*counts) for model, counts in self.tokens.items()}


def charges_of(ledger: Ledger, since: float | None = None, until: float | None = None) -> list[Charge]:
    """Return what was booked from ``since`` to before ``until`` (seconds since the Unix epoch), in the order of days.

    The amounts add up to the bookings of the ledger, each once, to the nano-dollar.
    """
    found: dict[tuple[Any, ...], Charge] = {}
    for booking in bookings_of(ledger, since, until, BookingSums(None, DAY, None, days=True)):
        told = told_of(booking.memo) if booking.memo else SAYS_NOTHING
        key = (booking.at // DAY, booking.scopes, told.provider, told.model, told.terms, booking.status)
        charge = found.get(key)
        if charge is None:
            charge = found[key] = Charge(
                booking.at // DAY * 86_400, tuple(booking.scopes.split(" ")), told.provider, told.model,
                dict(told.terms), booking.status,
            )  # fmt: skip
        charge.calls += booking.ids * told.calls
        charge.amount_nanousd += booking.amount
        counts = iter(booking.counts)
        for model, _, usage in told.items:
            served = answered_name(told.provider, model, told.model) or ""
            tokens = charge.tokens.setdefault(served, [0] * len(BUCKETS))
            for name, count in usage.items():
                tokens[BUCKETS[name]] += next(counts) if booking.counts else count
    return sorted(found.values(), key=lambda one: (one.day, one.provider, one.model, one.scopes, one.status, one.tier))
