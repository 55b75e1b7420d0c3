"""Route, cap, retry, cache and book every Claude and OpenAI call, in one line around what you already have.

Everything named here is loaded on first use: importing the package loads no host, no SDK and no database driver. Hosts
have packages of their own: ``llm_cost_middleware.integrations.langchain``, ``.litellm``, ``.anthropic``, ``.openai``.

Glossary, one meaning per word:

- host: a library whose calls are governed: LangChain, LiteLLM, or an SDK
- provider: a company whose models are called, and the rules of its API
- platform: another company that serves a provider's models, under its own names and prices
- pipeline: the object that governs calls; it owns the ledger, the tracker and what was learned
- observer: a function, or an object whose ``on_event`` receives every event
- call: one question of the application; it ends in one answer or one error
- attempt: one request of a call to one target; a call that is retried has several
- target: the provider and the model that an attempt goes to
- routed name: a model name, ``smart`` by default, that asks for a model to be chosen
- pinned: the caller chose the model: never routed to another one
- ungoverned: sent without a reservation because no path of the package covers it
- call site: the place in an application that makes a call; policies are learned per site
- tier: a group of models of similar strength; routing chooses one, from cheap to strong
- policy: the rule that chooses a tier from the features of a call
- decision: the chosen target, the alternatives and the reason, as one logged value
- propensity: the probability with which a decision chose its tier
- cascade: a cheap model is asked first, a stronger one only if the answer is not accepted
- quality signal: a sign that an answer was good or bad, observed or given as feedback
- bound: the most that a request can cost, computed from the request alone
- quote: the bound of one attempt and the output cap that must be sent for it to hold
- usage report: the billed items that a response reports; none means unknown, never zero
- rates: the prices of a model at one moment, per kind of token
- scope: whose spending is counted, such as ``global`` or ``user:42``
- window: the period in which a budget counts: a calendar period or a rolling one
- budget: a limit on the spending of one scope in one window
- ledger: the record of all reservations and bookings, and the verbs on it
- backend: the storage behind a ledger
- hold: a reservation of money, made before an attempt is sent, until it is settled, voided or expired
- settle: to replace a hold by the cost of the answer
- void: to release a hold because nothing was billed
- expire: to end a hold whose lifetime is over: charged or released, as ``on_expiry`` states
- receipt: the result of a settle, a void or a booking
- unconfirmed: booked at the reserved amount because the outcome of the attempt is unknown
- memo: the metadata of a row in the ledger, opaque to it
- journal: lines that a backend keeps for others, such as the log of decisions
- cache breakpoint: the end of a prompt prefix that the provider is asked to cache
- affinity: the expected saving of a model whose cache is warm, counted when routing
- failure kind: the classified reason of a failure, on which retrying and booking depend
- retry quota: tokens that each retry takes and each success returns, so that retries cannot pile up
- circuit breaker: stops sending to a target that keeps failing, and lets calls through again slowly
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_cost_middleware.budget.balance import Balance
    from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
    from llm_cost_middleware.budget.model import Budget, Receipt, Reservation
    from llm_cost_middleware.call_ids import call_id_of
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
    from llm_cost_middleware.events import Observer
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
    "Observer",
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
    "call_id_of",
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
    "budget.balance": ("Balance",),
    "budget.model": ("Budget", "Receipt", "Reservation"),
    "call_ids": ("call_id_of",),
    "config": ("CostConfig",),
    "context": ("cost_context",),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "events": ("Observer",),
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
    try:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError:
        from llm_cost_middleware.extras import needed_for

        with needed_for("llm-cost-middleware"):  # it says which package, and the command that installs it
            raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
