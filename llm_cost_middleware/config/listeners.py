"""What a configuration has listen to a pipeline: its alerts, its metrics. Each is imported where it is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.ledger.leased import leased_balances
from llm_cost_middleware.budget.rules import ScopeBalance
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.sections import MetricsConfig
from llm_cost_middleware.events import AlertRaised, Event
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.pricing.catalogue import Catalogue

if TYPE_CHECKING:
    from llm_cost_middleware.alerts.service import AlertService
    from llm_cost_middleware.observers.otel import OpenTelemetryObserver
    from llm_cost_middleware.observers.prometheus import PrometheusEndpoint

_FRESH_S = 10.0


class Listeners:
    """One observer for all that is configured, so that a changed configuration can exchange it.

    Args:
        config: The configuration.
        ledger: The ledger of the pipeline.
        catalogue: Its prices.
        clock: Time.
        emit: Tells its observers.
        observers: Those of the user: the ones that show balances are told where to read them.

    Raises:
        MissingExtraError, ConfigurationError: Alerts go where nothing can be told.
    """

    def __init__(
        self,
        config: CostConfig,
        ledger: Ledger,
        catalogue: Catalogue,
        clock: Clock,
        emit: Callable[[AlertRaised], None],
        observers: Iterable[Any] = (),
    ) -> None:
        self._told_by = ledger, catalogue, clock, emit
        self.alerts = self._make(config) if config.alerts else None
        self._endpoints = tuple(_endpoints_of(config.metrics))
        self.metrics: tuple[Any, ...] = (*_observers_of(config.metrics), *self._endpoints)
        self._balances = Balances(ledger, clock)
        for observer in (*observers, *self.metrics):
            if hasattr(observer, "watch_ledger"):
                observer.watch_ledger(self._balances)

    only_warnings = True

    def _make(self, config: CostConfig) -> AlertService:
        from llm_cost_middleware.alerts.service import AlertService

        return AlertService(config.alerts, *self._told_by)

    def start(self) -> None:
        """Begin to look and to serve, in threads."""
        if self.alerts is not None:
            self.alerts.start()
        for endpoint in self._endpoints:
            endpoint.start()

    def take_up(self, config: CostConfig) -> None:
        """Listen as another configuration says. Raises as the class does, and changes nothing then."""
        if self.alerts is not None:
            self.alerts.take_up(config.alerts)
        elif config.alerts:
            self.alerts = self._make(config)
            self.alerts.start()

    def on_event(self, event: Event) -> None:
        """See ``Observer``."""
        if self.alerts is not None:
            self.alerts.on_event(event)

    def close(self) -> None:
        """Tell what can be told, and stop."""
        self._balances.close()
        if self.alerts is not None:
            self.alerts.close()
        for endpoint in self._endpoints:
            endpoint.close()


class Balances:
    """The balances of a ledger for gauges, asked for at most every ten seconds however often somebody looks."""

    _lock = ForkSafeLock()

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock
        self._read: tuple[float, tuple[ScopeBalance, ...]] = (float("-inf"), ())
        self._closed = False

    def close(self) -> None:
        """There are none any more: the ledger is about to be closed."""
        self._closed = True

    def __call__(self) -> tuple[ScopeBalance, ...]:
        """Return them. May block, and raises as the ledger does."""
        with self._lock:
            at, known = self._read
            now = self._clock.monotonic()
            if self._closed:
                return ()
            if now - at >= _FRESH_S:
                known = leased_balances(self._ledger)
                self._read = now, known
            return known


def _observers_of(options: MetricsConfig) -> Iterator[OpenTelemetryObserver]:
    if options.opentelemetry:
        from llm_cost_middleware.observers.otel import OpenTelemetryObserver

        yield OpenTelemetryObserver(dimensions=options.dimensions, most_values=options.most_values)


def _endpoints_of(options: MetricsConfig) -> Iterator[PrometheusEndpoint]:
    if options.prometheus_port is not None:
        from llm_cost_middleware.observers.prometheus import PrometheusEndpoint

        yield PrometheusEndpoint(
            options.prometheus_port, ports=options.prometheus_ports, host=options.prometheus_host,
            dimensions=options.dimensions, most_values=options.most_values,
        )  # fmt: skip


def check_listeners(config: CostConfig) -> None:
    """Check that all of it can be had, before anything is opened. Raises as ``Listeners``."""
    if config.alerts:
        from llm_cost_middleware.alerts.channels import open_channel

        for target in {target for rule in config.alerts for target in rule.to}:
            open_channel(target)
    if config.metrics.opentelemetry or config.metrics.prometheus_port is not None:
        from llm_cost_middleware.observers.prometheus import check_installed

        check_installed(prometheus=config.metrics.prometheus_port is not None)


def listed(observers: Any) -> tuple[Any, ...]:
    """Several observers, or one that was not put in a list."""
    if callable(observers) or hasattr(observers, "on_event"):
        return (observers,)
    return tuple(observers) if isinstance(observers, Iterable) else (observers,)
