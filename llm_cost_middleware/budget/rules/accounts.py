"""Who is charged: from scopes and a moment to accounts, and from rows to what the accounts of a new budget carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple

from llm_cost_middleware.budget.model import LIFETIME, Budget, rolling_seconds
from llm_cost_middleware.budget.rules.windows import FOREVER, SLOTS, locate


class Charge(NamedTuple):
    """One account that a call is booked in, at one moment. ``limit`` is ``None`` where the scope has no budget."""

    scope: str
    window: str
    cell: int
    lo: int
    limit: int | None
    warn: int | None
    resets: int | None  # when the window is surely over, ms; None for never

    @property
    def rolling(self) -> bool:
        """Whether more than one cell counts."""
        return self.lo != self.cell


class Plan(NamedTuple):
    """Every account a call is booked in, right from ``start`` to before ``until`` (ms)."""

    start: int
    until: int
    charges: tuple[Charge, ...]


class Book:
    """The budgets of a ledger, compiled: from scopes and a moment to the accounts a call is booked in.

    Pure but for a memory of its last answers. Not changed after construction: other budgets are another book.
    """

    __slots__ = ("_by_scope", "_plans", "budgets")

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self.budgets = tuple(sorted(budgets, key=lambda budget: budget.key))
        self._by_scope: dict[str, dict[str, Budget]] = {}
        for budget in self.budgets:
            self._by_scope.setdefault(budget.scope, {})[budget.window] = budget
        self._plans: dict[tuple[str, ...], Plan] = {}

    def of(self, scope: str) -> Mapping[str, Budget]:
        """The budgets that apply to a scope, by window: its own over its kind's template."""
        template = self._by_scope.get(f"{scope.partition(':')[0]}:*", {})
        return {**template, **self._by_scope.get(scope, {})}

    def plan(self, scopes: tuple[str, ...], now: int) -> Plan:
        """The accounts that a call with these scopes is booked in when it is reserved at ``now`` (ms)."""
        plan = self._plans.get(scopes)
        if plan is None or not plan.start <= now < plan.until:
            if len(self._plans) > 10_000:  # noqa: PLR2004 - a bound on memory, not a rule
                self._plans.clear()
            plan = self._plans[scopes] = self._plan(scopes, now)
        return plan

    def _plan(self, scopes: tuple[str, ...], now: int) -> Plan:
        start, until, charges = -FOREVER, FOREVER, []
        for scope in scopes:
            budgets = self.of(scope)
            for window in sorted({LIFETIME, *budgets}):
                budget = budgets.get(window)
                span = locate(window, budget.timezone if budget else "UTC", now)
                start, until = max(start, span.start), min(until, span.until)
                seconds = rolling_seconds(window)
                resets = None if window == LIFETIME else span.until
                if seconds:  # the newest slot drops out when the window has passed over all of it
                    slot = -(-seconds * 1000 // SLOTS)
                    resets = (span.cell + 1) * slot + seconds * 1000
                limit, warn = (budget.limit_nanousd, budget.warn_nanousd) if budget else (None, None)
                charges.append(Charge(scope, window, span.cell, span.lo, limit, warn, resets))
        return Plan(start, until, tuple(charges))


def known_scopes(book: Book, booked: Iterable[str]) -> tuple[str, ...]:
    """Every scope that was booked or has a budget of its own."""
    own = (budget.scope for budget in book.budgets if not budget.scope.endswith(":*"))
    return tuple(dict.fromkeys(chain(own, booked)))


class Entry(NamedTuple):
    """What a row does to the sums of its scopes; enough to fill the accounts of a new budget from the rows."""

    scopes: tuple[str, ...]
    created: int
    settled: int
    pending: int


def covers(pattern: str, scope: str) -> bool:
    """Whether a budget's scope, which may be a template, applies to a call's scope."""
    return scope.startswith(pattern[:-1]) if pattern.endswith(":*") else scope == pattern


def horizon(window: str, timezone: str, now: int) -> int:
    """From when on (ms) bookings are counted into a budget that is new: its window and the one before."""
    seconds = rolling_seconds(window)
    return (
        now - 2 * seconds * 1000 if seconds else locate(window, timezone, locate(window, timezone, now).start - 1).start
    )


def tally(entries: Iterable[Entry], pattern: str, window: str, book: Book) -> dict[str, dict[int, list[int]]]:
    """What the accounts of a new or changed budget carry: ``scope → cell → [settled, pending]``, from the rows."""
    accounts: dict[str, dict[int, list[int]]] = {}
    for scopes, created, settled, pending in entries:
        for scope in scopes:
            budget = book.of(scope).get(window) if covers(pattern, scope) else None
            if budget is not None:
                cells = accounts.setdefault(scope, {})
                cell = cells.setdefault(locate(window, budget.timezone, created).cell, [0, 0])
                cell[0] += settled
                cell[1] += pending
    return accounts
