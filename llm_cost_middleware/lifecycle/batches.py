"""The cost of many calls, before the first is made: at most, and as expected from what their call sites answered."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.request import CallRequest


class BatchQuote(NamedTuple):
    """The cost of a batch. ``expected`` counts answers of the length that each call site has produced so far."""

    calls: int
    bound_nanousd: NanoUSD
    """The most it can cost."""
    expected_nanousd: NanoUSD
    by_model: dict[str, tuple[int, NanoUSD, NanoUSD]]
    """Model to (calls, bound, expected)."""
    with_history: int = 0
    """Calls whose site has answered before, in this process or in the ledger's log; the others are assumed."""

    @property
    def bound(self) -> Decimal:
        """US dollars at most."""
        return self.bound_nanousd.usd

    @property
    def expected(self) -> Decimal:
        """US dollars expected."""
        return self.expected_nanousd.usd

    @property
    def advice(self) -> str:
        """What to tell whoever is refused a batch that is expected not to fit."""
        basis = f"{self.with_history} of its {self.calls} calls by the history of their call sites"
        return f"expected of {self.calls} calls, {basis}; start it with anyway=True: each call is still held on its own"


def quote_batch(flow: CallFlow, requests: Iterable[CallRequest], providers: frozenset[str] | None) -> BatchQuote:
    """Quote each request at the model it would be routed to. Nothing is sent, reserved or remembered."""
    models: dict[str, tuple[int, NanoUSD, NanoUSD]] = {}
    known, price, route = 0, flow.stages.price, flow.stages.route
    for request in requests:
        # A quote must leave no trace: neither the conversation nor the history may learn from it.
        call = flow.route_dry_run(request, providers)
        counts: dict[str, int | None] = {}
        if (exact := price.exact_count(call, call.target, counts)) is not None:
            counts[exact.encoding] = exact.make()
        quote = price.quote(call, call.target, counts)
        output = route.expected_output(call, flow.stages.decisions.usual_outputs)
        known += output is not None
        calls, bound, expected = models.get(str(quote.target), (0, ZERO, ZERO))
        models[str(quote.target)] = (
            calls + 1,
            NanoUSD(bound + quote.amount_nanousd),
            NanoUSD(expected + price.expected(call, quote, output)),
        )
    return BatchQuote(
        sum(calls for calls, _, _ in models.values()),
        NanoUSD(sum(bound for _, bound, _ in models.values())),
        NanoUSD(sum(expected for _, _, expected in models.values())),
        models,
        known,
    )
