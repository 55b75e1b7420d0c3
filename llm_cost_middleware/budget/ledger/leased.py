"""What of the holds of a ledger is in blocks that processes keep for calls to come (``budget.rules.leases``)."""

from __future__ import annotations

from collections.abc import Iterable

from llm_cost_middleware.budget.backend import AsyncAdapter, Snapshot
from llm_cost_middleware.budget.ledger.aio import AsyncLedger
from llm_cost_middleware.budget.ledger.blocking import Ledger
from llm_cost_middleware.budget.rules import ScopeBalance
from llm_cost_middleware.budget.rules.leases import HeldBlock, leased_by_account
from llm_cost_middleware.money import ZERO, NanoUSD

Leased = dict[tuple[str, str], NanoUSD]
"""Nano-dollars by scope and window."""


def leased_amounts(ledger: Ledger) -> Leased:
    """Return what processes hold in blocks, used or not, by scope and window: a part of what is pending.

    Of a ledger with leases of its own it is what *other* processes hold. Read after the balances it may differ from
    them by what was shipped in between. A storage that knows no blocks has none.
    """
    backend = ledger.backend
    blocks = backend.held_blocks() if hasattr(backend, "held_blocks") else []
    return _by_account(backend.read(()), blocks) if blocks else {}


async def aleased_amounts(ledger: AsyncLedger) -> Leased:
    """``leased_amounts`` of a ledger of an event loop."""
    backend = ledger.backend
    if isinstance(backend, AsyncAdapter):
        ask = getattr(backend.backend, "held_blocks", None)
        blocks = [] if ask is None else await backend.run(ask)
    else:
        blocks = await backend.held_blocks() if hasattr(backend, "held_blocks") else []
    return _by_account(await backend.read(()), blocks) if blocks else {}


def leased_balances(ledger: Ledger) -> tuple[ScopeBalance, ...]:
    """Return the balances of a ledger (``Ledger.balances``) with what of each is leased."""
    balances, leased = ledger.balances(), leased_amounts(ledger)
    return tuple(
        one if one.budget is None else one._replace(leased_nanousd=leased.get((one.scope, one.budget.window), ZERO))
        for one in balances
    )


def _by_account(found: Snapshot, blocks: Iterable[HeldBlock]) -> Leased:
    sums = leased_by_account(found.budget_index, found.now, blocks)
    return {key: NanoUSD(amount) for key, amount in sums.items()}
