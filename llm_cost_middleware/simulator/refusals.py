"""Errors in each provider's own words: statuses, bodies and headers as recorded from the real ones."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .catalogue import ProviderName

_ANTHROPIC: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request_error", "messages.0: Input does not match the expected shape."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "There is an issue with your billing or payment information."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not found"),
    408: ("timeout_error", "Request timed out."),
    409: ("conflict_error", "The request conflicts with another request in progress."),
    413: ("request_too_large", "Request exceeds the maximum size"),
    422: ("invalid_request_error", "Unprocessable request."),
    429: (
        "rate_limit_error",
        "This request would exceed the rate limit for your organization of 50,000 input tokens per minute.",
    ),
    500: ("api_error", "Internal server error"),
    502: ("api_error", "Bad gateway"),
    503: ("api_error", "Service unavailable"),
    504: ("timeout_error", "Request timed out."),
    529: ("overloaded_error", "Overloaded"),
}
_ANTHROPIC_RETRY = frozenset({408, 409, 429, 500, 502, 503, 504, 529})

_INVALID = "invalid_request_error"
_OPENAI: Mapping[int, tuple[str, str | None, str]] = {
    400: (_INVALID, None, "We could not parse the JSON body of your request."),
    401: (_INVALID, "invalid_api_key", "Incorrect API key provided."),
    402: (_INVALID, "billing_not_active", "Your account is not active, please check your billing details."),
    403: (_INVALID, "unsupported_country_region_territory", "Country, region, or territory not supported"),
    404: (_INVALID, None, "Invalid URL"),
    408: (_INVALID, None, "Request timed out."),
    409: (_INVALID, None, "The resource was changed by another request."),
    413: (_INVALID, None, "Maximum content size limit exceeded."),
    422: (_INVALID, None, "Unprocessable entity."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached on requests per min (RPM). Please try again in 1s."),
    500: ("server_error", "server_error", "The server had an error while processing your request. Sorry about that!"),
    502: ("server_error", None, "Bad gateway."),
    503: ("server_error", "overloaded", "The engine is currently overloaded, please try again later."),
    504: ("server_error", None, "Gateway timeout."),
    529: ("server_error", None, "The server is overloaded."),
}


@dataclass(slots=True)
class Refusal(Exception):  # noqa: N818 - it is a reply, not a defect of the program
    """Reply that is an error: raised by validation, written by the server."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    def payload(self, request_id: str) -> tuple[bytes, str]:
        """Body and content type; Anthropic's bodies name the request."""
        if isinstance(self.body, str):
            return self.body.encode(), "text/plain"
        body = self.body
        if isinstance(body, dict) and body.get("type") == "error":
            body = {**body, "request_id": request_id}
        return json.dumps(body).encode(), "application/json"


def anthropic_error(status: int, message: str | None = None, *, kind: str | None = None) -> Refusal:
    """Return an error of the Anthropic API."""
    type_, text = _ANTHROPIC.get(status, ("api_error", "Unexpected error"))
    headers = {"x-should-retry": "true" if status in _ANTHROPIC_RETRY else "false"}
    return Refusal(status, {"type": "error", "error": {"type": kind or type_, "message": message or text}}, headers)


def openai_error(
    status: int,
    message: str | None = None,
    *,
    kind: str | None = None,
    code: str | None = None,
    param: str | None = None,
) -> Refusal:
    """Return an error of the OpenAI API."""
    type_, default_code, text = _OPENAI.get(status, ("server_error", None, "Unexpected error"))
    error = {
        "message": message or text,
        "type": kind or type_,
        "param": param,
        "code": code if code is not None or message is not None else default_code,
    }
    return Refusal(status, {"error": error})


def default_refusal(provider: ProviderName, status: int) -> Refusal:
    """Return the provider's usual error body for a status."""
    return anthropic_error(status) if provider == "anthropic" else openai_error(status)


def insufficient_quota() -> Refusal:
    """429 for want of money at OpenAI: no wait helps."""
    return openai_error(
        429,
        "You exceeded your current quota, please check your plan and billing details. For more information on this "
        "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
        kind="insufficient_quota",
        code="insufficient_quota",
    )


def spend_limit() -> Refusal:
    """429 for want of money at Anthropic: the monthly cap of the tier."""
    refusal = anthropic_error(429, "Your organization has reached its enforced spend limit for this month.")
    refusal.body["error"]["details"] = {"error_code": "enforced_spend_limit_reached"}
    refusal.headers = {"x-should-retry": "false"}
    return refusal


def request_too_large(provider: ProviderName) -> Refusal:
    """429 for a request larger than a whole minute's allowance: the same request never succeeds."""
    if provider == "anthropic":
        refusal = anthropic_error(
            429,
            "This request would exceed your organization's maximum usage increase rate for input tokens per minute.",
        )
        refusal.headers = {"x-should-retry": "false"}
        return refusal
    return openai_error(
        429,
        "Request too large for this model in organization org-simulated on tokens per min (TPM): Limit 30000, "
        "Requested 2500013. The input or output tokens must be reduced in order to run successfully. Visit "
        "https://platform.openai.com/account/rate-limits to learn more.",
        kind="tokens",
        code="rate_limit_exceeded",
    )


PRESETS: Mapping[str, Callable[[ProviderName], Refusal]] = {
    "out_of_money": lambda provider: insufficient_quota() if provider == "openai" else spend_limit(),
    "request_too_large": request_too_large,
    "overloaded": lambda provider: default_refusal(provider, 529 if provider == "anthropic" else 503),
}
"""Refusals that share a status with others and differ in their words."""

PROXY_503 = "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
