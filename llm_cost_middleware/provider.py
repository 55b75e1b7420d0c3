"""What a provider is, to the rest of the package: its requests read and written, its usage, errors and cache rules.

``providers/`` holds one package a provider, each of which fills in one ``Provider``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol

from llm_cost_middleware.cache_marks import CacheFields
from llm_cost_middleware.request import Attempt, CallRequest, Endpoint
from llm_cost_middleware.sentences import told_when_read, unread
from llm_cost_middleware.usage import UsageReport


class FailureKind(StrEnum):
    """Why a call failed, in the field's words."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    INTERRUPTED_STREAM = "interrupted_stream"
    QUOTA_EXHAUSTED = "quota_exhausted"
    SPEND_LIMIT = "spend_limit"
    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_OVERFLOW = "context_overflow"
    REQUEST_TOO_LARGE = "request_too_large"
    CONTENT_POLICY = "content_policy"
    # 409: the request met another one; it may be sent again as it is.
    CONFLICT = "conflict"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


Billed = Literal["no", "yes", "unknown"]


@told_when_read("reason")
@dataclass(frozen=True, slots=True)
class Failure:
    """What a failure means: whether a retry can help, when, and whether the attempt was billed."""

    kind: FailureKind
    retryable: bool
    retry_after: float | None
    """Seconds that the provider asks to wait, if it names any."""
    billed: Billed
    """``no``: void the reservation. ``yes``: usage is known or a bill is certain. ``unknown``: book the reservation."""
    reason: str
    """One sentence: what was seen, and which rule decided."""

    def changed(self, **changes: Any) -> Failure:
        """The same with other fields; a reason that nobody has read stays unread."""
        return replace(self, **{"reason": unread(self, "reason"), **changes})


class ErrorRule(NamedTuple):
    """One row of a provider's error table. The first row that matches decides; empty fields match anything."""

    kind: FailureKind
    statuses: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()
    """The provider's ``error.type`` or ``error.code``."""
    message: str = ""
    """A lower-case text that the message contains."""
    retryable: bool | None = None
    """``None``: by the kind."""
    billed: Billed | None = None
    """``None``: not, as every answer that is an error."""


@dataclass(frozen=True, slots=True)
class CacheCapabilities:
    """What a model's prompt cache can do. Rules of the provider as data; lengths in tokens."""

    style: Literal["none", "explicit", "automatic", "both"]
    """``explicit``: marks of the caller (Anthropic). ``automatic``: every prefix (OpenAI). ``both`` from GPT-5.6 on."""
    min_tokens: int = 0
    max_marks: int = 0
    lookback_blocks: int | None = None
    ttls: tuple[str, ...] = ()
    writes_are_paid: bool = False
    step_tokens: int = 1


class StreamUsageReader(Protocol):
    """The usage of a stream, fed one event at a time."""

    def feed(self, event: Any) -> None:
        """Take note of one event: parsed, as an SDK object, or raw in pieces cut anywhere. Never raises."""
        ...

    def reading(self) -> UsageReport:
        """The usage that the events so far report. Raises ``UnreadableUsageError`` for a count that is none."""
        ...


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's rules, gathered."""

    name: str
    """As in ``NAMES``, in ``provider/model`` and in scopes."""
    model_prefixes: tuple[str, ...]
    """How the ids of its models begin: where a bare id belongs."""
    domains: tuple[str, ...]
    """Where it answers itself; every other address is a gateway's."""
    endpoints: tuple[Endpoint, ...]
    """The shapes of its request bodies; the first is the one to write where nothing else decides."""
    write_prompt: Callable[[str, str], dict[str, Any]]
    """A body of the first endpoint for a system prompt, which may be empty, and a user's text."""
    read_usage: Callable[[Any], UsageReport]
    """A raw JSON object, raw SSE text or bytes, or an SDK object, of any endpoint, to a reading. Never raises anything
    but ``UnreadableUsageError``."""
    read_request: Callable[[Mapping[str, Any], str], CallRequest]
    """A request body and its endpoint to the neutral view."""
    write_request: Callable[[Mapping[str, Any], Attempt, Endpoint], dict[str, Any]]
    """A copy of a request body, in the shape of an endpoint, with an attempt's model, output cap, cache marks and
    stream options. Containers that carry no mark are shared with the caller's body, and none of it is changed."""
    new_stream_reader: Callable[[], StreamUsageReader]
    read_error: Callable[[Any], tuple[str, str, str]]
    """An error body (JSON object or text) to (type, code, message), empty where absent."""
    error_rules: tuple[ErrorRule, ...]
    cache_capabilities: Callable[[str], CacheCapabilities]
    """The cache rules of a model; style ``none`` where it has no cache."""
    cache_fields: CacheFields
    """The request fields that steer the cache; the ones of other providers are foreign to this one."""
    default_write_ttl: str
    """The lifetime of a cache write that is reported without one."""
    billable_cache_writes: Callable[[CallRequest, frozenset[str], bool], tuple[str, ...]]
    """The lifetimes of cache writes that a request can be billed for. Given: the request, the lifetimes of the marks
    that its caller set, and whether a cache plan may add more."""
    tokens_per_byte: float
    """The most tokens that one UTF-8 byte of text can become."""
    tokens_per_message: int
    """The most tokens that a message adds beyond its text."""
    tokens_for_tools: int
    """The most tokens that the presence of tools adds beyond their definitions."""
    charges_tool_calls: bool
    """Fees of its server tools are charged per call; otherwise the usage counts what costs extra."""
    count_fields: tuple[str, ...]
    """The fields of a body of the first endpoint that its SDK's ``count_tokens`` of that endpoint takes beside the
    model; empty where the provider counts nothing for its callers."""
