"""What budgets have left, and where they are going."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.ledger.leased import leased_amounts
from llm_cost_middleware.budget.model import LIFETIME, rolling_seconds
from llm_cost_middleware.budget.rules import ScopeBalance
from llm_cost_middleware.budget.rules.forecast import Forecast, forecast
from llm_cost_middleware.dashboard.words import readable, usd, when

_LISTED = 12
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def gauges(ledger: Ledger, now: float, zone: tzinfo | None) -> dict[str, Any]:
    """Return the budgets that are or will be used most, and what is paused, as JSON has them."""
    balances, leased = ledger.balances(), leased_amounts(ledger)
    found = [
        _gauge(one, now, zone) | {"leased_usd": usd(leased.get((one.scope, one.budget.window)))}
        for one in balances
        if one.budget is not None
    ]
    found.sort(key=lambda one: (-max(one["used"] or 0, one["going"] or 0), one["scope"], one["window"]))
    return {
        "budgets": found[:_LISTED],
        "more": max(len(found) - _LISTED, 0),
        "pauses": [
            {
                "scope": readable(pause.scope),
                "since": when(pause.since / 1000, zone),
                "until": None if pause.until is None else when(pause.until / 1000, zone),
                "reason": pause.reason,
            }
            for pause in ledger.pauses()
        ],
    }


def _gauge(one: ScopeBalance, now: float, zone: tzinfo | None) -> dict[str, Any]:
    balance, budget = one.balance, one.budget
    limit = balance.limit_nanousd
    told: Forecast | None = None
    if budget is not None and limit is not None:
        told = forecast(budget, limit, balance.settled_nanousd, round(now * 1000))
    return {
        "scope": readable(one.scope),
        "window": _per("none" if budget is None else budget.window),
        "limit_usd": usd(limit),
        "spent_usd": usd(balance.settled_nanousd),
        "held_usd": usd(balance.pending_nanousd),
        "left_usd": usd(balance.available_nanousd),
        "carried_usd": usd(balance.carried_nanousd) if balance.carried_nanousd else None,
        "spent": _share(balance.settled_nanousd, limit),
        "used": _share(balance.settled_nanousd + balance.pending_nanousd, limit),
        "going": None if told is None else _share(told.amount_nanousd, limit),
        "forecast_usd": None if told is None else usd(told.amount_nanousd),
        "exhausted": None if told is None or told.exhausted is None else when(told.exhausted / 1000, zone),
        "over": limit is not None and balance.settled_nanousd >= limit,
        "resets": None if one.resets_at is None else when(one.resets_at.timestamp(), zone),
        "resets_at": None if one.resets_at is None else datetime.isoformat(one.resets_at),
    }


def _per(window: str) -> str:
    """A window as people say it: ``a month``, ``in any 7 days``."""
    seconds = rolling_seconds(window)
    if seconds is None:
        return "for all time" if window == LIFETIME else f"{'an' if window == 'hour' else 'a'} {window}"
    length, unit = next((seconds // size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"in any {length:,} {unit}s" if length != 1 else f"in any {unit}"


def _share(amount: int, limit: int | None) -> float | None:
    if limit is None:
        return None
    return round(amount / limit, 4) if limit else float(amount > 0)
