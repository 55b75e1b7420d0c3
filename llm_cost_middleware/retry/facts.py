"""Facts of a failure, read from an exception of any host or from a raw response. Nothing is judged here.

LiteLLM rewrites statuses and hides headers, so what it raises is trusted only where the exception it replaced (the
SDK's own, the HTTP error or the socket error) is not chained to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.platform import PLATFORMS, platform_of_packages
from llm_cost_middleware.provider import FailureKind
from llm_cost_middleware.providers import NAMES, for_each_provider, get_provider
from llm_cost_middleware.retry.exception_rules import EXCEPTION_RULES, is_neutral
from llm_cost_middleware.retry.request_phase import failed_before_send, failed_while_streaming, may_pass
from llm_cost_middleware.retry.response_headers import pick_headers, request_id, retry_after, should_retry
from llm_cost_middleware.wire import SSEDecoder, looks_like_sse, parse

_SUCCESS = range(200, 300)
_MAX_CHAIN = 8  # a chain may be a cycle; SDK, host and transport together make five links
_SERVER_ERRORS = 500
_REAL = frozenset({"httpx.HTTPStatusError", "httpx2.HTTPStatusError"})
"""Raised for a status that was received, also where LiteLLM raises a class of its own that derives from it."""
_PROVIDER_BY_PACKAGE: dict[str, str] = {}
_TRANSPORTS = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "aiohttp"})
_BREAKS = frozenset({FailureKind.CONNECTION, FailureKind.TIMEOUT})
_NO_ERROR = ("", "", "")
_JSON = json.JSONDecoder()
_CODE_IN_TEXT = re.compile(r"\bcode='([a-z_]+)'|^([a-z]+(?:_[a-z]+)+): ")
"""LangChain turns a failed OpenAI response into ``ValueError``: "server_error: …" or "ResponseError(code='…', …)"."""


@dataclass(frozen=True, slots=True)
class FailureFacts:
    """Facts of one failure. Texts are empty and the rest ``None`` where unknown."""

    provider: str | None = None
    status: int | None = None
    """HTTP status that the provider sent; never one that a host made up."""
    type: str = ""
    """The provider's ``error.type``."""
    code: str = ""
    """The provider's ``error.code`` or ``error.details.error_code``."""
    message: str = field(default="", repr=False)
    """The provider's message. It may quote the prompt or a key: match it, never store or log it."""
    retry_after: float | None = None
    """Seconds that the provider asks to wait."""
    should_retry: bool | None = None
    """The ``x-should-retry`` header."""
    request_id: str | None = None
    exception_names: tuple[str, ...] = ()
    """Qualified class names over the MRO: of the exception itself first, then of those chained to it."""
    sent: bool | None = None
    """Whether the request was sent."""
    answered: bool = False
    """Whether an answer had begun to arrive."""
    local: bool = False
    """Whether it was not sent because of what it is, so that it never can be."""


def read_response(
    provider: str, status: int, headers: Mapping[str, str], body: Any, *, now: float | None = None
) -> FailureFacts:
    """Read a raw response.

    Args:
        provider: ``anthropic`` or ``openai``.
        status: The HTTP status; 200 for an error inside a stream.
        headers: Names in any case.
        body: A JSON object, or JSON, SSE or plain text.
        now: Unix time, for a ``retry-after`` that is a date where the answer has no ``date`` header.
    """
    found, answered = _decode(body, provider)
    type_, code, message = get_provider(provider).read_error(found)
    picked = pick_headers(headers)
    return FailureFacts(
        provider=provider,
        status=status,
        type=type_,
        code=code,
        message=message,
        retry_after=retry_after(picked, now),
        should_retry=should_retry(picked),
        request_id=request_id(picked),
        sent=True,
        answered=status in _SUCCESS and (answered or not (type_ or code)),
    )


