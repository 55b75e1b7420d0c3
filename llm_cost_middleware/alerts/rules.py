"""Which alerts the facts of a moment are worth. Pure: facts in, alerts out.

The id of an alert names the ledger, the rule, the scope and the stretch of time, so every process makes the same, and
what was told once is not told again in this window.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal

from llm_cost_middleware.alerts.facts import HISTORY, LENGTH_S, Facts, Series, begin
from llm_cost_middleware.alerts.settings import AlertConfig
from llm_cost_middleware.budget.model import GLOBAL, LIFETIME, Budget, rolling_seconds
from llm_cost_middleware.budget.rules import ScopeBalance, window_at
from llm_cost_middleware.budget.rules.forecast import forecast
from llm_cost_middleware.events import AlertRaised, ModelUnpriced, PolicyDrifted
from llm_cost_middleware.money import NanoUSD, ceil_nanousd, format_usd, multiply_usd

LEAST_HISTORY = {"hour": 24, "day": 7}
"""Stretches of time before what is usual is known."""
LEAST_ELAPSED = 10
"""A forecast waits for this part of the window (a tenth): the first minutes of a month say nothing of its end."""


def alerts_of(rule: AlertConfig, facts: Facts, ledger_id: str) -> Iterator[AlertRaised]:
    """Return what one rule has to tell of a moment."""
    yield from _RULES[rule.when](rule, facts, ledger_id) if rule.when in _RULES else ()


def alert_id(ledger_id: str, *names: object) -> str:
    """Return the id of an alert: the same for the same names, in every process of a ledger."""
    text = json.dumps([ledger_id, *names], separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _thresholds(rule: AlertConfig, facts: Facts, ledger_id: str) -> Iterator[AlertRaised]:
    for one, budget, limit in _watched(rule, facts):
        shares = rule.at or (budget.warn_at if isinstance(budget.warn_at, tuple) else (budget.warn_at,))
        for share in shares:
            if share is None or one.balance.settled_nanousd < _share_of(limit, share):
                continue
            window, began = _window(budget, facts.now)
            said = f"{one.scope} has spent {_of(one.balance.settled_nanousd, limit)} of its {_called(budget.window)}"
            yield AlertRaised(
                "", facts.now, alert_id(ledger_id, "threshold", one.scope, window, began, share, _base(one)),
                "threshold", one.scope, budget.window, _until(said, one), f"{share:g}", limit,
                one.balance.settled_nanousd, _resets(one),
            )  # fmt: skip


def _forecasts(rule: AlertConfig, facts: Facts, ledger_id: str) -> Iterator[AlertRaised]:
    for one, budget, limit in _watched(rule, facts):
        amount = projected(budget, limit, one.balance.settled_nanousd, facts.now)
        if amount is None:
            continue
        for share in rule.at or (1.0,):
            if amount < _share_of(limit, share):
                continue
            window, began = _window(budget, facts.now)
            said = (
                f"{one.scope} will have spent {_of(amount, limit)} by the end of this {budget.window} at the "
                f"present pace; {format_usd(one.balance.settled_nanousd)} is spent"
            )
            yield AlertRaised(
                "", facts.now, alert_id(ledger_id, "forecast", one.scope, window, began, share, _base(one)), "forecast",
                one.scope, budget.window, _until(said, one), f"{share:g}", limit, amount, _resets(one),
            )  # fmt: skip


def projected(budget: Budget, limit: NanoUSD, settled: NanoUSD, now: float) -> NanoUSD | None:
    """Return what a budget will have spent at the end of its window; ``None`` as for ``forecast``, or too early."""
    ms = round(now * 1000)
    found = forecast(budget, limit, settled, ms)
    if found is None:
        return None
    began = window_at(budget.window, budget.timezone, ms).start
    return None if (ms - began) * LEAST_ELAPSED < found.until - began else found.amount_nanousd


def _rates(rule: AlertConfig, facts: Facts, ledger_id: str) -> Iterator[AlertRaised]:
    length, present = LENGTH_S[rule.per], int(facts.now // LENGTH_S[rule.per])
    for scope, series in facts.spending.get((rule.per, rule.scope), {}).items():
        usual = usual_of(series, present, rule.per)
        spent = series.get(present, 0)
        if usual is None or spent <= usual * rule.times or spent <= int(ceil_nanousd(rule.above)):
            continue
        began = present * length
        said = (
            f"{scope} has spent {format_usd(NanoUSD(spent))} in this {rule.per}, "
            f"{spent / usual:.1f} times the usual {format_usd(NanoUSD(round(usual)))}"
        )
        yield AlertRaised(
            "", facts.now, alert_id(ledger_id, "rate", scope, rule.per, began, rule.times), "rate", scope, rule.per,
            said, f"{rule.times:g}", NanoUSD(round(usual)), NanoUSD(spent), began + length,
        )  # fmt: skip


def usual_of(series: Series, present: int, per: str) -> float | None:
    """Return what is spent in a usual stretch of time: the mean since the first one, without the present one.

    Returns:
        Nano-dollars; ``None`` where there is too little history, or nothing was ever spent.
    """
    past = {at: spent for at, spent in series.items() if present - HISTORY[per] <= at < present}
    if not past or present - min(past) < LEAST_HISTORY[per]:
        return None
    return sum(past.values()) / (present - min(past)) or None


def _refusals(rule: AlertConfig, facts: Facts, ledger_id: str) -> Iterator[AlertRaised]:
    for scope, count in facts.refused.get(rule.per, {}).items():
        if count < rule.count or not rule.watches(scope):
            continue
        limit = next(((one.balance, _resets(one)) for one in facts.balances if one.scope == scope), None)
        began = begin(facts.now, rule.per)
        said = f"the budget of {scope} refused {count:,} call{'s' if count > 1 else ''} since {_time(began)}"
        yield AlertRaised(
            "", facts.now, alert_id(ledger_id, "refusal", scope, rule.per, began, rule.count), "refusal", scope,
            rule.per, said, str(rule.count), limit and limit[0].limit_nanousd, limit and limit[0].settled_nanousd,
            limit and limit[1],
        )  # fmt: skip


def _unconfirmed(rule: AlertConfig, facts: Facts, ledger_id: str) -> Iterator[AlertRaised]:
    least, began = int(ceil_nanousd(rule.above)), begin(facts.now, rule.per)
    for scope, amount in facts.unconfirmed.get((rule.per, rule.scope), {}).items():
        if amount <= least:
            continue
        said = (
            f"{format_usd(NanoUSD(amount))} of {scope} since {_time(began)} is unconfirmed: booked at what was held, "
            "because nobody knows how these calls ended; llm-cost ledger unconfirmed lists them"
        )
        yield AlertRaised(
            "", facts.now, alert_id(ledger_id, "unconfirmed", scope, rule.per, began, str(rule.above)), "unconfirmed",
            scope, rule.per, said, "", None, NanoUSD(amount), began + LENGTH_S[rule.per],
        )  # fmt: skip


def _unpriced(rule: AlertConfig, facts: Facts, ledger_id: str) -> Iterator[AlertRaised]:
    for model in facts.unpriced.get(rule.per, ()):
        yield unpriced_alert(rule, model, facts.now, ledger_id)


def unpriced_alert(rule: AlertConfig, model: str, at: float, ledger_id: str) -> AlertRaised:
    """Return the alert of a model without a price."""
    began = begin(at, rule.per)
    said = f'{model} is called and has no price: give one in [prices."{model}"]'
    id_ = alert_id(ledger_id, "unpriced", model, rule.per, began)
    return AlertRaised("", at, id_, "unpriced", GLOBAL, rule.per, said, model, None, None, began + LENGTH_S[rule.per])


def _old_prices(rule: AlertConfig, facts: Facts, ledger_id: str) -> Iterator[AlertRaised]:
    if facts.prices_from is None or facts.now - facts.prices_from <= rule.older_than_s:
        return
    began, days = begin(facts.now, "day"), int((facts.now - facts.prices_from) // LENGTH_S["day"])
    week = int(began // (7 * LENGTH_S["day"]))
    said = (
        f"the price list was last looked at {days} days ago ({datetime.fromtimestamp(facts.prices_from, UTC):%Y-%m-%d})"
        ": install newer versions of llm-cost-middleware and genai-prices, or set update_prices"
    )
    id_ = alert_id(ledger_id, "old_prices", facts.prices_version, week)
    yield AlertRaised("", facts.now, id_, "old_prices", GLOBAL, "week", said, facts.prices_version)


def drift_alert(event: PolicyDrifted, ledger_id: str) -> AlertRaised:
    """Return the alert of a policy that fell back."""
    said = f"the learned policy {event.policy_version} fell back to the stronger model: {event.reason}"
    id_ = alert_id(ledger_id, "drift", event.policy_version)
    return AlertRaised("", event.at, id_, "drift", GLOBAL, LIFETIME, said, event.policy_version)


def of_event(
    rules: Iterable[AlertConfig], event: PolicyDrifted | ModelUnpriced, ledger_id: str
) -> list[tuple[AlertConfig, AlertRaised]]:
    """Return what an event is worth that leaves nothing in the ledger, with the rules that tell it."""
    if isinstance(event, PolicyDrifted):
        return [(rule, drift_alert(event, ledger_id)) for rule in rules if rule.when == "drift"]
    return [(rule, unpriced_alert(rule, event.model, event.at, ledger_id)) for rule in rules if rule.when == "unpriced"]


_RULES = {
    "threshold": _thresholds, "forecast": _forecasts, "rate": _rates, "refusal": _refusals,
    "unconfirmed": _unconfirmed, "unpriced": _unpriced, "old_prices": _old_prices,
}  # fmt: skip


def _watched(rule: AlertConfig, facts: Facts) -> Iterator[tuple[ScopeBalance, Budget, NanoUSD]]:
    for one in facts.balances:
        limit = one.balance.limit_nanousd
        if one.budget is not None and limit and rule.watches(one.scope):
            yield one, one.budget, limit


def _share_of(limit: NanoUSD, share: float) -> NanoUSD:
    return ceil_nanousd(multiply_usd(limit.usd, Decimal(repr(share))))  # repr: 0.8 means 0.8, not the double nearest it


def _base(one: ScopeBalance) -> int:
    """The limit without what was carried over: a raise makes a new alert, money of last week does not."""
    return (one.balance.limit_nanousd or 0) - one.balance.carried_nanousd


def _window(budget: Budget, now: float) -> tuple[str, int]:
    """The window of a budget, and what tells it from the others; a rolling one is told of once in its length."""
    seconds = rolling_seconds(budget.window)
    if seconds is not None:
        return budget.window, int(now // seconds)
    return budget.window, window_at(budget.window, budget.timezone, round(now * 1000)).cell


def _resets(one: ScopeBalance) -> float | None:
    return None if one.resets_at is None else one.resets_at.timestamp()


def _of(spent: NanoUSD, limit: NanoUSD) -> str:
    return f"{spent * 100 / limit:.0f} % ({format_usd(spent)} of {format_usd(limit)})"


def _called(window: str) -> str:
    if window == LIFETIME:
        return "budget"
    return f"budget for {'the' if rolling_seconds(window) is None else 'any'} {window}"


def _until(said: str, one: ScopeBalance) -> str:
    return said if one.resets_at is None else f"{said}; it resets {one.resets_at:%Y-%m-%d %H:%M} UTC"


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
