"""Route, cap, retry, cache and book every Claude and OpenAI call, in one line around what you already have.

Everything named here is loaded on first use: importing the package loads no host, no SDK and no database driver. Hosts
have their own doors: ``llm_cost_middleware.integrations.langchain``, ``.litellm``, ``.anthropic``, ``.openai``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
    from llm_cost_middleware.budget.model import Balance, Budget, Receipt, Reservation
    from llm_cost_middleware.config import CostConfig
    from llm_cost_middleware.context import cost_context
    from llm_cost_middleware.errors import (
        BudgetExceededError,
        CircuitOpenError,
        ConfigurationError,
        LedgerError,
        LedgerUnavailableError,
        LLMCostError,
        NoEligibleModelError,
        NoModelFoundError,
        PriceNotFoundError,
        UnsupportedRequestError,
    )
    from llm_cost_middleware.metering import PricedCall, price_response
    from llm_cost_middleware.money import NanoUSD
    from llm_cost_middleware.patterns import (
        BatchResult,
        Result,
        acall_with_retry,
        aprocess,
        aprocess_many,
        build_cached_messages,
        call_with_retry,
        process,
        process_many,
        select_model,
    )
    from llm_cost_middleware.pipeline import CostPipeline
    from llm_cost_middleware.prompt_cache.planner import CachePolicy
    from llm_cost_middleware.provider import Failure, FailureKind
    from llm_cost_middleware.retry.classify import classify_error, classify_response
    from llm_cost_middleware.retry.policy import RetryPolicy
    from llm_cost_middleware.routing.decision import RoutingDecision
    from llm_cost_middleware.routing.policy import RoutingPolicy
    from llm_cost_middleware.tracker import CostRecord, CostTracker
    from llm_cost_middleware.usage import TokenUsage

__all__ = [
    "AsyncLedger",
    "Balance",
    "BatchResult",
    "Budget",
    "BudgetExceededError",
    "CachePolicy",
    "CircuitOpenError",
    "ConfigurationError",
    "CostConfig",
    "CostPipeline",
    "CostRecord",
    "CostTracker",
    "Failure",
    "FailureKind",
    "LLMCostError",
    "Ledger",
    "LedgerError",
    "LedgerUnavailableError",
    "NanoUSD",
    "NoEligibleModelError",
    "NoModelFoundError",
    "PriceNotFoundError",
    "PricedCall",
    "Receipt",
    "Reservation",
    "Result",
    "RetryPolicy",
    "RoutingDecision",
    "RoutingPolicy",
    "TokenUsage",
    "UnsupportedRequestError",
    "acall_with_retry",
    "aprocess",
    "aprocess_many",
    "build_cached_messages",
    "call_with_retry",
    "classify_error",
    "classify_response",
    "cost_context",
    "price_response",
    "process",
    "process_many",
    "select_model",
]

_ROOMS = {
    "budget.ledger": ("AsyncLedger", "Ledger"),
    "budget.model": ("Balance", "Budget", "Receipt", "Reservation"),
    "config": ("CostConfig",),
    "context": ("cost_context",),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "metering": ("PricedCall", "price_response"),
    "money": ("NanoUSD",),
    "patterns": (
        "BatchResult", "Result", "acall_with_retry", "aprocess", "aprocess_many", "build_cached_messages",
        "call_with_retry", "process", "process_many", "select_model",
    ),
    "pipeline": ("CostPipeline",),
    "prompt_cache.planner": ("CachePolicy",),
    "provider": ("Failure", "FailureKind"),
    "retry.classify": ("classify_error", "classify_response"),
    "retry.policy": ("RetryPolicy",),
    "routing.decision": ("RoutingDecision",),
    "routing.policy": ("RoutingPolicy",),
    "tracker": ("CostRecord", "CostTracker"),
    "usage": ("TokenUsage",),
}  # fmt: skip
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("llm-cost-middleware")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
