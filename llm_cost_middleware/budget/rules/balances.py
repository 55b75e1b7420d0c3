"""Balances of scopes, what is left under their budgets, and the refusal of a reservation."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from llm_cost_middleware.budget.balance import Balance
from llm_cost_middleware.budget.model import LIFETIME, Budget, parse_window
from llm_cost_middleware.budget.rules.accounts import AccountPosting, BudgetIndex
from llm_cost_middleware.budget.rules.slices import SliceSums, held_by, slices_of
from llm_cost_middleware.errors import BudgetExceededError, ConfigurationError
from llm_cost_middleware.money import NanoUSD


class BudgetRefusal(NamedTuple):
    """Reason of a refusal: the first account without room. Amounts in nano-dollars, ``resets`` in ms.

    ``limit`` is that of the posting, without ``kept``, which the budget keeps for other scopes, and with ``carried``,
    which it has from the window before. ``by_template`` is that of the posting; no storage keeps it.
    """

    scope: str
    window: str
    limit: int
    settled: int
    pending: int
    requested: int
    resets: int | None
    kept: int = 0
    carried: int = 0
    by_template: bool = False

    @classmethod
    def of(cls, posting: AccountPosting, settled: int, pending: int, requested: int, carried: int) -> BudgetRefusal:
        """Return the refusal by an account with these sums."""
        limit = (posting.limit or 0) + carried
        facts = posting.scope, posting.window, limit, settled, pending, requested, posting.resets, posting.kept
        return cls(*facts, carried, posting.by_template)

    def under(self, index: BudgetIndex) -> BudgetRefusal:
        """Return it as it was told first, when it is told again: whose the budget is follows from the budgets."""
        budget = index.for_scope(self.scope).get(self.window)
        return self._replace(by_template=budget is not None and budget.scope != self.scope)

    def error(self) -> BudgetExceededError:
        """Return it as the public exception."""
        return BudgetExceededError(
            NanoUSD(self.settled).usd,
            NanoUSD(self.limit + self.kept).usd,
            scope=self.scope,
            settled=NanoUSD(self.settled).usd,
            pending=NanoUSD(self.pending).usd,
            requested=NanoUSD(self.requested).usd,
            resets_at=to_datetime(self.resets),
            kept=NanoUSD(self.kept).usd if self.kept else None,
            window=self.window,
            carried=NanoUSD(self.carried).usd if self.carried else None,
            by_template=self.by_template,
        )


def to_datetime(ms: int | None) -> datetime | None:
    """Return a time in ms as a UTC ``datetime``."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


class AccountTotals(NamedTuple):
    """Sums of one account in its window now, nano-dollars; what its limit has ``carried`` from the window before."""

    scope: str
    window: str
    settled: int
    pending: int
    carried: int = 0


class ScopeBalance(NamedTuple):
    """Balance of a scope under one budget; ``budget`` is ``None`` for a scope without one."""

    scope: str
    budget: Budget | None
    balance: Balance
    resets_at: datetime | None
    leased_nanousd: NanoUSD | None = None
    """What of the held is in blocks of (other) processes, for calls to come; ``None``: it was not asked for."""


def scope_balances(
    index: BudgetIndex, now: int, totals: Iterable[AccountTotals], *, passing: bool = True
) -> tuple[ScopeBalance, ...]:
    """Return the balance under every budget; of a scope without one, its lifetime sums.

    Args:
        index: The budgets.
        now: The time, ms.
        totals: The accounts.
        passing: Those of runs and slices too (``BudgetIndex.passes``), where they hold no money: there is no end of
            them.
    """
    balances = []
    for account in totals:
        scope, window = account.scope, account.window
        if not passing and not account.pending and index.passes(scope):
            continue
        budgets = index.for_scope(scope)
        budget = budgets.get(window)
        if budget is None and (budgets or window != LIFETIME):
            continue  # it is booked, but no limit is measured by it
        posting = next(posting for posting in index.posting_plan((scope,), now).postings if posting.window == window)
        found = _balance(index, now, account, budget)
        balances.append(ScopeBalance(scope, budget, found, to_datetime(posting.resets)))
    return tuple(
        sorted(balances, key=lambda one: (one.scope != "global", one.scope, one.budget.window if one.budget else ""))
    )


def _balance(index: BudgetIndex, now: int, account: AccountTotals, budget: Budget | None) -> Balance:
    limit = NanoUSD(index.limit(budget, now) + account.carried) if budget else None
    return Balance(limit, NanoUSD(account.settled), NanoUSD(account.pending), NanoUSD(account.carried))


def balance(index: BudgetIndex, now: int, totals: Iterable[AccountTotals], scope: str, window: str | None) -> Balance:
    """Return the balance of a scope: under its only budget, or in the window asked for; unlimited without a budget.

    Raises:
        ConfigurationError: The scope has budgets in several windows and none is named, or none in the named one.
    """
    budgets = index.for_scope(scope)
    if window is None and len(budgets) > 1:
        raise ConfigurationError(
            f"{scope} has budgets in several windows ({', '.join(sorted(budgets))}): name one", key="window"
        )
    wanted = parse_window(window) if window is not None else next(iter(budgets), LIFETIME)
    for account in totals:
        if (account.scope, account.window) == (scope, wanted):
            return _balance(index, now, account, budgets.get(wanted))
    raise ConfigurationError(f"{scope} has no budget in the window {wanted!r}", key="window")


class Headroom(NamedTuple):
    """What is left under the budgets of some scopes."""

    available_nanousd: NanoUSD
    """Least amount that any of them has left; negative after an overrun."""
    share: float
    """Least share of its limit that any of them has left, 0 to 1."""


def headroom(index: BudgetIndex, now: int, totals: Iterable[AccountTotals]) -> Headroom | None:
    """Return what is left under the budgets of these accounts; ``None`` where no budget limits them."""
    totals = tuple(totals)
    own = tuple(dict.fromkeys(account.scope for account in totals))
    covered = _covered_by_slice(own, totals)
    left = [
        (limit + carried - budget.kept_from(own, limit) - settled - pending + covered.get(scope, 0), limit + carried)
        for scope, window, settled, pending, carried in totals
        if (budget := index.for_scope(scope).get(window)) is not None
        for limit in [index.limit(budget, now)]
    ]
    if not left:
        return None
    # A limit of zero leaves a share of zero, however little was spent.
    share = min(max(rest, 0) / limit if limit else 0.0 for rest, limit in left)
    return Headroom(NanoUSD(min(rest for rest, _ in left)), share)


def _covered_by_slice(own: tuple[str, ...], totals: tuple[AccountTotals, ...]) -> dict[str, int]:
    """Return what the innermost slice of these scopes holds for them, by the scopes it holds in: it counts as left."""
    slices = slices_of(own)
    if not slices:
        return {}
    account = next(account for account in totals if account.scope == slices[-1])
    held = held_by(slices[-1], SliceSums(account.settled, account.pending))
    return dict.fromkeys(own[: own.index(slices[-1])], held)  # what was named inside of it was not carved from


def available(index: BudgetIndex, now: int, totals: Iterable[AccountTotals]) -> NanoUSD | None:
    """Return the least that any budget of these accounts has left; ``None`` where no budget limits them."""
    room = headroom(index, now, totals)
    return None if room is None else room.available_nanousd
