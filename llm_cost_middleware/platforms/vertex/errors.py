"""Errors of Google's front, around the provider's own.

``{"error": {"code": 429, "message", "status": "RESOURCE_EXHAUSTED", "details": [{"reason"}]}}``, around streams often
in a list of one. Sources: ``google.rpc.Code`` and ``google.rpc.ErrorInfo``, "API errors" of Vertex AI, and bodies as
users quoted them (anthropics/claude-code 1440, cline/cline 651, yym68686/uni-api 41).
"""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.provider import ErrorRule, FailureKind
from llm_cost_middleware.providers.anthropic.errors import read_error as read_anthropic_error

_K = FailureKind

ERROR_RULES: tuple[ErrorRule, ...] = (
    # An account without a way to pay.
    ErrorRule(_K.QUOTA_EXHAUSTED, codes=("BILLING_DISABLED",)),
    ErrorRule(_K.PERMISSION, codes=("SERVICE_DISABLED", "CONSUMER_INVALID", "CONSUMER_SUSPENDED")),
    # Sizes.
    ErrorRule(_K.CONTEXT_OVERFLOW, codes=("INVALID_ARGUMENT",), message="prompt is too long"),
    ErrorRule(_K.REQUEST_TOO_LARGE, codes=("INVALID_ARGUMENT",), message="payload size exceeds"),
    # By status. A quota of zero is refused like one that is used up for the moment.
    ErrorRule(_K.RATE_LIMITED, codes=("RESOURCE_EXHAUSTED",)),
    ErrorRule(_K.OVERLOADED, codes=("UNAVAILABLE",)),
    ErrorRule(_K.SERVER_ERROR, codes=("INTERNAL", "UNKNOWN", "DATA_LOSS")),
    ErrorRule(_K.TIMEOUT, codes=("DEADLINE_EXCEEDED",)),
    ErrorRule(_K.CONFLICT, codes=("ABORTED",)),
    ErrorRule(_K.CANCELLED, codes=("CANCELLED",)),
    ErrorRule(_K.AUTHENTICATION, codes=("UNAUTHENTICATED",)),
    # The project has not taken the model on in Model Garden, or its organisation forbids it.
    ErrorRule(_K.PERMISSION, codes=("PERMISSION_DENIED", "FAILED_PRECONDITION")),
    ErrorRule(_K.NOT_FOUND, codes=("NOT_FOUND",)),
    ErrorRule(_K.INVALID_REQUEST, codes=("INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED", "ALREADY_EXISTS")),
)


def read_error(body: Any) -> tuple[str, str, str]:
    """An error body to (type, code, message), empty where absent.

    Args:
        body: Google's, alone or in a list, with its status as the type and the reason of its details as the code; or
            the provider's own.
    """
    if isinstance(body, list):
        body = next((item for item in body if isinstance(item, dict)), "")
    error = body.get("error") if isinstance(body, dict) else None
    status = error.get("status") if isinstance(error, dict) else None
    if not isinstance(error, dict) or not isinstance(status, str):
        return read_anthropic_error(body)
    details = error.get("details")
    reasons = [item.get("reason") for item in (details if isinstance(details, list) else ()) if isinstance(item, dict)]
    reason = next((reason for reason in reasons if isinstance(reason, str)), "")
    message = error.get("message")
    return status, reason, message if isinstance(message, str) else ""
