"""Conformance of budgets, in one class: kept shares, carry-over, the register, soft thresholds."""

from __future__ import annotations

from llm_cost_middleware.testing.budget_register import RegisterTests
from llm_cost_middleware.testing.carry_over import CarryOverTests
from llm_cost_middleware.testing.kept_shares import KeptShareTests
from llm_cost_middleware.testing.thresholds import ThresholdTests


class BudgetTests(CarryOverTests, KeptShareTests, RegisterTests, ThresholdTests):
    """Part of ``LedgerBackendTests``."""