def read_exception(exc: BaseException, *, provider: str | None = None, now: float | None = None) -> FailureFacts:
    """Read an exception of an SDK, a host, a transport or the interpreter.

    Args:
        exc: The exception, with its ``__cause__`` and ``__context__``.
        provider: The provider that was called; ``None``: read it from the exception.
        now: Unix time, for a ``retry-after`` that is a date where the answer has no ``date`` header.
    """
    names: tuple[str, ...] = ()
    status: int | None = None
    confirmed = False
    error = _NO_ERROR
    picked: dict[str, str] = {}
    streamed = unsent = local = False
    link: BaseException | None = exc
    for _ in range(_MAX_CHAIN):
        if link is None:
            break
        own, rewritten, meaningful, breaks, root = _class_of(type(link))  # type: ignore[arg-type]  # mypy: no exception class is Hashable
        names += own
        streamed = streamed or (breaks and failed_while_streaming(link))
        if failed_before_send(link):  # also behind the class that LiteLLM raises in its place
            unsent, local = True, local or not may_pass(link)
        provider = provider or _text(getattr(link, "llm_provider", None)) or root
        response = getattr(link, "response", None)
        aws = _aws_metadata(response)
        headers = (
            getattr(response, "headers", None)
            or getattr(link, "litellm_response_headers", None)
            or aws.get("HTTPHeaders")
        )
        picked = picked or pick_headers(headers)
        found = _error_of(link, provider, attributes=not rewritten)
        if error is _NO_ERROR or ((found[0] or found[1]) and not (error[0] or error[1])):
            error = found
        own_status = _status_of(link, response, aws)
        if rewritten:
            status = status if own_status is None else own_status  # the deeper link is nearer to the provider
            confirmed = confirmed or not _REAL.isdisjoint(own)
        elif own_status is not None or meaningful or error[0] or error[1]:
            # a failed connection has none, whatever status a host invents for it
            status, confirmed = own_status, True
            if own_status is not None or link.__cause__ is None:
                break
        link = _next(link, context=rewritten or not meaningful)
    if status is not None and status >= _SERVER_ERRORS and not (confirmed or error[0] or error[1]):
        status = None  # LiteLLM writes 500 for an answer it cannot use, too: it may have been billed
    return FailureFacts(
        provider=provider,
        status=status,
        type=error[0],
        code=error[1],
        message=error[2],
        retry_after=retry_after(picked, now, exc),
        should_retry=should_retry(picked),
        request_id=request_id(picked),
        exception_names=names,
        sent=True if status is not None else False if unsent else _sent(names),
        answered=streamed or _answered(names, status),
        local=local and status is None,
    )


def _next(link: BaseException, *, context: bool) -> BaseException | None:
    """Return the exception that ``link`` was raised for.

    ``__context__`` may be an unrelated exception that was being handled: it is followed only where ``link`` itself
    means nothing.
    """
    if link.__cause__ is not None:
        return link.__cause__
    original = getattr(link, "original_exception", None)  # LiteLLM's
    if isinstance(original, BaseException) and original is not link:
        return original
    return link.__context__ if context and not link.__suppress_context__ else None


class _Class(NamedTuple):
    """Meaning of the class of an exception."""

    names: tuple[str, ...]
    rewritten: bool
    """Raised by LiteLLM in the place of another exception."""
    meaningful: bool
    """One of its names has a rule that means something."""
    breaks: bool
    """One of its names stands for a connection that failed."""
    provider: str | None


@lru_cache(maxsize=1024)
def _class_of(cls: type[BaseException]) -> _Class:
    names = tuple(f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__[:-1])
    rewritten = names[0].startswith("litellm.")
    roots = () if rewritten else tuple(name.partition(".")[0] for name in names)
    return _Class(
        names,
        rewritten,
        meaningful=any(name in EXCEPTION_RULES and not is_neutral(name) for name in names),
        breaks=any((rule := EXCEPTION_RULES.get(name)) is not None and rule.kind in _BREAKS for name in names),
        provider=next((_PROVIDER_BY_PACKAGE[root] for root in roots if root in _PROVIDER_BY_PACKAGE), None)
        or platform_of_packages(roots),
    )


def _aws_metadata(response: Any) -> Mapping[str, Any]:
    """The status and the headers of an answer as botocore keeps them: in a mapping, where others have an object."""
    metadata = response.get("ResponseMetadata") if isinstance(response, Mapping) else None
    return metadata if isinstance(metadata, Mapping) else {}


