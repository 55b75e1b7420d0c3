"""What the proxy's clients are told when a call is refused: an HTTP error that no SDK retries into the ground."""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.errors import (
    BudgetExceededError,
    CircuitOpenError,
    LedgerUnavailableError,
    LLMCostError,
)

_SOON_S = 60


def refusal_of(error: LLMCostError, *, now: float) -> Exception:
    """The ``HTTPException`` of an error of this package.

    429 for a budget, with ``x-should-retry: false``, ``resets_at`` in the body, and ``retry-after`` only where the
    budget resets within a minute; 503 for a provider or a ledger that does not answer; 400 for the rest.

    Args:
        error: What the pipeline raised.
        now: Seconds since the epoch.
    """
    from fastapi import HTTPException

    body: dict[str, Any] = {"message": str(error), "type": "invalid_request_error", "code": type(error).__name__}
    headers = {"x-should-retry": "false"}
    status = 400
    if isinstance(error, BudgetExceededError):
        status = 429
        body |= {"type": "budget_exceeded", "code": "budget_exceeded", "scope": error.scope}
        if error.resets_at is not None:
            body["resets_at"] = error.resets_at.isoformat()
            wait = error.resets_at.timestamp() - now
            if 0 <= wait <= _SOON_S:
                headers["retry-after"] = str(int(wait) + 1)
    elif isinstance(error, CircuitOpenError):
        status, headers = 503, {"retry-after": str(int(error.retry_after) + 1)}
        body["type"] = "overloaded"
    elif isinstance(error, LedgerUnavailableError):
        status, body["type"] = 503, "ledger_unavailable"
    return HTTPException(status_code=status, detail=body, headers=headers)
