"""Accounts: which ones a call is booked in, and what those of a new budget start with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple

from llm_cost_middleware.budget.carry_over import Carry, least_limit
from llm_cost_middleware.budget.model import LIFETIME, Budget, rolling_seconds, scope_matches
from llm_cost_middleware.budget.rules.slices import slice_budget, slices_of
from llm_cost_middleware.budget.rules.standing import NO_OVERLAY, Overlay, Pause
from llm_cost_middleware.budget.rules.windows import FOREVER, SLOTS, WindowSpan, window_at
from llm_cost_middleware.money import NanoUSD

COME_AND_GO = ("run:", "slice:", "thread:", "agent:")
"""Scopes of which there is no end of new ones."""


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
    warns: tuple[int, ...]
    """Sums of settled from which on it warns, the lowest first."""
    resets: int | None  # when nothing booked now counts any more, ms; None for never
    rolling: bool  # more than one cell counts
    kept: int = 0
    carry: Carry | None = None
    """What the window before may add to the limit."""
    by_template: bool = False
    """The limit is of the budget of its kind, such as ``team:*``: the scope has none of its own."""

    @property
    def warn(self) -> int | None:
        """The lowest sum that warns; once in a window."""
        return self.warns[0] if self.warns else None

    def preceding(self) -> AccountPosting:
        """Return the account in the window before, of which ``carry`` takes the sums."""
        before = self.carry.before if self.carry is not None else self.first_cell
        return self._replace(cell=before, first_cell=before, rolling=False)

    def crossed(self, settled: int, change: int, *, first: bool) -> int | None:
        """Return the sum of which a booking warns, if any.

        Args:
            settled: The sum after it.
            change: What it added.
            first: The window has not warned before.
        """
        reached = [warn for warn in self.warns if warn <= settled]
        # Of the lowest once a window, whoever crossed it; of the others whoever crosses them.
        due = reached if first else [warn for warn in reached[1:] if warn > settled - change]
        return due[-1] if due else None


class PostingPlan(NamedTuple):
    """Every account that a call is booked in; valid from ``start`` to before ``until`` (ms)."""

    start: int
    until: int
    postings: tuple[AccountPosting, ...]
    paused: tuple[str, Pause] | None = None
    """The scope that may not be called now, and its pause."""
    slices: tuple[str, ...] = ()
    """The slices that pay for it, the innermost last."""


class BudgetIndex:
    """Budgets of a ledger, indexed by scope, and what stands over them for a time.

    Immutable, but for a cache of plans: other budgets make another index.
    """

    __slots__ = ("_by_scope", "_plans", "budgets", "overlay")

    def __init__(self, budgets: Iterable[Budget] = (), overlay: Overlay = NO_OVERLAY) -> None:
        self.budgets = tuple(sorted(budgets, key=lambda budget: budget.key))
        self.overlay = overlay
        self._by_scope: dict[str, dict[str, Budget]] = {}
        for budget in self.budgets:
            self._by_scope.setdefault(budget.scope, {})[budget.window] = budget
        # The same scopes come back on every call, and their plan holds until a window turns.
        self._plans: dict[tuple[str, ...], PostingPlan] = {}

    def for_scope(self, scope: str) -> Mapping[str, Budget]:
        """Return the budgets that apply to a scope, by window. Its own one precedes the template of its kind."""
        if (own := slice_budget(scope)) is not None:
            return {own.window: own}
        template = self._by_scope.get(f"{scope.partition(':')[0]}:*", {})
        return {**template, **self._by_scope.get(scope, {})}

    def passes(self, scope: str) -> bool:
        """Return whether a scope ends with what it was made for: a run or a slice without a budget of its own.

        There is no end of new ones, so a storage that cannot grow forgets those that were not seen for longest.
        """
        return scope.startswith(("run:", "slice:")) and scope not in self._by_scope

    def comes_and_goes(self, scope: str) -> bool:
        """Return whether a scope is one of many of its kind that agents make, without a budget of its own.

        Where it is idle for long, a storage may keep one short line of it in the place of its accounts.
        """
        return scope.startswith(COME_AND_GO) and scope not in self._by_scope

    def limit(self, budget: Budget, now: int) -> NanoUSD:
        """Return what a budget allows at ``now`` (ms): its limit, or what it is raised to."""
        return NanoUSD(self.overlay.limit(budget.key, budget.limit_nanousd, now)[0])

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
        # Ends that a clock brings about: the plan is made again where one has passed.
        turns = [
            *(raised.until for raised in self.overlay.raises.values()),
            *(pause.until for pause in self.overlay.pauses.values() if pause.until is not None),
        ]
        start = max((turn for turn in turns if turn <= now), default=start)
        until = min((turn for turn in turns if turn > now), default=until)
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
                limit, warns, kept = self._bounds(budget, scopes, now) if budget else (None, (), 0)
                first, last = span.first_cell, span.cell
                carry = self._carry(scope, budget, span) if budget and budget.carry_over else None
                bounds = limit, warns, resets, first != last, kept, carry
                by_template = budget is not None and budget.scope != scope
                postings.append(AccountPosting(scope, window, last, first, *bounds, by_template))
        return PostingPlan(start, until, tuple(postings), self.overlay.pause(scopes, now), slices_of(scopes))

    def _carry(self, scope: str, budget: Budget, span: WindowSpan) -> Carry | None:
        """Return what may be carried into a window; ``None`` where the budget did not stand in the one before.

        Where a template stands for a scope, none of the scope's own may have stood in its place.
        """
        stood = self.overlay.stood.get(budget.key, ())
        if not stood or stood[-1][1] != budget.limit_nanousd:  # set past the register: what stood is not known
            return None
        before = window_at(budget.window, budget.timezone, span.start - 1)
        if self.overlay.ended.get((scope, budget.window), before.start) > before.start:
            return None
        limit = least_limit(stood, before.start, span.start)
        return Carry(before.cell, limit, budget.carry_cap(limit)) if limit else None

    def _bounds(self, budget: Budget, scopes: tuple[str, ...], now: int) -> tuple[int, tuple[int, ...], int]:
        """Return what a call may fill of a budget, where it warns, and what it keeps for others."""
        whole = self.limit(budget, now)
        kept = budget.kept_from(scopes, whole)
        return whole - kept, budget.warns_at(whole), kept


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


def counted_from(budgets: Iterable[Budget], now: int) -> int:
    """Return from which time on (ms) rows must keep their own times: windows of these budgets still count them.

    The month, because a budget that is set later must find its rows.
    """
    windows = {(budget.window, budget.timezone) for budget in budgets if budget.window != LIFETIME} | {("month", "UTC")}
    return min(backfill_start(window, zone, now) for window, zone in windows)


def idle_from(budgets: Iterable[Budget], now: int, idle: int) -> int:
    """Return before which time (ms) scopes that come and go must have been used last, to be at rest.

    Args:
        budgets: Those in force.
        now: Time, ms.
        idle: How long they are idle at least, ms. Longer, where a window of one of their budgets still counts them.
    """
    windows = {(one.window, one.timezone) for one in budgets if one.scope.startswith(COME_AND_GO)}
    starts = (backfill_start(window, zone, now) for window, zone in windows if window != LIFETIME)
    return min(now - idle, *starts, now)


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


class BudgetChange(NamedTuple):
    """A budget that is set, set anew or removed."""

    key: tuple[str, str]
    before: Budget | None
    after: Budget | None

    @property
    def moved(self) -> bool:
        """Whether the sums of its window must be rebuilt: it is new or gone, or begins at other times."""
        before, after = self.before, self.after
        same = before is not None and after is not None and before.timezone == after.timezone
        return not same and self.key[1] != LIFETIME

    @property
    def timezone(self) -> str:
        """Time zone of the window."""
        found = self.after or self.before
        return found.timezone if found is not None else "UTC"


def budget_changes(before: Iterable[Budget], after: Iterable[Budget]) -> tuple[BudgetChange, ...]:
    """Return what leads from some budgets to others."""
    old, new = ({budget.key: budget for budget in budgets} for budgets in (before, after))
    keys = dict.fromkeys((*old, *new))
    return tuple(BudgetChange(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key))
