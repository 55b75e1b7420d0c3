"""Settings of the call lifecycle and the ledger, made from a configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable

from llm_cost_middleware.budget.backend import Backend
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.ledger.late import LateBackend, place_of
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.budgets import put_budgets_in_force
from llm_cost_middleware.config.platforms import PlatformConfig
from llm_cost_middleware.config.sections import LedgerConfig, ProviderConfig
from llm_cost_middleware.errors import ConfigurationError, LedgerUnavailableError
from llm_cost_middleware.lifecycle.state import Settings
from llm_cost_middleware.lifecycle.upkeep import UpkeepPlan
from llm_cost_middleware.money import ceil_nanousd

_log = logging.getLogger(__name__)


def read_settings(config: CostConfig) -> Settings:
    """Return the settings of the call lifecycle in ``config``."""
    output = config.output
    access: dict[str, ProviderConfig | PlatformConfig] = {**config.providers, **config.platforms}
    return Settings(
        observe=config.mode == "observe",
        estimate_unknown_price=config.on_unknown_price == "estimate",
        # Observing must never stop a call, so a ledger that is down is tolerated too.
        allow_unavailable=config.ledger.on_unavailable == "allow" or config.mode == "observe",
        on_ungoverned=config.on_ungoverned,
        on_insufficient=output.on_insufficient,
        default_max_tokens=output.default_max_tokens if isinstance(output.default_max_tokens, int) else None,
        learned_caps=float(output.learned_caps),
        calibrated=output.estimate == "calibrated",
        server_tool_allowance=ceil_nanousd(output.server_tool_allowance),
        hold_ttl_s=config.ledger.hold_ttl_s,
        timeouts={name: limit for name, provider in access.items() if (limit := provider.timeout_s) is not None},
        service_tiers={name: provider.service_tier for name, provider in access.items()},
        sent_tiers={name: provider.service_tier for name, provider in access.items() if provider.send_service_tier},
        attribution=config.attribution,
        regions=config.routing.regions,
        max_wait_for_budget_s=output.max_wait_for_budget_s,
    )


def read_upkeep(options: LedgerConfig) -> UpkeepPlan:
    """Return what upkeep a ledger is to have while calls go on."""
    return UpkeepPlan(
        options.journal_days, options.journal_lines, options.archive_after_days, options.archive_to,
        options.rest_after_days,
    )  # fmt: skip


def open_or_await(config: CostConfig, clock: Clock | None, monotonic: Callable[[], float]) -> Ledger:
    """Open the configured ledger, with the configured budgets in force.

    Where ``on_unavailable`` is ``allow``, or the mode ``observe``, a storage that is away is opened by the first call
    that finds it there.

    Raises:
        ConfigurationError: The URL or a budget cannot be used.
        LedgerUnavailableError: The storage cannot be opened, and ``on_unavailable`` is ``deny``.
    """

    def opened() -> Ledger:
        ledger = open_ledger(config.ledger, clock=clock)
        try:
            put_budgets_in_force(ledger, config)
        except BaseException:
            ledger.close()
            raise
        return ledger

    try:
        return opened()
    except LedgerUnavailableError as error:
        if not read_settings(config).allow_unavailable:
            raise
        options = config.ledger
        _log.error("calls go out without a reservation until the ledger can be opened: %s", error)
        place = place_of(options.url, options.tenant)
        late = LateBackend(lambda: opened().backend, monotonic, place, error)
        return Ledger(late, clock=clock, hold_ttl_s=options.hold_ttl_s, on_expiry=options.on_expiry, url=options.url)


def open_ledger(options: LedgerConfig, *, clock: Clock | None = None, given: Ledger | Backend | None = None) -> Ledger:
    """Open the configured ledger; or return a given one, or one over a given backend.

    Raises:
        ConfigurationError: What is given is neither, or the URL cannot be used.
        LedgerUnavailableError: The storage cannot be opened.
    """
    if isinstance(given, Ledger):
        return given
    if given is None:
        return Ledger.open(
            options.url, clock=clock, tenant=options.tenant, durability=options.durability,
            hold_ttl_s=options.hold_ttl_s, on_expiry=options.on_expiry, lease=options.lease,
        )  # fmt: skip
    if not isinstance(getattr(given, "blocks", None), bool):  # an AsyncLedger, say
        raise ConfigurationError(f"{given!r} is neither a backend nor a Ledger; pass Ledger.open(url)", key="ledger")
    return Ledger(given, clock=clock, hold_ttl_s=options.hold_ttl_s, on_expiry=options.on_expiry)


def warn_of_forgetting(config: CostConfig, ledger: Ledger) -> None:
    """Log a warning where budgets of a window stand in a ledger that ends with its process."""
    if not ledger.blocks and any(budget.window != "none" for budget in config.budgets):
        logging.getLogger("llm_cost_middleware.pipeline").warning(
            "budgets with a window on a memory ledger are forgotten when the process ends; "
            "set ledger.url to sqlite:///llm-cost.db to keep them"
        )
