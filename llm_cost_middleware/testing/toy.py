"""A toy ledger: the rules again, as plainly as they can be said, slow and without any storage.

It keeps one line an id and adds everything up whenever it is asked. It uses nothing of ``budget.rules``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.testing.oracle import same_window

Answer = Literal["ok", "refused", "conflict", "missing"]


@dataclass
class Line:
    """What the toy knows of an id."""

    scopes: tuple[str, ...]
    amount: int
    born: int
    expires: int
    state: str = "pending"
    spent: int = 0
    first: int | None = None
    booked: bool = False


@dataclass
class ToyLedger:
    """Budgets and lines. ``warned`` is left out: the conformance suite has it."""

    budgets: dict[tuple[str, str], Budget] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)

    def budgets_of(self, scope: str) -> list[Budget]:
        """Those that apply, by window; a name's own wins over its kind's."""
        found = {}
        for (pattern, window), budget in self.budgets.items():
            template = pattern.endswith(":*") and scope.startswith(pattern[:-1])
            if pattern == scope or (template and (scope, window) not in self.budgets):
                found[window] = budget
        return [found[window] for window in sorted(found)]

    def sums(self, scope: str, budget: Budget | None, now: int) -> tuple[int, int]:
        """Settled and pending."""
        counted = [line for line in self.lines.values() if scope in line.scopes and same_window(budget, line.born, now)]
        return (
            sum(line.spent for line in counted),
            sum(line.amount for line in counted if line.state == "pending"),
        )

    def reserve(self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, now: int) -> tuple[Answer, object]:
        """``ok`` with the state, ``refused`` with the figures, or ``conflict``."""
        line = self.lines.get(id_)
        if line is not None:
            if line.booked or (line.amount, line.scopes) != (amount, scopes):
                return "conflict", None
            return ("refused", None) if line.state == "refused" else ("ok", line.state)
        for scope in scopes:
            for budget in self.budgets_of(scope):
                settled, pending = self.sums(scope, budget, now)
                if settled + pending + amount > budget.limit_nanousd:
                    self.lines[id_] = Line(scopes, amount, now, now, "refused")
                    return "refused", (scope, settled, pending)
        self.lines[id_] = Line(scopes, amount, now, now + ttl)
        return "ok", "pending"

    def settle(self, id_: str, amount: int) -> Answer:
        """Once, from pending or lapsed; the same again is the same."""
        line = self.lines.get(id_)
        if line is None:
            return "missing"
        if line.state in {"pending", "lapsed"}:
            line.state, line.spent, line.first = "settled", amount, amount
            return "ok"
        return "ok" if line.state == "settled" and line.first == amount else "conflict"

    def void(self, id_: str) -> Answer:
        """Once, from pending or lapsed."""
        line = self.lines.get(id_)
        if line is None:
            return "missing"
        if line.state in {"pending", "lapsed"}:
            line.state, line.spent = "voided", 0
        return "ok" if line.state == "voided" else "conflict"

    def reconcile(self, id_: str, amount: int) -> Answer:
        """Anything resolved can be corrected."""
        line = self.lines.get(id_)
        if line is None:
            return "missing"
        if line.state in {"pending", "refused"}:
            return "conflict"
        if line.state != "settled":
            line.state, line.first = "settled", amount
        line.spent = amount
        return "ok"

    def book(self, id_: str, amount: int, scopes: tuple[str, ...], now: int) -> Answer:
        """Spent, whatever the limit."""
        line = self.lines.get(id_)
        if line is not None:
            return "ok" if line.booked and (line.first, line.scopes) == (amount, scopes) else "conflict"
        self.lines[id_] = Line(scopes, 0, now, now, "settled", amount, amount, booked=True)
        return "ok"

    def extend(self, id_: str, until: int) -> Answer:
        """Only what is pending, never shorter."""
        line = self.lines.get(id_)
        if line is None:
            return "missing"
        if line.state != "pending":
            return "conflict"
        line.expires = max(line.expires, until)
        return "ok"

    def sweep(self, now: int, *, charge: bool) -> int:
        """Every lease that has ended."""
        over = [line for line in self.lines.values() if line.state == "pending" and line.expires <= now]
        for line in over:
            line.state, line.spent = "lapsed", line.amount if charge else 0
        return len(over)
