"""Settings of the call lifecycle, read from a configuration."""

from __future__ import annotations

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.lifecycle.state import Settings
from llm_cost_middleware.money import ceil_nanousd


def read_settings(config: CostConfig) -> Settings:
    """Return the settings of the call lifecycle in ``config``."""
    output = config.output
    return Settings(
        observe=config.mode == "observe",
        estimate_unknown_price=config.on_unknown_price == "estimate",
        # Observing must never stop a call, so a ledger that is down is tolerated too.
        allow_unavailable=config.ledger.on_unavailable == "allow" or config.mode == "observe",
        on_insufficient=output.on_insufficient,
        default_max_tokens=output.default_max_tokens if isinstance(output.default_max_tokens, int) else None,
        calibrated=output.estimate == "calibrated",
        learning=config.routing.kind == "learned" or config.routing.explore > 0,
        server_tool_allowance=ceil_nanousd(output.server_tool_allowance),
        hold_ttl_s=config.ledger.hold_ttl_s,
        timeouts={name: provider.timeout_s for name, provider in config.providers.items()},
    )
