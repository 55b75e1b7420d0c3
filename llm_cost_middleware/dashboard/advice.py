"""The section on what would have cost less; of the whole period, whatever the filters."""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.advice import advise
from llm_cost_middleware.advice.gathering import gather
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.dashboard.view import View
from llm_cost_middleware.pricing.catalogue import Catalogue

MOST = 8
"""Advice that a page shows, the dearest waste first."""


def advice(ledger: Ledger, view: View, catalogue: Catalogue) -> dict[str, Any]:
    """What would have cost less, as JSON has it."""
    asked = view.asked
    report = advise(gather(ledger, catalogue, since=asked.since, until=asked.until, zone=asked.zone))
    told = report.to_dict()
    return {**told, "advice": told["advice"][:MOST], "more": max(len(report.advice) - MOST, 0)}
