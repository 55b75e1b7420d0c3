"""What a configuration has listen to the events of a pipeline: its alerts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from llm_cost_middleware.alerts.channels import open_channel
from llm_cost_middleware.alerts.service import AlertService
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.events import AlertRaised, Event
from llm_cost_middleware.pricing.catalogue import Catalogue


class Listeners:
    """One observer for all that is configured, so that a changed configuration can exchange it.

    Args:
        config: The configuration.
        ledger: The ledger of the pipeline.
        catalogue: Its prices.
        clock: Time.
        emit: Tells its observers.

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
    ) -> None:
        self._make = partial(AlertService, ledger=ledger, catalogue=catalogue, clock=clock, emit=emit)
        self.alerts = self._make(config.alerts) if config.alerts else None

    @property
    def only_warnings(self) -> bool:
        """Whether the events below a warning need not be made for it."""
        return True

    def start(self) -> None:
        """Begin to look, in a thread."""
        if self.alerts is not None:
            self.alerts.start()

    def take_up(self, config: CostConfig) -> None:
        """Listen as another configuration says. Raises as the class does, and changes nothing then."""
        if self.alerts is not None:
            self.alerts.take_up(config.alerts)
        elif config.alerts:
            self.alerts = self._make(config.alerts)
            self.alerts.start()

    def on_event(self, event: Event) -> None:
        """See ``Observer``."""
        if self.alerts is not None:
            self.alerts.on_event(event)

    def close(self) -> None:
        """Tell what can be told, and stop."""
        if self.alerts is not None:
            self.alerts.close()


def check_targets(config: CostConfig) -> None:
    """Check that everybody can be told, before anything is opened. Raises as ``Listeners``."""
    for target in {target for rule in config.alerts for target in rule.to}:
        open_channel(target)


def listed(observers: Any) -> tuple[Any, ...]:
    """Several observers, or one that was not put in a list."""
    if callable(observers) or hasattr(observers, "on_event"):
        return (observers,)
    return tuple(observers) if isinstance(observers, Iterable) else (observers,)
