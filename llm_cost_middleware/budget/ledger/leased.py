"""What of the holds of a ledger is in blocks that processes keep for calls to come (``budget.rules.leases``)."""

from __future__ import annotations

from llm_cost_middleware.budget.ledger.blocking import Ledger
from llm_cost_middleware.budget.rules.leases import SupportsLeases, leased_by_account
from llm_cost_middleware.money import NanoUSD


def leased_amounts(ledger: Ledger) -> dict[tuple[str, str], NanoUSD]:
    """Return what processes hold in blocks, used or not, by scope and window: a part of what is pending.

    Of a ledger with leases of its own it is what *other* processes hold. Read after the balances it may differ from
    them by what was shipped in between.
    """
    backend = ledger.backend
    if not isinstance(backend, SupportsLeases):
        return {}
    blocks = backend.held_blocks()
    if not blocks:
        return {}
    index, now, _ = backend.read(())
    return {key: NanoUSD(amount) for key, amount in leased_by_account(index, now, blocks).items()}
