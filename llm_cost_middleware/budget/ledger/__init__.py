"""The façades: ``Ledger`` and ``AsyncLedger`` over one contract, and ``hold()``, which settles on every way out.

Here values are read and checked, ids are drawn and leases are swept; what money may do is in ``rules``, and where it is
kept in a backend.
"""

from llm_cost_middleware.budget.ledger.aio import AsyncHold, AsyncLedger
from llm_cost_middleware.budget.ledger.blocking import Hold, Ledger
from llm_cost_middleware.budget.ledger.face import Durability, OnLapse, Outcome, draw_id

__all__ = ["AsyncHold", "AsyncLedger", "Durability", "Hold", "Ledger", "OnLapse", "Outcome", "draw_id"]
