"""What a pipeline is made of, and what its rarer verbs use: loaded when one is made, not when its name is imported.

Whoever only names ``CostPipeline``, in an annotation or to register it somewhere, waits for none of it.
"""

from random import SystemRandom

from llm_cost_middleware.budget.ledger import unique_id
from llm_cost_middleware.budget.ledger.arguments import checked_ids
from llm_cost_middleware.budget.model import bounded_nanousd, make_scope
from llm_cost_middleware.call_ids import call_id_of
from llm_cost_middleware.config import CostConfig, tell_of_unused_file
from llm_cost_middleware.config.budgets import put_budgets_in_force
from llm_cost_middleware.config.candidates import ConfiguredModels
from llm_cost_middleware.config.listeners import Listeners, check_listeners, listed
from llm_cost_middleware.config.reloading import (
    FileWatch,
    check_reloadable,
    read_again,
    what_was_taken_up,
    with_metrics_of,
    with_money_of,
)
from llm_cost_middleware.config.settings import (
    open_ledger,
    open_or_await,
    read_settings,
    read_upkeep,
    warn_of_forgetting,
)
from llm_cost_middleware.context import current_context
from llm_cost_middleware.foresight import Foresight
from llm_cost_middleware.lifecycle import CallFlow, Stages
from llm_cost_middleware.lifecycle.batches import quote_batch
from llm_cost_middleware.lifecycle.clerk import Clerk
from llm_cost_middleware.lifecycle.deferred import DeferredBills
from llm_cost_middleware.lifecycle.external import aauthorize, authorize
from llm_cost_middleware.lifecycle.provider_fields import filled
from llm_cost_middleware.lifecycle.runtimes import RuntimePool
from llm_cost_middleware.lifecycle.stages.cache import CacheStage
from llm_cost_middleware.lifecycle.stages.counts import ProviderCounts
from llm_cost_middleware.lifecycle.stages.decisions import DecisionRecorder
from llm_cost_middleware.lifecycle.stages.drift import DriftStage
from llm_cost_middleware.lifecycle.stages.health import HealthStage
from llm_cost_middleware.lifecycle.stages.lanes import LaneStage
from llm_cost_middleware.lifecycle.stages.price import PriceStage
from llm_cost_middleware.lifecycle.stages.record import CallRecorder
from llm_cost_middleware.lifecycle.stages.route import RouteStage
from llm_cost_middleware.lifecycle.waiting import WaitingCalls
from llm_cost_middleware.money import ZERO
from llm_cost_middleware.observers.logging import LoggingObserver
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import EMPTY, NO_CONTEXT
from llm_cost_middleware.routing.decision_log import FEEDBACK
from llm_cost_middleware.runs import Slice, forecast_run, run_paths
from llm_cost_middleware.system_clock import SystemClock

__all__ = [
    "EMPTY", "FEEDBACK", "NO_CONTEXT", "ZERO", "CacheStage", "CallFlow", "CallRecorder", "Catalogue", "Clerk",
    "ConfiguredModels", "CostConfig", "DecisionRecorder", "DeferredBills", "DriftStage", "FileWatch", "Foresight",
    "HealthStage", "LaneStage", "Listeners", "LoggingObserver", "PriceStage", "ProviderCounts", "RouteStage",
    "RuntimePool", "Slice", "Stages", "SystemClock", "SystemRandom", "WaitingCalls", "aauthorize", "authorize",
    "bounded_nanousd", "call_id_of", "check_listeners", "check_reloadable", "checked_ids", "current_context", "filled",
    "forecast_run", "listed", "make_scope", "open_ledger", "open_or_await", "put_budgets_in_force", "quote_batch",
    "read_again", "read_settings", "read_upkeep", "run_paths", "tell_of_unused_file", "unique_id",
    "warn_of_forgetting", "what_was_taken_up", "with_metrics_of", "with_money_of",
]  # fmt: skip
