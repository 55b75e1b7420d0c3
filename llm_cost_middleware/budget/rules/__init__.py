"""Pure rules of the ledger: windows, accounts, state transitions of a reservation, balances.

They read no clock and take no lock: ``now`` and the state are arguments. The Redis scripts repeat the arithmetic of
accounts in Lua; the conformance suite and the state machine prove that the two agree.
"""

from llm_cost_middleware.budget.model import scope_matches
from llm_cost_middleware.budget.rules.accounts import (
    AccountPosting,
    BudgetChange,
    BudgetIndex,
    EntryDelta,
    PostingPlan,
    backfill_start,
    budget_changes,
    counted_from,
    idle_from,
    known_scopes,
    rebuild_totals,
)
from llm_cost_middleware.budget.rules.balances import (
    AccountTotals,
    BudgetRefusal,
    Headroom,
    ScopeBalance,
    available,
    balance,
    headroom,
    scope_balances,
    to_datetime,
)
from llm_cost_middleware.budget.rules.reductions import apply_reduction, reduction
from llm_cost_middleware.budget.rules.register import (
    CONFIGURATION,
    MANAGED,
    Amended,
    BudgetLife,
    BudgetRegister,
    Decision,
    removing,
    setting,
)
from llm_cost_middleware.budget.rules.rollup import DAY, QUARTER, ArchivedRow, MemoAggregator, Sums, whole_ids
from llm_cost_middleware.budget.rules.slices import SliceSums, held_by, slice_budget, slices_of
from llm_cost_middleware.budget.rules.standing import NO_OVERLAY, Overlay, Pause, Raise, renamed_register
from llm_cost_middleware.budget.rules.transitions import (
    Crossed,
    ReservationRecord,
    Transition,
    apply,
    check_replay,
    resolve,
)
from llm_cost_middleware.budget.rules.windows import FOREVER, SLOTS, WindowSpan, window_at

__all__ = [
    "CONFIGURATION", "DAY", "FOREVER", "MANAGED", "NO_OVERLAY", "QUARTER", "SLOTS", "AccountPosting", "AccountTotals",
    "Amended", "ArchivedRow", "BudgetChange", "BudgetIndex", "BudgetLife", "BudgetRefusal", "BudgetRegister", "Crossed",
    "Decision", "EntryDelta", "Headroom", "MemoAggregator", "Overlay", "Pause", "PostingPlan", "Raise",
    "ReservationRecord", "ScopeBalance", "SliceSums", "Sums", "Transition", "WindowSpan", "apply", "apply_reduction",
    "available", "backfill_start", "balance", "budget_changes", "check_replay", "counted_from",
    "headroom", "held_by", "idle_from", "known_scopes", "rebuild_totals", "reduction", "removing", "renamed_register",
    "resolve", "scope_balances", "scope_matches", "setting", "slice_budget", "slices_of", "to_datetime", "whole_ids",
    "window_at",
]  # fmt: skip
