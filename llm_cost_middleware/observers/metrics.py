"""Cost, tokens, refusals and what is left of budgets as metrics of OpenTelemetry, by dimensions of the attribution.

Only the API is used: metrics go wherever the application's own SDK, or the Prometheus endpoint, takes them. The GenAI
conventions (``open-telemetry/semantic-conventions-genai``) have no names for money, budgets and refusals: these stand
under ``llm_cost.``. Counters hold what this process booked, by whatever way; the gauges of budgets come from the
ledger, and are the same in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from llm_cost_middleware.events import (
    AlertRaised,
    BudgetRefused,
    Event,
    ModelUnpriced,
    PolicyDrifted,
    Retried,
    ThresholdCrossed,
)
from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.tracker import CostRecord

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

    from llm_cost_middleware.budget.rules import ScopeBalance

NAME = "llm_cost_middleware"
OTHER = "other"
MOST = 100
"""Values of one dimension that are told apart; all others are ``other``, so that no name a client makes up costs a
series."""
DIMENSIONS = ("team",)
TOKEN_BUCKETS = [4.0**power for power in range(14)]
DURATION_BUCKETS = [0.01 * 2**power for power in range(14)]
"""Boundaries that the conventions name for the histograms of tokens and durations."""


class Bounded:
    """The values of dimensions, each at most so many; the first ones that come keep their names."""

    _lock = ForkSafeLock()

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, set[str]] = {}

    def __call__(self, dimension: str, value: str) -> str:
        """Return a value, or ``other``."""
        known = self._known.setdefault(dimension, set())
        if value not in known:
            with self._lock:
                if value not in known and len(known) >= self._most:
                    return OTHER
                known.add(value)
        return value


class CostMetrics:
    """The instruments, and what is recorded in them. It is an observer.

    Args:
        meter_provider: Where metrics go; the global provider, if ``None``.
        dimensions: Kinds of scopes that become attributes: ``team`` is ``llm_cost.team``. Of several scopes of one kind
            the first counts: money is added up once.
        most_values: Values of each that are told apart.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """

    only_warnings = True

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        *,
        dimensions: Iterable[str] = DIMENSIONS,
        most_values: int = MOST,
    ) -> None:
        with needed_for("metrics"):
            from opentelemetry import metrics
        self._observation = metrics.Observation
        self._dimensions, self.bounded, self._most = tuple(dimensions), Bounded(most_values), most_values
        self._balances: Callable[[], Iterable[ScopeBalance]] | None = None
        meter = metrics.get_meter(NAME, meter_provider=meter_provider)
        self._cost = meter.create_counter("llm_cost.cost", "{USD}", "US dollars booked.")
        self._tokens = meter.create_counter("llm_cost.tokens", "{token}", "Tokens booked, each in one type.")
        self._calls = meter.create_counter("llm_cost.bookings", "{booking}", "Attempts and batches booked.")
        self._refused = meter.create_counter("llm_cost.refused", "{call}", "Calls that did not fit a budget.")
        self._retried = meter.create_counter("llm_cost.retried", "{attempt}", "Attempts that failed and were followed.")
        self._warned = meter.create_counter("llm_cost.thresholds", "{threshold}", "Thresholds of budgets crossed.")
        self._unpriced = meter.create_counter("llm_cost.unpriced", "{call}", "Calls refused for want of a price.")
        self._drifted = meter.create_counter("llm_cost.drifted", "{policy}", "Learned policies that fell back.")
        self._alerts = meter.create_counter("llm_cost.alerts", "{alert}", "Alerts raised.")
        for name, what in _GAUGES.items():
            meter.create_observable_gauge(f"llm_cost.budget.{name}", [self._gauge(name)], "{USD}", what)

    def watch_ledger(self, balances: Callable[[], Iterable[ScopeBalance]]) -> None:
        """Say where the gauges of budgets are read; the pipeline does."""
        self._balances = balances

    def on_record(self, record: CostRecord) -> None:
        """Add what was booked."""
        who = self.who(record.provider, record.model) | self.attributes(record.scopes)
        booked = {**who, "llm_cost.status": record.status}
        self._cost.add(float(record.cost_usd), booked)  # a telemetry value; the ledger keeps the exact one
        self._calls.add(1, booked)
        if record.usage is not None:
            for kind, count in asdict(record.usage).items():
                if count and kind != "reasoning":  # which is counted inside the output
                    self._tokens.add(count, {**who, "llm_cost.token.type": kind})

    def on_event(self, event: Event) -> None:
        """Record ``event``."""
        if isinstance(event, BudgetRefused):
            who = self._whom(event.model)
            self._refused.add(1, {**who, **self._scope(event.scope), "llm_cost.enforced": event.enforced})
        elif isinstance(event, Retried):
            self._retried.add(1, {**self._whom(event.model), "error.type": event.kind})
        elif isinstance(event, ThresholdCrossed):
            self._warned.add(1, {**self._scope(event.scope), "llm_cost.window": event.window})
        elif isinstance(event, ModelUnpriced):
            self._unpriced.add(1, self._whom(event.model))
        elif isinstance(event, PolicyDrifted):
            self._drifted.add(1)
        elif isinstance(event, AlertRaised):
            self._alerts.add(1, {"llm_cost.alert": event.kind})

    def who(self, provider: str, model: str) -> dict[str, Any]:
        """The attributes of a model."""
        return {"gen_ai.provider.name": provider, "gen_ai.request.model": self.bounded("model", model)}

    def _whom(self, target: str) -> dict[str, Any]:
        provider, _, model = target.partition("/")
        return self.who(provider, model or provider)

    def attributes(self, scopes: Iterable[str]) -> dict[str, str]:
        """The attributes of some scopes, by the dimensions."""
        found: dict[str, str] = {}
        for scope in scopes:
            kind, _, name = scope.partition(":")
            if kind in self._dimensions and f"llm_cost.{kind}" not in found:
                found[f"llm_cost.{kind}"] = self.bounded(kind, unquote(name))
        return found

    def _scope(self, scope: str) -> dict[str, str]:
        return {"llm_cost.scope": self.bounded("scope", scope or "global")}

    # --- gauges ------------------------------------------------------------------------------------------------------

    def _gauge(self, name: str) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for one in self._tightest():
                amount = _figure(name, one)
                if amount is not None:
                    window = one.budget.window if one.budget is not None else ""
                    yield self._observation(amount / 10**9, {"llm_cost.scope": one.scope, "llm_cost.window": window})

        return observe

    def _tightest(self) -> tuple[ScopeBalance, ...]:
        """The budgets of which most is used, as many as are told apart. A ledger that is away has no gauges."""
        if self._balances is None:
            return ()
        try:
            found = [one for one in self._balances() if one.balance.limit_nanousd is not None]
        except Exception:  # noqa: BLE001 - of any storage, or closed: no figure is better than an old one
            return ()
        return tuple(sorted(found, key=_used, reverse=True)[: self._most])


_GAUGES = {
    "limit": "Limit of a budget.",
    "spent": "Spent of a budget in its window.",
    "held": "Held for calls under way, and in blocks of processes.",
    "leased": "Of what is held, in blocks of processes for calls to come.",
    "remaining": "Left of a budget; negative after an overrun.",
}


def _figure(name: str, one: ScopeBalance) -> int | None:
    balance = one.balance
    return {
        "limit": balance.limit_nanousd, "spent": balance.settled_nanousd, "held": balance.pending_nanousd,
        "remaining": balance.available_nanousd, "leased": one.leased_nanousd,
    }[name]  # fmt: skip


def _used(one: ScopeBalance) -> tuple[float, str]:
    limit = one.balance.limit_nanousd or 0
    return (one.balance.settled_nanousd / limit if limit else 0.0), one.scope
