"""How a service speaks around its answers: keys, headers, errors. A platform serves a provider's models in its own way.

A provider's own manners are its name; a platform's are registered by name at the frontend, and an ``Exchange`` names
those that it was served by.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from .catalogue import ProviderName
from .faults import Exchange, Fault
from .reading import Ids
from .refusals import Refusal, anthropic_error, openai_error


@dataclass(frozen=True, slots=True)
class Manners:
    """What every service has; a platform overrides what it does otherwise.

    Attributes:
        provider: Whose models answer, and whose words the errors are in.
        name: In ``Exchange.served_by``.
        stream_type: The content type of a stream.
    """

    provider: ProviderName
    name: str = ""
    stream_type: str = "text/event-stream; charset=utf-8"

    def authenticate(self, request: web.Request, exchange: Exchange, raw: bytes) -> str:
        """Return what keeps this caller's caches apart. Raises ``Refusal`` where the credentials are not accepted."""
        del request, raw
        return authenticate(self.provider, exchange.headers)

    def refusal(self, fault: Fault) -> Refusal:
        """Return the reply of a scripted ``status`` fault."""
        return fault.refusal(self.provider)

    def charges(self, fault: Fault) -> bool:
        """Return whether what a scripted ``status`` fault answers with is on the bill all the same."""
        del fault
        return False

    def worded(self, refusal: Refusal) -> Refusal:
        """Return a refusal of the provider's in the words of this service."""
        return refusal

    def headers(self, ids: Ids, took_s: float) -> Mapping[str, str]:
        """Return the headers of every answer; its id is among them, under `id_header`."""
        if self.provider == "anthropic":
            return {"request-id": ids.new("req_011C", 20)} | _ANTHROPIC_LIMITS
        took = {"openai-processing-ms": str(max(1, round(took_s * 1_000)))}
        return {"x-request-id": ids.new("req_", 32)} | _OPENAI_LIMITS | took

    @property
    def id_header(self) -> str:
        """Return the header that names the request."""
        return "request-id" if self.provider == "anthropic" else "x-request-id"


@dataclass(slots=True)
class Services:
    """The manners by name."""

    by_name: dict[str, Manners] = field(
        default_factory=lambda: {"anthropic": Manners("anthropic"), "openai": Manners("openai")}
    )

    def of(self, exchange: Exchange) -> Manners:
        """Return those that serve an exchange."""
        return self.by_name[exchange.served_by or exchange.provider]

    def add(self, manners: Manners) -> Manners:
        """Register a platform's."""
        self.by_name[manners.name] = manners
        return manners


def authenticate(provider: ProviderName, headers: Mapping[str, str]) -> str:
    """Return the API key.

    Raises:
        Refusal: 401 when there is none; 400 when an Anthropic request names no version.
    """
    bearer = headers.get("authorization", "").removeprefix("Bearer ").strip()
    key = headers.get("x-api-key", "") if provider == "anthropic" else ""
    if not (key or bearer):
        if provider == "anthropic":
            raise anthropic_error(401, "x-api-key header is required")
        raise openai_error(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization header using "
            "Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
            kind="invalid_request_error",
        )
    if provider == "anthropic" and "anthropic-version" not in headers:
        raise anthropic_error(400, "anthropic-version: header is required")
    return key or bearer


_ANTHROPIC_LIMITS = {
    f"anthropic-ratelimit-{what}-{part}": value
    for what, limit in (
        ("requests", 4_000),
        ("tokens", 2_400_000),
        ("input-tokens", 2_000_000),
        ("output-tokens", 400_000),
    )
    for part, value in (("limit", str(limit)), ("remaining", str(limit - 1)), ("reset", "2026-11-23T12:00:00Z"))
}
_OPENAI_LIMITS = {
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "30000000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "29999000",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "2ms",
}
