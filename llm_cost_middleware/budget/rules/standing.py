"""Where the scopes stand: balances, what is left, and a refusal with all its figures."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from llm_cost_middleware.budget.model import LIFETIME, Balance, Budget, parse_window
from llm_cost_middleware.budget.rules.accounts import Book
from llm_cost_middleware.errors import BudgetExceededError, ConfigurationError
from llm_cost_middleware.money import NanoUSD


class Refusal(NamedTuple):
    """Why a reservation was refused: the first account without room. Amounts in nano-dollars, ``resets`` in ms."""

    scope: str
    window: str
    limit: int
    settled: int
    pending: int
    requested: int
    resets: int | None

    def error(self) -> BudgetExceededError:
        """As its caller sees it."""
        return BudgetExceededError(
            NanoUSD(self.settled).usd,
            NanoUSD(self.limit).usd,
            scope=self.scope,
            settled=NanoUSD(self.settled).usd,
            pending=NanoUSD(self.pending).usd,
            requested=NanoUSD(self.requested).usd,
            resets_at=moment(self.resets),
        )


def moment(ms: int | None) -> datetime | None:
    """A time of the ledger as a caller sees it, UTC."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


class Figures(NamedTuple):
    """What one account carries in its window now."""

    scope: str
    window: str
    settled: int
    pending: int


class Standing(NamedTuple):
    """One line of ``balances()``: ``budget`` is ``None`` for a scope without one."""

    scope: str
    budget: Budget | None
    balance: Balance
    resets_at: datetime | None


def standings(book: Book, now: int, figures: Iterable[Figures]) -> tuple[Standing, ...]:
    """Every budget with what it carries; a scope without a budget by its lifetime sums."""
    lines = []
    for scope, window, settled, pending in figures:
        budgets = book.of(scope)
        budget = budgets.get(window)
        if budget is None and (budgets or window != LIFETIME):
            continue
        charge = next(charge for charge in book.plan((scope,), now).charges if charge.window == window)
        limit = budget.limit_nanousd if budget else None
        lines.append(Standing(scope, budget, Balance(limit, NanoUSD(settled), NanoUSD(pending)), moment(charge.resets)))
    return tuple(
        sorted(lines, key=lambda line: (line.scope != "global", line.scope, line.budget.window if line.budget else ""))
    )


def balance(book: Book, _now: int, figures: Iterable[Figures], scope: str, window: str | None) -> Balance:
    """One balance of a scope: of its only budget, or of the window asked for; unlimited where there is no budget.

    Raises:
        ConfigurationError: The scope has budgets in several windows and none is named, or not in the one that is.
    """
    budgets = book.of(scope)
    if window is None and len(budgets) > 1:
        raise ConfigurationError(
            f"{scope} has budgets in several windows ({', '.join(sorted(budgets))}): name one", key="window"
        )
    wanted = parse_window(window) if window is not None else next(iter(budgets), LIFETIME)
    for figure in figures:
        if (figure.scope, figure.window) == (scope, wanted):
            budget = budgets.get(wanted)
            return Balance(budget.limit_nanousd if budget else None, NanoUSD(figure.settled), NanoUSD(figure.pending))
    raise ConfigurationError(f"{scope} has no budget in the window {wanted!r}", key="window")


class Headroom(NamedTuple):
    """What the budgets of some scopes leave."""

    available_nanousd: NanoUSD
    """The least that any of them has left; negative after an overrun."""
    share: float
    """The least share of its limit that any of them has left, 0 to 1."""


def headroom(book: Book, _now: int, figures: Iterable[Figures]) -> Headroom | None:
    """What the budgets over these figures leave; ``None`` where none limits them."""
    left = [
        (budget.limit_nanousd - settled - pending, budget.limit_nanousd)
        for scope, window, settled, pending in figures
        if (budget := book.of(scope).get(window)) is not None
    ]
    if not left:
        return None
    share = min(max(rest, 0) / limit if limit else 0.0 for rest, limit in left)
    return Headroom(NanoUSD(min(rest for rest, _ in left)), share)


def available(book: Book, _now: int, figures: Iterable[Figures]) -> NanoUSD | None:
    """The least that any budget over these figures has left; ``None`` where none limits them."""
    left = [
        budget.limit_nanousd - settled - pending
        for scope, window, settled, pending in figures
        if (budget := book.of(scope).get(window)) is not None
    ]
    return NanoUSD(min(left)) if left else None
