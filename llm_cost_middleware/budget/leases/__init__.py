"""Leased budgets: a process admits calls from blocks that it holds (``budget.rules.leases`` has the rule)."""

from llm_cost_middleware.budget.leases.backend import LeasedBackend, OwnedAsyncLeasedBackend, lease_from

__all__ = ["LeasedBackend", "OwnedAsyncLeasedBackend", "lease_from"]
