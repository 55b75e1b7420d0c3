"""Conformance of budgets, in one class: kept shares, the register, soft thresholds."""

from __future__ import annotations

from llm_cost_middleware.testing.budget_register import RegisterTests
from llm_cost_middleware.testing.kept_shares import KeptShareTests
from llm_cost_middleware.testing.thresholds import ThresholdTests


class BudgetTests(KeptShareTests, RegisterTests, ThresholdTests):
    """Part of ``LedgerBackendTests``."""
