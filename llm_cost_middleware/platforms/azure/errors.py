"""Errors of Azure OpenAI: its gateway's own, before those of the model behind it.

Sources: learn.microsoft.com, Azure OpenAI: REST reference, content filtering, quotas and limits; bodies in threads of
``openai/openai-python``, ``SciSharp/BotSharp`` 386 (401), ``Ironclad/rivet`` 344 (408), ``jasonacox/TinyLLM`` 17 (429).
The gateway answers ``{"error": {"code": "DeploymentNotFound", "message": …}}``, with its number in the place of a code
where the status alone matters (``{"error": {"code": "429", …}}``), and API Management in front of it
``{"statusCode": 401, "message": …}``.

Errors that are billed (learn.microsoft.com, "Plan to manage costs", HTTP error response code and billing status): what
the service has worked on, as a prompt that its filter stopped, one that was too long, and an answer that took too long.
"Content filtering" adds that prompt and completion are charged. None of them says how much: what was held is booked.
"""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.provider import ErrorRule, FailureKind
from llm_cost_middleware.providers import openai

_K = FailureKind
ERROR_RULES: tuple[ErrorRule, ...] = (
    # A deployment may need five minutes after it was made; whoever waits for that knows it, everybody else has a typo.
    ErrorRule(_K.NOT_FOUND, codes=("DeploymentNotFound", "ResourceNotFound", "InvalidDeployment")),
    ErrorRule(_K.NOT_FOUND, statuses=(404,), codes=("404",)),
    ErrorRule(
        _K.CONTENT_POLICY,
        codes=("content_filter", "ResponsibleAIPolicyViolation", "content_management_policy"),
        billed="unknown",
    ),
    ErrorRule(_K.CONTENT_POLICY, statuses=(400,), message="content management policy", billed="unknown"),
    # A quota of the month or of the subscription: it does not pass within a minute.
    ErrorRule(_K.QUOTA_EXHAUSTED, codes=("insufficient_quota", "QuotaExceeded")),
    ErrorRule(_K.QUOTA_EXHAUSTED, statuses=(403,), message="out of call volume quota"),
    # "Please retry after 86400 seconds": the request alone is larger than the minute's allowance of its deployment.
    ErrorRule(_K.REQUEST_TOO_LARGE, statuses=(429,), message="retry after 86400 seconds"),
    ErrorRule(_K.OVERLOADED, statuses=(429,), message="experiencing high demand"),
    ErrorRule(_K.RATE_LIMITED, statuses=(429,), codes=("429", "RateLimitReached", "too_many_requests")),
    # A provisioned deployment that is full.
    ErrorRule(_K.OVERLOADED, codes=("NoCapacity", "no_capacity", "ServiceUnavailable"), statuses=(429, 503)),
    ErrorRule(
        _K.AUTHENTICATION, statuses=(401,), codes=("401", "PermissionDenied", "Unauthorized", "AuthenticationFailed")
    ),
    ErrorRule(_K.PERMISSION, codes=("PermissionDenied", "AccessDenied", "AuthenticationTypeDisabled")),
    ErrorRule(_K.INVALID_REQUEST, codes=("OperationNotSupported", "BadRequest", "unsupported_api_for_responses_api")),
    ErrorRule(_K.TIMEOUT, codes=("Timeout", "RequestTimeout"), statuses=(408, 504), billed="unknown"),
    ErrorRule(_K.TIMEOUT, statuses=(408,), billed="unknown"),
    ErrorRule(_K.SERVER_ERROR, codes=("InternalServerError", "ServerError", "500"), statuses=(500,)),
    *(
        rule._replace(billed="unknown") if rule.kind is _K.CONTEXT_OVERFLOW else rule
        for rule in openai.PROVIDER.error_rules
    ),
)


def read_error(body: Any) -> tuple[str, str, str]:
    """Read an error body to (type, code, message), empty where absent.

    Args:
        body: As of OpenAI, with the inner error's code where the outer one says less; or API Management's
            ``{"statusCode", "message"}``.
    """
    if isinstance(body, dict) and "error" not in body and "statusCode" in body:
        message = body.get("message")
        return "", str(body["statusCode"]), message if isinstance(message, str) else ""
    kind, code, message = openai.PROVIDER.read_error(body)
    error = body.get("error", body) if isinstance(body, dict) else None
    inner = error.get("innererror") if isinstance(error, dict) else None
    named = inner.get("code") if isinstance(inner, dict) else None
    return kind, code or (named if isinstance(named, str) else ""), message
