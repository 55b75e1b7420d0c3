"""The part of ``CostPipeline`` that takes up a configuration that changes under a running process."""

from __future__ import annotations

import logging
from collections.abc import Callable

from llm_cost_middleware.errors import ConfigurationError, LLMCostError
from llm_cost_middleware.pipeline import named

_log = logging.getLogger(__name__)


class Reloading:
    """The part of ``CostPipeline`` that takes up a changed configuration. The pipeline sets what it works on."""

    config: named.CostConfig
    clock: named.Clock
    catalogue: named.Catalogue
    _runtimes: named.RuntimePool
    _watch: named.FileWatch
    _stages: named.Stages
    _listeners: named.Listeners
    _make_flow: Callable[[named.CostConfig, named.Stages | None], named.CallFlow]
    _go_over_to: Callable[[named.CallFlow], None]

    def reload(self, config: named.ConfigSource | None = None) -> None:
        """Take up a changed configuration: tiers, policies, attribution, alerts, prices, budgets; not ``[metrics]``.

        Calls under way end as begun. Metrics stay as they began, in ``config``, too; that they differ is logged.
        Budgets and prices of a changed file are taken up without it (``watch``).

        Args:
            config: The new one; the file that the present one was read from, if ``None``.

        Raises:
            ConfigurationError: It cannot be used, or has another ledger; then everything stays as it was.
            LedgerUnavailableError: Its budgets could not be set.
        """
        from llm_cost_middleware.pipeline import parts

        new = parts.read_again(self.config) if config is None else parts.CostConfig.read(config)
        parts.check_reloadable(self.config, new)
        flow = self._make_flow(new, self._stages)
        if new.metrics != self.config.metrics:
            _log.warning("[metrics] changed: a running pipeline keeps those that it began with; make a new one")
            new = parts.with_metrics_of(self.config, new)
        # The call says that it is the newest, where no file does.
        self._take_up_money(new, self.clock.now() if new.written_at is None else new.written_at)
        self._listeners.take_up(new)  # after what can fail: alerts of a configuration that is not in force tell nobody
        self._runtimes.look_after(parts.read_upkeep(new.ledger))
        self.config = new
        self._go_over_to(flow)

    def _take_up_money(self, config: named.CostConfig, written_at: float | None = None) -> None:
        from llm_cost_middleware.pipeline import parts

        self.catalogue.reprice(config.prices)
        parts.put_budgets_in_force(self._runtimes.ledger, config, written_at=written_at)

    def _keep_up(self) -> None:
        """Look, at most once a second, whether the file has changed, and take it up."""
        if self._watch.changed():
            self._take_up_file()

    async def _akeep_up(self) -> None:
        """The same on an event loop, which a file may not hold up."""
        if self._watch.changed():
            from llm_cost_middleware.event_loops import in_thread

            await in_thread(self._take_up_file)

    def _take_up_file(self) -> None:
        """Take up what a changed file says of money. A file that cannot be read changes nothing: it is being edited."""
        from llm_cost_middleware.pipeline import parts

        try:
            new = parts.read_again(self.config)
            if new.attribution.spelling != self.config.attribution.spelling:  # its budgets would be of other names
                raise ConfigurationError("writes names otherwise now; reload() takes all of it up", key="attribution")
            self._take_up_money(new)
        except LLMCostError as error:
            _log.error("the changed configuration was not taken up: %s", error)
            return
        _log.warning("%s", parts.what_was_taken_up(self.config, new))
        self.config = parts.with_money_of(self.config, new)
