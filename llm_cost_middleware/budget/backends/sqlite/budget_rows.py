"""Budgets as rows of the table ``budget``, without the tenant."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.money import NanoUSD


def write_budget(budget: Budget) -> tuple[object, ...]:
    """Return scope, window, limit, time zone, warning and kept shares of a budget as they are stored."""
    warn_at = None if budget.warn_at is None else repr(budget.warn_at)
    kept = json.dumps({scope: f"{share:f}" for scope, share in budget.shares}) if budget.shares else ""
    return (*budget.key, budget.limit_nanousd, budget.timezone, warn_at, kept)


def read_budget(row: tuple[Any, ...]) -> Budget:
    """Return the budget of a stored row."""
    scope, window, limit, timezone, warn_at, kept = row
    shares = {name: Decimal(share) for name, share in json.loads(kept).items()} if kept else {}
    return Budget(scope, NanoUSD(limit), window, timezone, None if warn_at is None else float(warn_at), shares)
