"""What alerts are decided by, read from the ledger: only what some rule looks at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llm_cost_middleware.alerts.settings import AlertConfig
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import GLOBAL, make_scope, parse_scope
from llm_cost_middleware.budget.rules import ScopeBalance
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.metering.refused import REFUSAL, read_refusal
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.reports import Query, make_report

HISTORY = {"hour": 7 * 24, "day": 28}
"""Stretches of time whose spending says what is usual."""
LENGTH_S = {"hour": 3600, "day": 86_400}
Series = dict[int, int]
"""Nano-dollars by stretch of time, numbered from the Unix epoch."""


@dataclass(slots=True)
class Facts:
    """What is known at one moment. Only what was asked for is filled in."""

    now: float
    balances: Sequence[ScopeBalance] = ()
    spending: dict[tuple[str, str], dict[str, Series]] = field(default_factory=dict)
    """By ``per`` and the pattern that was asked for: what each scope spent."""
    refused: dict[str, Mapping[str, int]] = field(default_factory=dict)
    """By ``per``: how many calls the budget of each scope refused."""
    unconfirmed: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """As ``spending``, nano-dollars."""
    unpriced: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By ``per``: models that were called and have no price."""
    prices_from: float | None = None
    """When the price list was last looked at."""
    prices_version: str = ""


def read_facts(
    ledger: Ledger, rules: Iterable[AlertConfig], catalogue: Catalogue, now: float, refused: Sequence[tuple[str, float]]
) -> Facts:
    """Read what some rules look at.

    Args:
        ledger: The ledger.
        rules: The rules.
        catalogue: The prices in force.
        now: Seconds since the Unix epoch.
        refused: The scopes whose budgets refused calls of this process, and when: for a ledger without a journal.
    """
    facts, rules = Facts(now), tuple(rules)
    if any(rule.when in {"threshold", "forecast"} for rule in rules):
        facts.balances = _balances(ledger, [rule for rule in rules if rule.when in {"threshold", "forecast"}])
    for rule in rules:
        if rule.when == "rate" and (rule.per, rule.scope) not in facts.spending:
            facts.spending[rule.per, rule.scope] = _spending(ledger, rule.per, rule.scope, now)
        elif rule.when == "refusal" and rule.per not in facts.refused:
            facts.refused[rule.per] = _refused(ledger, begin(now, rule.per), refused)
        elif rule.when == "unconfirmed" and (rule.per, rule.scope) not in facts.unconfirmed:
            found = _sums(ledger, rule.scope, since=begin(now, rule.per), status="unconfirmed")
            facts.unconfirmed[rule.per, rule.scope] = {scope: sum(series.values()) for scope, series in found.items()}
        elif rule.when == "unpriced" and rule.per not in facts.unpriced:
            facts.unpriced[rule.per] = _unpriced(ledger, catalogue, begin(now, rule.per))
        elif rule.when == "old_prices":
            facts.prices_from, facts.prices_version = catalogue.looked_at, catalogue.version
    return facts


def begin(now: float, per: str) -> float:
    """When the hour or the day (UTC) around ``now`` began."""
    return now // LENGTH_S[per] * LENGTH_S[per]


def _balances(ledger: Ledger, rules: Sequence[AlertConfig]) -> tuple[ScopeBalance, ...]:
    """The balances of the budgets that are watched; of all scopes only where a template may apply to any."""
    budgets = ledger.budgets()
    if any(budget.scope.endswith(":*") for budget in budgets):
        scopes = None
        if all(rule.scope and not rule.scope.endswith(":*") for rule in rules):
            scopes = [rule.scope for rule in rules]
    else:
        scopes = [budget.scope for budget in budgets if any(rule.watches(budget.scope) for rule in rules)]
    if scopes == []:
        return ()
    return tuple(one for one in ledger.balances(scopes) if one.budget is not None)


def _spending(ledger: Ledger, per: str, scope: str, now: float) -> dict[str, Series]:
    return _sums(ledger, scope, since=begin(now, per) - HISTORY[per] * LENGTH_S[per], over=per)


def _sums(
    ledger: Ledger, scope: str, *, since: float, over: str | None = None, status: str | None = None
) -> dict[str, Series]:
    """What was booked under a scope, under each of a kind, or by all (``""``), by stretch of time where asked for."""
    kind, _, name = scope.partition(":")
    every = name == "*"
    where = {} if status is None else {"status": status}
    query = Query.read(
        kind if name else "", over=over, since=since, where=where, savings=False, now=lambda: since
    )  # fmt: skip
    found: dict[str, Series] = {}
    first = int(since // LENGTH_S[over]) if over else 0
    labels = {query.label((first + n) * LENGTH_S[over]): first + n for n in range(HISTORY[over] + 1)} if over else {}
    for row in make_report(ledger, query):
        label, value = (row.keys[0] if over else None), (row.keys[-1] if name else None)
        if name and value is None:
            continue
        whose = make_scope(kind, value) if value is not None else GLOBAL
        if every or not name or whose == parse_scope(scope):
            at = labels.get(label, first) if label is not None else first
            series = found.setdefault(whose, {})
            series[at] = series.get(at, 0) + row.sums.cost_nanousd
    return found


def _refused(ledger: Ledger, since: float, own: Sequence[tuple[str, float]]) -> dict[str, int]:
    """Refusals by the scope whose budget refused: of every process, where the storage keeps a journal."""
    scopes = [scope for scope, at in own if at >= since]
    if ledger.blocks and ledger.journal is not None:
        lines = (read_refusal(entry.data) for entry in ledger.journal.read(REFUSAL, since))
        scopes = [line.scope for line in lines if line is not None]
    found: dict[str, int] = {}
    for scope in scopes:
        found[scope] = found.get(scope, 0) + 1
    return found


def _unpriced(ledger: Ledger, catalogue: Catalogue, since: float) -> tuple[str, ...]:
    """Models that were called since a moment and whose price nobody knows; names as ``provider/model``."""
    query = Query.read("provider,model", since=since, savings=False, now=lambda: since)
    found = []
    for row in make_report(ledger, query):
        provider, model = row.keys
        if provider is None or model is None:
            continue
        if row.sums.unpriced or not _has_price(catalogue, provider, model):
            found.append(f"{provider}/{model}")
    return tuple(found)


def _has_price(catalogue: Catalogue, provider: str, model: str) -> bool:
    try:
        catalogue.rates(provider, model)
    except PriceNotFoundError:
        return False
    return True
