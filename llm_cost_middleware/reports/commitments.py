"""Commitments: how much of what was promised to a provider is spent, from the rows of the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.model_names import names_of
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pricing.contracts import Contract
from llm_cost_middleware.reports.folding import make_report
from llm_cost_middleware.reports.query import Query


class Commitment(NamedTuple):
    """A contract with a committed amount, and where it stands. Times are seconds since the Unix epoch.

    ``spent_nanousd`` is what is booked for calls of its models that were reserved in its term, at the price of their
    rows, whichever discount those had; ``unsure_nanousd`` is the part that is not exact. Calls past this ledger are not
    in it: the provider's own count decides.
    """

    name: str
    discount: Decimal
    start: float
    end: float
    committed_nanousd: NanoUSD
    spent_nanousd: NanoUSD
    unsure_nanousd: NanoUSD
    now: float

    @property
    def left_nanousd(self) -> NanoUSD:
        """What is still to be spent; zero once the promise is kept."""
        return NanoUSD(max(self.committed_nanousd - self.spent_nanousd, 0))

    @property
    def course_nanousd(self) -> NanoUSD | None:
        """What will be spent in the term at the pace so far; ``None`` before it begins."""
        passed, term = round(min(self.now, self.end) - self.start), round(self.end - self.start)
        return NanoUSD(self.spent_nanousd * term // passed) if passed > 0 else None


def commitments(ledger: Ledger, contracts: Iterable[Contract], now: float) -> tuple[Commitment, ...]:
    """Return every contract with a committed amount, in their order. Raises ``LedgerUnavailableError``.

    Args:
        ledger: The ledger.
        contracts: Those of a catalogue.
        now: The present moment.
    """
    return tuple(_standing(ledger, one, one.committed, now) for one in contracts if one.committed is not None)


def _standing(ledger: Ledger, contract: Contract, committed: NanoUSD, now: float) -> Commitment:
    query = Query.read(("provider", "model"), since=contract.start, until=contract.end, savings=False, now=lambda: now)
    spent = unsure = 0
    for row in make_report(ledger, query):
        provider, model = row.keys
        if provider and any(contract.covers(provider, name.lower()) for name in names_of(provider, model or "")):
            spent += row.sums.cost_nanousd
            unsure += row.sums.estimated_nanousd + row.sums.unconfirmed_nanousd
    amounts = committed, NanoUSD(spent), NanoUSD(unsure)
    return Commitment(contract.name, contract.share, contract.start, contract.end, *amounts, now)
