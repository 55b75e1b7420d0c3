"""Errors of Bedrock's runtime: how to read a body, and what each one means, a row a rule.

Sources: the service model ``bedrock-runtime/2023-09-30`` of botocore (names and statuses), the User Guide's
"Troubleshooting Amazon Bedrock API error codes". An error is not billed: it takes the place of an answer. An exception
inside a stream comes after tokens that are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.provider import ErrorRule, FailureKind

_K = FailureKind

ERROR_RULES: tuple[ErrorRule, ...] = (
    # The anthropic SDK shows the status and the message of an error, and not its name: that stands in a header.
    # A quota of a day, or of the account, comes back tomorrow or on request; one of a minute is throttling.
    ErrorRule(_K.QUOTA_EXHAUSTED, message="too many tokens per day"),
    ErrorRule(_K.QUOTA_EXHAUSTED, codes=("ServiceQuotaExceededException",)),
    ErrorRule(_K.QUOTA_EXHAUSTED, statuses=(400,), message="exceeds the service quota"),
    # What the model itself refuses comes as a ValidationException with its words.
    ErrorRule(_K.CONTEXT_OVERFLOW, message="prompt is too long"),
    ErrorRule(_K.CONTEXT_OVERFLOW, message="input is too long for requested model"),
    ErrorRule(_K.CONTEXT_OVERFLOW, message="exceed context limit"),
    ErrorRule(_K.CONTENT_POLICY, message="content filtering policy"),
    ErrorRule(_K.RATE_LIMITED, codes=("ThrottlingException", "TooManyRequestsException")),
    ErrorRule(_K.OVERLOADED, codes=("ModelNotReadyException", "ServiceUnavailableException")),
    ErrorRule(_K.TIMEOUT, codes=("ModelTimeoutException",), retryable=True),
    ErrorRule(_K.TIMEOUT, statuses=(408,), retryable=True),
    ErrorRule(_K.SERVER_ERROR, codes=("InternalServerException", "ModelErrorException")),
    ErrorRule(_K.SERVER_ERROR, codes=("ModelStreamErrorException",)),
    ErrorRule(_K.SERVER_ERROR, statuses=(424,), retryable=True),
    ErrorRule(_K.OVERLOADED, statuses=(503,)),
    ErrorRule(_K.INVALID_REQUEST, codes=("ValidationException",)),
    ErrorRule(_K.PERMISSION, codes=("AccessDeniedException",)),
    ErrorRule(_K.NOT_FOUND, codes=("ResourceNotFoundException",)),
    ErrorRule(_K.AUTHENTICATION, codes=("UnrecognizedClientException", "InvalidSignatureException")),
    ErrorRule(_K.AUTHENTICATION, codes=("MissingAuthenticationTokenException", "IncompleteSignatureException")),
    ErrorRule(_K.AUTHENTICATION, codes=("ExpiredTokenException",)),
)


def read_error(body: Any) -> tuple[str, str, str]:
    """An error body to (type, code, message), empty where absent.

    Args:
        body: botocore's ``{"Error": {"Code", "Message"}}``; the event of the anthropic SDK's stream ``{"type": "error",
            "error": {"type", "message"}}``; an exception of a stream by its member's name; or the bare body
            ``{"message": …}``, whose type stands in a header.
    """
    if not isinstance(body, Mapping):
        return "", "", body if isinstance(body, str) else ""
    for holder, kind, words in (("Error", "Code", "Message"), ("error", "type", "message")):
        if isinstance(inner := body.get(holder), Mapping):
            return "", _name(inner.get(kind)), _text(inner.get(words))
    for member, inner in body.items():
        if isinstance(member, str) and member.endswith("Exception") and isinstance(inner, Mapping):
            return "", _name(member), _text(inner.get("message"))
    return "", _name(body.get("__type")), _text(body.get("message") or body.get("Message"))


def _name(value: Any) -> str:
    """An exception's name as the service model writes it: streams begin it in lower case, ``__type`` has a prefix."""
    name = _text(value).rpartition("#")[2].partition(":")[0]
    return name[:1].upper() + name[1:] if name.endswith("Exception") else name


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
