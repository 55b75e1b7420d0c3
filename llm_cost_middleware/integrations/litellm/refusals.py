"""Refusals as HTTP errors of the proxy, which SDK clients do not retry."""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.errors import (
    BudgetExceededError,
    CircuitOpenError,
    LedgerUnavailableError,
    LLMCostError,
    ScopePausedError,
)

_SOON_S = 60


def refusal_of(error: LLMCostError, *, now: float) -> Exception:
    """The ``ProxyException`` of an error of this package.

    429 for a budget, with ``x-should-retry: false``, ``resets_at`` in the body, and ``retry-after`` only where the
    budget resets within a minute; 403 for a paused scope; 503 for a provider or a ledger that does not answer; 400 for
    the rest.

    Args:
        error: What the pipeline raised.
        now: Seconds since the epoch.
    """
    from litellm.proxy._types import ProxyException

    # both SDKs retry a 429 or a 503 by themselves unless this header forbids it
    status, kind, headers = 400, "invalid_request_error", {"x-should-retry": "false"}
    fields: dict[str, Any] = {}
    if isinstance(error, BudgetExceededError):
        status, kind, fields = 429, "budget_exceeded", {"scope": error.scope}
        if error.resets_at is not None:
            fields["resets_at"] = error.resets_at.isoformat()
            wait = error.resets_at.timestamp() - now
            if 0 <= wait <= _SOON_S:
                headers["retry-after"] = str(int(wait) + 1)
    elif isinstance(error, ScopePausedError):
        status, kind, fields = 403, "scope_paused", {"scope": error.scope}
    elif isinstance(error, CircuitOpenError):
        status, kind, headers = 503, "overloaded", {"retry-after": str(int(error.retry_after) + 1)}
    elif isinstance(error, LedgerUnavailableError):
        status, kind = 503, "ledger_unavailable"
    refusal: Exception = ProxyException(
        message=str(error),
        type=kind,
        param=None,
        code=status,
        openai_code=kind,
        headers=headers,
        provider_specific_fields=fields or None,
    )
    return refusal
