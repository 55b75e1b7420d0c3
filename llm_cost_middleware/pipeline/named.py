"""The types that the verbs of ``CostPipeline`` name in their annotations, each loaded when somebody asks for it.

Annotations are text: who reads them (``typing.get_type_hints``, ``inspect.signature(..., eval_str=True)``, and so the
frameworks that inject what a function wants) finds a type here, before or after a pipeline is made; who only names the
pipeline waits for none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

    from llm_cost_middleware.batches.calls import BatchCalls, Clients
    from llm_cost_middleware.batches.lane import BatchWork, Unanswered, Wishes
    from llm_cost_middleware.batches.planning import BatchItem
    from llm_cost_middleware.batches.results import BatchAnswers, BatchProgress, Collected
    from llm_cost_middleware.batches.steps import Steps
    from llm_cost_middleware.budget.backend import Backend
    from llm_cost_middleware.budget.ledger import Ledger
    from llm_cost_middleware.budget.rules import Headroom
    from llm_cost_middleware.clock import Clock
    from llm_cost_middleware.config import ConfigSource, CostConfig
    from llm_cost_middleware.config.listeners import Listeners
    from llm_cost_middleware.config.reloading import FileWatch
    from llm_cost_middleware.events import Event, Observer
    from llm_cost_middleware.foresight import Forecast, Foresight
    from llm_cost_middleware.lifecycle import AsyncGovernedStream, CallOutcome, GovernedStream, RoutedCall
    from llm_cost_middleware.lifecycle.batches import BatchQuote
    from llm_cost_middleware.lifecycle.clerk import Clerk
    from llm_cost_middleware.lifecycle.external import ExternalCall
    from llm_cost_middleware.lifecycle.flow import CallFlow
    from llm_cost_middleware.lifecycle.runtimes import RuntimePool
    from llm_cost_middleware.lifecycle.stages import Stages
    from llm_cost_middleware.money import USD, NanoUSD
    from llm_cost_middleware.pipeline import PipelineSource
    from llm_cost_middleware.pricing.catalogue import Catalogue
    from llm_cost_middleware.pricing.token_calibration import Coverage
    from llm_cost_middleware.reports import Commitment, Report
    from llm_cost_middleware.request import (
        Attempt,
        CallContext,
        CallRequest,
        CallResult,
        CallStream,
        InputCounter,
        ModelRef,
    )
    from llm_cost_middleware.routing.decision import RoutingDecision
    from llm_cost_middleware.runs import RunPath, Seconds, Slice
    from llm_cost_middleware.tracker import CostRecord, CostTracker
    from llm_cost_middleware.usage import UsageReport

__all__ = [
    "USD", "AsyncGovernedStream", "Attempt", "Backend", "BatchAnswers", "BatchCalls", "BatchItem", "BatchProgress",
    "BatchQuote", "BatchWork", "CallContext", "CallFlow", "CallOutcome", "CallRequest", "CallResult", "CallStream",
    "Catalogue", "Clerk", "Clients", "Clock", "Collected", "Commitment", "ConfigSource", "CostConfig", "CostRecord",
    "CostTracker", "Coverage", "Event", "ExternalCall", "FileWatch", "Forecast", "Foresight", "GovernedStream",
    "Headroom", "InputCounter", "Ledger", "Listeners", "ModelRef", "NanoUSD", "Observer", "PipelineSource", "Random",
    "Report", "RoutedCall", "RoutingDecision", "RunPath", "RuntimePool", "Seconds", "Slice", "Stages", "Steps",
    "Unanswered", "UsageReport", "Wishes",
]  # fmt: skip

_ROOMS = {
    ".batches.calls": ("BatchCalls", "Clients"),
    ".batches.lane": ("BatchWork", "Unanswered", "Wishes"),
    ".batches.planning": ("BatchItem",),
    ".batches.results": ("BatchAnswers", "BatchProgress", "Collected"),
    ".batches.steps": ("Steps",),
    ".budget.backend": ("Backend",),
    ".budget.ledger": ("Ledger",),
    ".budget.rules": ("Headroom",),
    ".clock": ("Clock",),
    ".config": ("ConfigSource", "CostConfig"),
    ".config.listeners": ("Listeners",),
    ".config.reloading": ("FileWatch",),
    ".events": ("Event", "Observer"),
    ".foresight": ("Forecast", "Foresight"),
    ".lifecycle": ("AsyncGovernedStream", "CallOutcome", "GovernedStream", "RoutedCall"),
    ".lifecycle.batches": ("BatchQuote",),
    ".lifecycle.clerk": ("Clerk",),
    ".lifecycle.external": ("ExternalCall",),
    ".lifecycle.flow": ("CallFlow",),
    ".lifecycle.runtimes": ("RuntimePool",),
    ".lifecycle.stages": ("Stages",),
    ".money": ("NanoUSD", "USD"),
    ".pipeline": ("PipelineSource",),
    ".pricing.catalogue": ("Catalogue",),
    ".pricing.token_calibration": ("Coverage",),
    ".reports": ("Commitment", "Report"),
    ".request": ("Attempt", "CallContext", "CallRequest", "CallResult", "CallStream", "InputCounter", "ModelRef"),
    ".routing.decision": ("RoutingDecision",),
    ".runs": ("RunPath", "Seconds", "Slice"),
    ".tracker": ("CostRecord", "CostTracker"),
    ".usage": ("UsageReport",),
    "random": ("Random",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], "llm_cost_middleware"), name)
    globals()[name] = value
    return value
