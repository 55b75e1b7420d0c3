"""Errors of OpenAI: how to read a body, and what each one means, a row a rule.

Sources: the error-code and spend-limit guides, recorded exchanges.
"""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.provider import ErrorRule, FailureKind

_K = FailureKind

ERROR_RULES: tuple[ErrorRule, ...] = (
    # Money: 429 like a rate limit, all of the type insufficient_quota; the code says which.
    ErrorRule(_K.SPEND_LIMIT, codes=("organization_spend_limit_exceeded", "project_spend_limit_exceeded")),
    ErrorRule(_K.SPEND_LIMIT, codes=("organization_usage_limit_exceeded", "billing_hard_limit_reached")),
    ErrorRule(_K.QUOTA_EXHAUSTED, codes=("insufficient_quota", "credit_balance_exhausted", "billing_not_active")),
    # Sizes. A request above the whole limit per minute never succeeds, and only its message says so.
    ErrorRule(_K.REQUEST_TOO_LARGE, codes=("rate_limit_exceeded", "tokens"), message="request too large"),
    ErrorRule(_K.CONTEXT_OVERFLOW, codes=("context_length_exceeded",)),
    ErrorRule(_K.CONTEXT_OVERFLOW, statuses=(400,), message="maximum context length"),
    ErrorRule(_K.CONTEXT_OVERFLOW, statuses=(400,), message="exceeds the context window"),
    ErrorRule(_K.REQUEST_TOO_LARGE, codes=("string_above_max_length", "array_above_max_length"), statuses=(400,)),
    # Codes that say more than their status.
    ErrorRule(_K.NOT_FOUND, codes=("model_not_found",)),
    ErrorRule(_K.CONTENT_POLICY, codes=("content_policy_violation", "content_filter", "invalid_prompt")),
    ErrorRule(_K.PERMISSION, codes=("unsupported_country_region_territory", "ip_not_authorized")),
    ErrorRule(_K.AUTHENTICATION, codes=("invalid_api_key", "invalid_issuer", "invalid_organization")),
    ErrorRule(_K.OVERLOADED, codes=("server_is_overloaded", "overloaded", "overloaded_error", "resource_unavailable")),
    ErrorRule(_K.RATE_LIMITED, codes=("slow_down",)),
    # By code: an error inside a stream, or of a response that failed, has no status of its own.
    ErrorRule(_K.RATE_LIMITED, codes=("rate_limit_exceeded", "rate_limit_error")),
    ErrorRule(_K.SERVER_ERROR, codes=("server_error", "internal_error", "service_unavailable_error")),
    ErrorRule(_K.TIMEOUT, codes=("vector_store_timeout",)),
)


def read_error(body: Any) -> tuple[str, str, str]:
    """An error body to (type, code, message), empty where absent.

    Args:
        body: ``{"error": {"message", "type", "param", "code"}}``, that inner object alone (as the SDK keeps it), a
            failed response or its event, an error event of a stream, or text.
    """
    if not isinstance(body, dict):
        return "", "", body if isinstance(body, str) else ""
    if isinstance(inner := body.get("response"), dict):  # response.failed
        body = inner
    error = body.get("error")
    if isinstance(error, str):
        return "", "", error
    if error is None and "message" in body and ("code" in body or "type" in body) and "choices" not in body:
        error = body
    if not isinstance(error, dict):
        return "", "", ""
    kind = _text(error.get("type"))
    return "" if kind == "error" else kind, _text(error.get("code")), _text(error.get("message"))


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""
