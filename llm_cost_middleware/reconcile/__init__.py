"""The ledger held against what providers export of usage and cost.

``exports`` reads their files, ``matching`` finds what differs by day, model and tier, ``proofs`` settles unconfirmed
attempts where the provider's counts prove what they cost.
"""

from llm_cost_middleware.reconcile.exports import ProviderLine, read_export
from llm_cost_middleware.reconcile.matching import Difference, Reconciliation, reconcile

__all__ = ["Difference", "ProviderLine", "Reconciliation", "read_export", "reconcile"]
