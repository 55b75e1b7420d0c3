"""Leased budgets: a process admits calls from blocks that it holds (``budget.rules.leases`` has the rule)."""

from llm_cost_middleware.budget.leases.backend import AsyncLeasedBackend, LeasedBackend, lease_from

__all__ = ["AsyncLeasedBackend", "LeasedBackend", "lease_from"]
