"""The page: where money goes, what budgets have left, what was refused and why a call cost what it did.

``view`` reads what a URL asks for, ``spending``, ``gauges`` and ``calls`` answer it from a ledger, ``page`` puts the
answers into one file, ``server`` serves them on loopback. Everything here reads; nothing writes to a ledger.
"""

from llm_cost_middleware.dashboard.answers import Source
from llm_cost_middleware.dashboard.page import standalone
from llm_cost_middleware.dashboard.server import Dashboard
from llm_cost_middleware.dashboard.view import View

__all__ = ["Dashboard", "Source", "View", "standalone"]
