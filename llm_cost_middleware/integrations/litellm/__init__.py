"""LiteLLM: ``CostAwareRouter``, ``router_config``, ``CostLogger``. The proxy's instances are in ``proxy``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.extras import needed_for

if TYPE_CHECKING:
    from llm_cost_middleware.integrations.litellm.config import proxy_config, router_config
    from llm_cost_middleware.integrations.litellm.logger import CostLogger
    from llm_cost_middleware.integrations.litellm.router import CostAwareRouter

__all__ = ["CostAwareRouter", "CostLogger", "proxy_config", "router_config"]

_HOMES = {"CostAwareRouter": "router", "CostLogger": "logger", "proxy_config": "config", "router_config": "config"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needed_for(name):
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
