"""Accounts: which ones a call is booked in, and what those of a new budget start with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple

from llm_cost_middleware.budget.model import LIFETIME, Budget, rolling_seconds, scope_matches
from llm_cost_middleware.budget.rules.windows import FOREVER, SLOTS, window_at


class AccountPosting(NamedTuple):
    """One account that a call is booked in at a given time. ``limit`` is ``None`` where the scope has no budget.

    An account is one scope in one window; its sums are kept by cells of time. ``first_cell`` to ``cell`` count now.
    ``limit`` is what this call may fill: without what the budget keeps for other scopes (``kept``).
    """

    scope: str
    window: str
    cell: int
    first_cell: int
    limit: int | None
    warn: int | None
    resets: int | None  # when nothing booked now counts any more, ms; None for never
    rolling: bool  # more than one cell counts
    kept: int = 0


class PostingPlan(NamedTuple):
    """Every account that a call is booked in; valid from ``start`` to before ``until`` (ms)."""

    start: int
    until: int
    postings: tuple[AccountPosting, ...]


class BudgetIndex:
    """Budgets of a ledger, indexed by scope. Immutable, but for a cache of plans: other budgets make another index."""

    __slots__ = ("_by_scope", "_plans", "budgets")

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self.budgets = tuple(sorted(budgets, key=lambda budget: budget.key))
        self._by_scope: dict[str, dict[str, Budget]] = {}
        for budget in self.budgets:
            self._by_scope.setdefault(budget.scope, {})[budget.window] = budget
        # The same scopes come back on every call, and their plan holds until a window turns.
        self._plans: dict[tuple[str, ...], PostingPlan] = {}

    def for_scope(self, scope: str) -> Mapping[str, Budget]:
        """Return the budgets that apply to a scope, by window. Its own one precedes the template of its kind."""
        template = self._by_scope.get(f"{scope.partition(':')[0]}:*", {})
        return {**template, **self._by_scope.get(scope, {})}

    def posting_plan(self, scopes: tuple[str, ...], now: int) -> PostingPlan:
        """Return the accounts of a call with these scopes that is reserved at ``now`` (ms)."""
        plan = self._plans.get(scopes)
        if plan is None or not plan.start <= now < plan.until:
            if len(self._plans) > 10_000:  # noqa: PLR2004 - bounds memory
                self._plans.clear()
            plan = self._plans[scopes] = self._plan(scopes, now)
        return plan

    def _plan(self, scopes: tuple[str, ...], now: int) -> PostingPlan:
        start, until, postings = -FOREVER, FOREVER, []
        for scope in scopes:
            budgets = self.for_scope(scope)
            # Sorted: every storage checks the accounts in one order, and names the same one in a refusal.
            # LIFETIME always: it lists every scope ever booked, and a later budget without a window needs no backfill.
            for window in sorted({LIFETIME, *budgets}):
                budget = budgets.get(window)
                span = window_at(window, budget.timezone if budget else "UTC", now)
                start, until = max(start, span.start), min(until, span.until)
                seconds = rolling_seconds(window)
                resets = None if window == LIFETIME else span.until
                if seconds:  # the newest slot leaves when the window has passed over the whole of it
                    slot = -(-seconds * 1000 // SLOTS)
                    resets = (span.cell + 1) * slot + seconds * 1000
                kept = budget.kept_from(scopes) if budget else 0
                limit, warn = (budget.limit_nanousd - kept, budget.warn_nanousd) if budget else (None, None)
                first, last = span.first_cell, span.cell
                postings.append(AccountPosting(scope, window, last, first, limit, warn, resets, first != last, kept))
        return PostingPlan(start, until, tuple(postings))


def known_scopes(index: BudgetIndex, booked: Iterable[str]) -> tuple[str, ...]:
    """Return every scope that was booked or has a budget of its own (templates excluded)."""
    own = (budget.scope for budget in index.budgets if not budget.scope.endswith(":*"))
    return tuple(dict.fromkeys(chain(own, booked)))


class EntryDelta(NamedTuple):
    """Change that one row made to the sums of its scopes. ``created``: when its hold was made, ms."""

    scopes: tuple[str, ...]
    created: int
    settled: int
    pending: int


def backfill_start(window: str, timezone: str, now: int) -> int:
    """Return from which time on (ms) the rows are counted into a new budget: its window and the one before.

    The window before is needed too: the clocks of other processes may lag behind this one's.
    """
    seconds = rolling_seconds(window)
    if seconds:
        return now - 2 * seconds * 1000
    return window_at(window, timezone, window_at(window, timezone, now).start - 1).start


def rebuild_totals(
    entries: Iterable[EntryDelta], pattern: str, window: str, index: BudgetIndex
) -> dict[str, dict[int, list[int]]]:
    """Compute the sums of a new or changed budget from the rows: ``scope → cell → [settled, pending]``."""
    accounts: dict[str, dict[int, list[int]]] = {}
    for scopes, created, settled, pending in entries:
        for scope in scopes:
            budget = index.for_scope(scope).get(window) if scope_matches(pattern, scope) else None
            if budget is not None:
                cells = accounts.setdefault(scope, {})
                cell = cells.setdefault(window_at(window, budget.timezone, created).cell, [0, 0])
                cell[0] += settled
                cell[1] += pending
    return accounts
