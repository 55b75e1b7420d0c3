"""Reference ledger: the rules again, written as plainly as possible, slow, without any storage.

It keeps one row per id and computes every sum on request. It uses nothing of ``budget.rules``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.oracle import same_window, windows_before

Verdict = Literal["ok", "refused", "conflict", "missing"]


@dataclass
class ReferenceRow:
    """State of one id."""

    scopes: tuple[str, ...]
    amount: int
    created: int
    expires: int
    state: str = "pending"
    spent: int = 0
    first: int | None = None
    booked: bool = False
    held: int | None = None
    """What is still held of ``amount``, where it was reduced."""


@dataclass
class ReferenceLedger:
    """Budgets and rows. Warnings are left out: the conformance suite tests them."""

    budgets: dict[tuple[str, str], Budget] = field(default_factory=dict)
    rows: dict[str, ReferenceRow] = field(default_factory=dict)
    stood: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    """Since when which limit stood, of budgets that carry over."""
    slices: dict[str, int] = field(default_factory=dict)
    """Limits of the slices that may be opened, by their scope."""

    def budgets_of(self, scope: str) -> list[Budget]:
        """Return the budgets that apply, by window; a name's own precedes its kind's."""
        found = {}
        for (pattern, window), budget in self.budgets.items():
            template = pattern.endswith(":*") and scope.startswith(pattern[:-1])
            if pattern == scope or (template and (scope, window) not in self.budgets):
                found[window] = budget
        if scope in self.slices:
            return [Budget(scope, NanoUSD(self.slices[scope]))]
        return [found[window] for window in sorted(found)]

    def set_budget(self, budget: Budget, now: int) -> None:
        """Set a budget."""
        before = self.budgets.get(budget.key)
        if not budget.carry_over or before is None or not before.carry_over or before.timezone != budget.timezone:
            self.stood.pop(budget.key, None)
        if budget.carry_over:
            stood = self.stood.setdefault(budget.key, [])
            if not stood or stood[-1][1] != budget.limit_nanousd:
                stood.append((max([now, *(at for at, _ in stood)]), budget.limit_nanousd))
        self.budgets[budget.key] = budget

    def carried(self, scope: str, budget: Budget, now: int) -> int:
        """Return what the limit has from the window before, by the letter of ``budget.carry_over``."""
        if not budget.carry_over:
            return 0
        start, end = windows_before(budget, now)
        stood = self.stood[budget.key]
        if stood[0][0] > start:
            return 0
        at_start = [limit for at, limit in stood if at <= start][-1]
        limit = min([at_start, *(limit for at, limit in stood if start < at < end)])
        text = str(budget.carry_over)
        cap = limit
        if text.endswith("%"):
            cap = limit * int(text[:-1]) // 100
        elif text.startswith("$"):
            cap = int(Decimal(text[1:]) * 10**9)
        return max(min(limit - sum(self.sums(scope, budget, end - 1)), cap), 0)

    def sums(self, scope: str, budget: Budget | None, now: int) -> tuple[int, int]:
        """Return settled and pending nano-dollars."""
        counted = [row for row in self.rows.values() if scope in row.scopes and same_window(budget, row.created, now)]
        return (
            sum(row.spent for row in counted),
            sum(row.amount if row.held is None else row.held for row in counted if row.state == "pending"),
        )

    def reserve(self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, now: int) -> tuple[Verdict, object]:
        """Return ``ok`` with the state, ``refused`` with the figures, or ``conflict``."""
        row = self.rows.get(id_)
        if row is not None:
            if row.booked or row.scopes != scopes or amount not in (row.amount, row.held):
                return "conflict", None
            return ("refused", None) if row.state == "refused" else ("ok", row.state)
        inner = next((scope for scope in reversed(scopes) if scope in self.slices), None)
        holder = self.rows.get(inner) if inner is not None else None
        if inner is not None and (holder is None or holder.state != "pending"):
            return "refused", None  # and not remembered: nothing was asked of any account
        held = 0
        if holder is not None:
            held = holder.amount if holder.held is None else holder.held
            holder.held = max(held - amount, 0)
        for scope in scopes:
            for budget in self.budgets_of(scope):
                settled, pending = self.sums(scope, budget, now)
                # By the letter of ``Budget.reserve``: the last shares are for their own scopes.
                kept = sum(share for own, share in budget.shares if not any(_is_of(one, own) for one in scopes))
                carried = self.carried(scope, budget, now)
                if settled + pending + amount > budget.limit_nanousd * (1 - kept) + carried:
                    self.rows[id_] = ReferenceRow(scopes, amount, now, now, "refused")
                    if holder is not None:
                        holder.held = held
                    return "refused", (scope, settled, pending)
        self.rows[id_] = ReferenceRow(scopes, amount, now, now + ttl)
        if holder is not None:
            holder.expires = max(holder.expires, now + ttl)
        return "ok", "pending"

    def set_slices_right(self, scopes: tuple[str, ...], now: int) -> None:
        """Let the slices among these scopes hold what of their limit is not booked, the innermost first."""
        for scope in reversed([scope for scope in scopes if scope in self.slices]):
            holder = self.rows.get(scope)
            if holder is not None and holder.state == "pending":
                holder.held = max(self.slices[scope] - sum(self.sums(scope, None, now)), 0)

    def settle(self, id_: str, amount: int) -> Verdict:
        """Settle once, from pending or expired; the same settle again is ``ok``."""
        row = self.rows.get(id_)
        if row is None:
            return "missing"
        if row.state in {"pending", "expired"}:
            row.state, row.spent, row.first = "settled", amount, amount
            return "ok"
        return "ok" if row.state == "settled" and row.first == amount else "conflict"

    def void(self, id_: str) -> Verdict:
        """Void once, from pending or expired."""
        row = self.rows.get(id_)
        if row is None:
            return "missing"
        if row.state in {"pending", "expired"}:
            row.state, row.spent = "voided", 0
        return "ok" if row.state == "voided" else "conflict"

    def reconcile(self, id_: str, amount: int) -> Verdict:
        """Correct anything that is resolved."""
        row = self.rows.get(id_)
        if row is None:
            return "missing"
        if row.state in {"pending", "refused"}:
            return "conflict"
        if row.state != "settled":
            row.state, row.first = "settled", amount
        row.spent = amount
        return "ok"

    def book(self, id_: str, amount: int, scopes: tuple[str, ...], now: int) -> Verdict:
        """Book past any limit."""
        row = self.rows.get(id_)
        if row is not None:
            return "ok" if row.booked and (row.first, row.scopes) == (amount, scopes) else "conflict"
        self.rows[id_] = ReferenceRow(scopes, 0, now, now, "settled", amount, amount, booked=True)
        return "ok"

    def extend(self, id_: str, until: int) -> Verdict:
        """Extend what is pending, never shorten it."""
        row = self.rows.get(id_)
        if row is None:
            return "missing"
        if row.state != "pending":
            return "conflict"
        row.expires = max(row.expires, until)
        return "ok"

    def reduce(self, id_: str, amount: int) -> tuple[str, int, int]:
        """Return the state, what is held and what came free: only what is pending, and never to more."""
        row = self.rows.get(id_)
        if row is None or row.state != "pending":
            return row.state if row else "unknown", 0, 0
        before = row.amount if row.held is None else row.held
        if amount < before:
            row.held = amount
        return "pending", min(amount, before), max(before - amount, 0)

    def sweep(self, now: int, *, charge: bool) -> int:
        """Expire everything that is due; return how many."""
        over = [row for row in self.rows.values() if row.state == "pending" and row.expires <= now]
        for row in over:
            mine = charge and not any(self.rows.get(scope) is row for scope in self.slices)
            row.state, row.spent = "expired", (row.amount if row.held is None else row.held) if mine else 0
        for row in over:
            self.set_slices_right(row.scopes, now)
        return len(over)


def _is_of(scope: str, pattern: str) -> bool:
    return scope == pattern or (pattern[-1] == "*" and scope.partition(":")[0] == pattern.partition(":")[0])
