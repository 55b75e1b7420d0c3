"""Errors of Anthropic: how to read a body, and what each one means, a row a rule.

Sources: the error and rate-limit pages of the API reference, the typed errors of the SDK, recorded exchanges.
"""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.provider import ErrorRule, FailureKind

_K = FailureKind

ERROR_RULES: tuple[ErrorRule, ...] = (
    # Money. A tier's monthly cap is a 429 like any other but for its code; a limit of one's own is a 400.
    ErrorRule(_K.SPEND_LIMIT, codes=("enforced_spend_limit_reached", "contract_spend_limit_reached")),
    ErrorRule(_K.SPEND_LIMIT, codes=("linked_organization_spend_limit_reached",)),
    ErrorRule(_K.SPEND_LIMIT, message="reached your specified api usage limits"),
    ErrorRule(_K.QUOTA_EXHAUSTED, message="credit balance is too low"),
    ErrorRule(_K.QUOTA_EXHAUSTED, codes=("billing_error", "linked_organization_billing_unavailable")),
    # Sizes.
    ErrorRule(_K.CONTEXT_OVERFLOW, codes=("invalid_request_error",), message="prompt is too long"),
    ErrorRule(_K.CONTEXT_OVERFLOW, codes=("invalid_request_error",), message="exceed context limit"),
    ErrorRule(_K.CONTEXT_OVERFLOW, codes=("model_context_window_exceeded",)),
    ErrorRule(_K.REQUEST_TOO_LARGE, codes=("request_too_large", "request_body_too_large_after_decoding")),
    ErrorRule(_K.REQUEST_TOO_LARGE, codes=("invalid_request_error",), message="too many total text bytes"),
    # Codes that say more than their status.
    ErrorRule(_K.PERMISSION, codes=("organization_on_hold",)),
    ErrorRule(_K.TIMEOUT, codes=("request_body_timeout",), retryable=True),
    ErrorRule(_K.CONFLICT, codes=("thread_continue_in_flight",), retryable=True),
    ErrorRule(_K.CONFLICT, codes=("skill_read_blocked_undecryptable", "plugin_name_taken"), retryable=False),
    ErrorRule(_K.CONFLICT, codes=("skill_name_taken",), retryable=False),
    ErrorRule(_K.CONTENT_POLICY, codes=("invalid_request_error",), message="content filtering policy"),
    # By type: the error event of a stream has no status of its own.
    ErrorRule(_K.OVERLOADED, codes=("overloaded_error",)),
    ErrorRule(_K.RATE_LIMITED, codes=("rate_limit_error",)),
    ErrorRule(_K.SERVER_ERROR, codes=("api_error",)),
    ErrorRule(_K.TIMEOUT, codes=("timeout_error",)),
    ErrorRule(_K.AUTHENTICATION, codes=("authentication_error",)),
    ErrorRule(_K.PERMISSION, codes=("permission_error",)),
    ErrorRule(_K.NOT_FOUND, codes=("not_found_error",)),
    ErrorRule(_K.CONFLICT, codes=("conflict_error",)),
)


def read_error(body: Any) -> tuple[str, str, str]:
    """An error body to (type, code, message), empty where absent.

    Args:
        body: ``{"type": "error", "error": {"type", "message", "details": {"error_code"}}}``, the same as an event of a
            stream, or text.
    """
    if not isinstance(body, dict):
        return "", "", body if isinstance(body, str) else ""
    error = body.get("error")
    if not isinstance(error, dict):
        return "", "", error if isinstance(error, str) else ""
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    return _text(error.get("type")), _text(code or error.get("code")), _text(error.get("message"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
