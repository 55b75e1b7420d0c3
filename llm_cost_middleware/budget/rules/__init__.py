"""The rules of the ledger, pure: which window, who is charged, what a reservation may become, where a scope stands.

No clock is read and no lock is taken here: ``now`` and the state are arguments. The Redis scripts say the same in Lua;
the conformance suite and the state machine hold the two equal.
"""

from llm_cost_middleware.budget.rules.accounts import Book, Charge, Entry, Plan, covers, horizon, known_scopes, tally
from llm_cost_middleware.budget.rules.carrying import DAY, QUARTER, Line, Summary, carried
from llm_cost_middleware.budget.rules.resolution import Move, Record, apply, as_nanousd, check_replay, receipt, resolve
from llm_cost_middleware.budget.rules.standing import (
    Figures,
    Headroom,
    Refusal,
    Standing,
    available,
    balance,
    headroom,
    moment,
    standings,
)
from llm_cost_middleware.budget.rules.windows import FOREVER, Span, locate

__all__ = [
    "DAY",
    "FOREVER",
    "QUARTER",
    "Book",
    "Charge",
    "Entry",
    "Figures",
    "Headroom",
    "Line",
    "Move",
    "Plan",
    "Record",
    "Refusal",
    "Span",
    "Standing",
    "Summary",
    "apply",
    "as_nanousd",
    "available",
    "balance",
    "carried",
    "check_replay",
    "covers",
    "headroom",
    "horizon",
    "known_scopes",
    "locate",
    "moment",
    "receipt",
    "resolve",
    "standings",
    "tally",
]
