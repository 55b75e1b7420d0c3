"""What a budget will have spent when its window ends, if money goes on being spent as it was in this window so far."""

from __future__ import annotations

from typing import NamedTuple

from llm_cost_middleware.budget.model import LIFETIME, Budget, rolling_seconds
from llm_cost_middleware.budget.rules.windows import window_at
from llm_cost_middleware.money import NanoUSD

_LEAST_PART = 50
"""The part of a window, one in so many, that must be over: a pace that was watched for less says nothing."""


class Forecast(NamedTuple):
    """Forecast of a budget. Times are milliseconds since the Unix epoch."""

    amount_nanousd: NanoUSD
    """Spent at the end of the window."""
    until: int
    """The end of the window."""
    exhausted: int | None
    """When the limit is reached, if that is before the window ends; the moment of the forecast where it is reached."""


def forecast(budget: Budget, limit: int, spent: int, now: int) -> Forecast | None:
    """Return where a budget is going; ``None`` for a window without an end, or one that has hardly begun.

    Args:
        budget: A budget of a calendar window.
        limit: Its limit in this window, with what was carried over, nano-dollars.
        spent: What the window has settled, nano-dollars.
        now: Milliseconds since the Unix epoch.
    """
    if budget.window == LIFETIME or rolling_seconds(budget.window) is not None:
        return None
    span = window_at(budget.window, budget.timezone, now)
    over, length = now - span.start, span.until - span.start
    if over * _LEAST_PART < length:
        return None
    exhausted = None
    if spent >= limit:
        exhausted = now
    elif spent:
        at = span.start + -(-limit * over // spent)
        exhausted = at if at < span.until else None
    return Forecast(NanoUSD(-(-spent * length // over)), span.until, exhausted)
