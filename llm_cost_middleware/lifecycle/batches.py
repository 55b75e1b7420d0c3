"""The cost of many calls, before the first is made."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.lifecycle.stages.price import expected_cost
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.request import CallRequest


class BatchQuote(NamedTuple):
    """The cost of a batch. ``expected`` counts answers of the length this call site has produced so far."""

    calls: int
    bound_nanousd: NanoUSD
    """The most it can cost."""
    expected_nanousd: NanoUSD
    by_model: dict[str, tuple[int, NanoUSD, NanoUSD]]
    """Model to (calls, bound, expected)."""

    @property
    def bound(self) -> Decimal:
        """US dollars at most."""
        return self.bound_nanousd.usd

    @property
    def expected(self) -> Decimal:
        """US dollars expected."""
        return self.expected_nanousd.usd


def quote_batch(flow: CallFlow, requests: Iterable[CallRequest], providers: frozenset[str] | None) -> BatchQuote:
    """Quote each request at the model it would be routed to. Nothing is sent, reserved or remembered."""
    models: dict[str, tuple[int, NanoUSD, NanoUSD]] = {}
    for request in requests:
        # A quote must leave no trace: neither the conversation nor the history may learn from it.
        call = flow.route_dry_run(request, providers)
        quote = flow.stages.price.quote(call, call.target, {})
        calls, bound, expected = models.get(str(quote.target), (0, ZERO, ZERO))
        models[str(quote.target)] = (
            calls + 1,
            NanoUSD(bound + quote.amount_nanousd),
            NanoUSD(expected + expected_cost(call, quote)),
        )
    return BatchQuote(
        sum(calls for calls, _, _ in models.values()),
        NanoUSD(sum(bound for _, bound, _ in models.values())),
        NanoUSD(sum(expected for _, _, expected in models.values())),
        models,
    )
