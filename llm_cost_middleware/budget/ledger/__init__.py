"""Façades: ``Ledger`` and ``AsyncLedger`` over one contract, and ``hold()``, which settles on every exit.

They check public values, make ids and sweep expired holds. ``rules`` decides what money may do; a backend keeps it.
"""

from llm_cost_middleware.budget.ledger.administration import keeps_register
from llm_cost_middleware.budget.ledger.aio import AsyncHold, AsyncLedger
from llm_cost_middleware.budget.ledger.arguments import Durability, OnExpiry, SettlementStatus, unique_id
from llm_cost_middleware.budget.ledger.blocking import Ledger
from llm_cost_middleware.budget.ledger.hold import Hold
from llm_cost_middleware.budget.ledger.schemes import LedgerOptions, is_memory

__all__ = [
    "AsyncHold", "AsyncLedger", "Durability", "Hold", "Ledger", "LedgerOptions", "OnExpiry", "SettlementStatus",
    "is_memory", "keeps_register", "unique_id",
]  # fmt: skip
