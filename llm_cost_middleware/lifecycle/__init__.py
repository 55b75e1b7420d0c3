"""The flow of one call, written once: a generator of commands, the stages it consults, and the drivers that run it."""

from llm_cost_middleware.lifecycle.drivers import Runtime, adrive, drive
from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.lifecycle.stages import Stages
from llm_cost_middleware.lifecycle.state import CallOutcome, RoutedCall, Settings
from llm_cost_middleware.lifecycle.streams import AsyncGovernedStream, GovernedStream

__all__ = [
    "AsyncGovernedStream", "CallFlow", "CallOutcome", "GovernedStream", "RoutedCall", "Runtime", "Settings", "Stages",
    "adrive", "drive",
]  # fmt: skip