def _status_of(link: BaseException, response: Any, aws: Mapping[str, Any]) -> int | None:
    status = getattr(link, "status_code", None) or aws.get("HTTPStatusCode")
    if status is None:
        status = (
            getattr(link, "status", None) if response is None else getattr(response, "status_code", None)
        )  # aiohttp
    return status if type(status) is int else None


def _error_of(link: BaseException, provider: str | None, *, attributes: bool) -> tuple[str, str, str]:
    """Return (type, code, message) of one exception: from its body, else its attributes, else its text."""
    body = getattr(link, "body", None) or (own if isinstance(own := getattr(link, "response", None), Mapping) else None)
    if body:
        found = _read_error(body, provider)
        if found[0] or found[1]:
            return found
    if attributes:
        kind, code = getattr(link, "type", None), getattr(link, "error_code", None) or getattr(link, "code", None)
        if isinstance(kind, str) or isinstance(code, str):
            return _text(kind), _text(code), _text(getattr(link, "message", None)) or str(link)
    words = _text(getattr(link, "message", None)) or str(link)
    start = words.find('{"')
    if start >= 0:
        try:
            embedded, _ = _JSON.raw_decode(words, start)
        except (ValueError, RecursionError):
            embedded = None
        found = _read_error(embedded, provider) if isinstance(embedded, dict) else _NO_ERROR
        if found[0] or found[1]:
            return found
    if type(link) is ValueError and (match := _CODE_IN_TEXT.search(words)) is not None:
        return "", match[1] or match[2], words
    return "", "", words


def _read_error(body: Any, provider: str | None) -> tuple[str, str, str]:
    """Return (type, code, message) of an error body by the rules of its provider, or of the first that can read it."""
    found = _NO_ERROR
    for name in (provider,) if provider in NAMES or provider in PLATFORMS else NAMES:
        found = get_provider(name).read_error(body)
        if found[0] or found[1]:
            return found
    return found


def _decode(body: Any, provider: str) -> tuple[Any, bool]:
    """Return what the provider can read an error from, and whether anything but the error had arrived."""
    if not isinstance(body, str | bytes | bytearray):
        return body, False
    if looks_like_sse(body):
        reader = SSEDecoder()
        events = [*reader.feed(body), *reader.flush()]
        broken = [event for event in events if any(get_provider(provider).read_error(event)[:2])]
        return (broken[-1] if broken else ""), len(events) > len(broken)
    try:
        parsed = parse(body, provider)
    except UnreadableUsageError:
        parsed = None
    if parsed is not None:
        return parsed, False
    return (body if isinstance(body, str) else bytes(body).decode("utf-8", "replace")), False


@lru_cache(maxsize=1024)
def _sent(names: tuple[str, ...]) -> bool | None:
    """Return whether the request was sent, by the class names.

    LiteLLM's transport reports every lost connection as never made, so aiohttp's own class is preferred to it.
    """
    wire = next((at for at, name in enumerate(names) if name.startswith("aiohttp.")), 0)
    return next(
        (rule.sent for name in names[wire:] if (rule := EXCEPTION_RULES.get(name)) and rule.sent is not None), None
    )


@lru_cache(maxsize=1024)
def _answered(names: tuple[str, ...], status: int | None) -> bool:
    """Return whether an answer had begun, by status and class names.

    A transport's exception without an SDK's around it was raised in the middle of a stream: SDKs wrap all others.
    """
    if status is not None and status in _SUCCESS:
        return True
    if any((rule := EXCEPTION_RULES.get(name)) is not None and rule.answered for name in names):
        return True
    return names[0].partition(".")[0] in _TRANSPORTS and _sent(names) is True


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


@for_each_provider
def _add_packages(provider: str) -> None:
    """The packages whose exceptions are a provider's; what was read of them before it was known is read anew."""
    _PROVIDER_BY_PACKAGE.update({f"{prefix}{provider}": provider for prefix in ("", "langchain_")})
    for derived in (_class_of, _sent, _answered):
        derived.cache_clear()
