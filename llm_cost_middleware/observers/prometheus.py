"""The metrics of a process at a port of its own, for Prometheus, by the exporter of OpenTelemetry.

That exporter serves one process. Processes of one machine take the next free ports from the configured one on, so that
Prometheus has a target for each; a counter of one of them is added up there, a gauge of a budget is the same in all.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any
from weakref import WeakSet

from llm_cost_middleware.events import Event
from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.fork import after_fork_in_child
from llm_cost_middleware.observers.metrics import CostMetrics
from llm_cost_middleware.tracker import CostRecord

_log = logging.getLogger(__name__)


def check_installed(*, prometheus: bool = True) -> None:
    """Check that metrics can be had. Raises ``MissingExtraError``."""
    with needed_for("metrics"):
        import_module("opentelemetry.metrics")
        if prometheus:
            import_module("prometheus_client")
            import_module("opentelemetry.exporter.prometheus")


class PrometheusEndpoint:
    """Serves the metrics of this process. It is an observer.

    Args:
        port: The first port that is tried; 0: any that is free.
        ports: So many are tried.
        host: The address that it listens at.
        dimensions: As for ``CostMetrics``.
        most_values: As for ``CostMetrics``.

    Raises:
        MissingExtraError: The exporter is not installed.
    """

    only_warnings = True

    def __init__(
        self, port: int, *, ports: int = 1, host: str = "127.0.0.1", dimensions: Iterable[str], most_values: int
    ) -> None:
        check_installed()
        self._ports = range(port, port + (ports if port else 1))
        self._host, self._options = host, {"dimensions": tuple(dimensions), "most_values": most_values}
        self._balances: Any = None
        self._server: Any = None
        self.port: int | None = None
        """Where it listens; ``None`` where every port was taken."""

    def start(self) -> None:
        """Listen, here and in processes that are forked later. No free port is logged: calls matter more."""
        from opentelemetry.sdk.metrics import MeterProvider

        prometheus, exporter = map(import_module, ("prometheus_client", "opentelemetry.exporter.prometheus"))
        registry = prometheus.CollectorRegistry()
        reader = exporter.PrometheusMetricReader(registry=registry, scope_info_enabled=False)
        self._provider = MeterProvider([reader], shutdown_on_exit=False)
        self.metrics = CostMetrics(self._provider, **self._options)  # type: ignore[arg-type]  # as given above
        if self._balances is not None:
            self.metrics.watch_ledger(self._balances)
        _running.add(self)
        for port in self._ports:
            try:
                self._server, self._thread = prometheus.start_http_server(port, self._host, registry)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    _log.error("metrics are not served at %s:%d: %s", self._host, port, error.strerror)
                    return
            else:
                self.port = self._server.server_port
                _log.info("metrics at http://%s:%d/metrics", self._host, self.port)
                return
        _log.error(
            "metrics are not served: all of the ports %d to %d of %s are taken; raise metrics.prometheus_ports",
            self._ports[0], self._ports[-1], self._host,
        )  # fmt: skip

    def restart_in_child(self) -> None:
        """A forked process has the socket and the counts of its parent, and serves neither."""
        if self._server is not None:
            with suppress(OSError):
                self._server.socket.close()
        self._server = self.port = None
        self.start()

    def watch_ledger(self, balances: Any) -> None:
        """See ``CostMetrics``."""
        self._balances = balances
        if self._server is not None:
            self.metrics.watch_ledger(balances)

    def on_record(self, record: CostRecord) -> None:
        """Add what was booked."""
        self.metrics.on_record(record)

    def on_event(self, event: Event) -> None:
        """Record ``event``."""
        self.metrics.on_event(event)

    def close(self) -> None:
        """Stop listening."""
        _running.discard(self)
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            self._thread.join(1.0)
            self._provider.shutdown()


_running: WeakSet[PrometheusEndpoint] = WeakSet()


@after_fork_in_child
def _restart() -> None:
    for endpoint in list(_running):
        endpoint.restart_in_child()
