"""Classification of a failure: its kind, whether a retry can help, and whether the attempt was billed.

Order of authority: a decisive exception class; the provider's rules for its codes and messages; the HTTP status; an
exception class that merely stands for a status. ``x-should-retry`` overrides whether to retry. Whether the attempt was
billed follows from how far it got.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from llm_cost_middleware.platform import PLATFORMS
from llm_cost_middleware.provider import Billed, ErrorRule, Failure, FailureKind
from llm_cost_middleware.providers import NAMES, for_each_provider, get_provider
from llm_cost_middleware.retry.exception_rules import EXCEPTION_RULES, ExceptionRule, is_neutral
from llm_cost_middleware.retry.facts import FailureFacts, read_exception, read_response
from llm_cost_middleware.sentences import Sentence

_K = FailureKind

RETRYABLE = frozenset(
    {_K.RATE_LIMITED, _K.OVERLOADED, _K.SERVER_ERROR, _K.CONNECTION, _K.TIMEOUT, _K.INTERRUPTED_STREAM, _K.CONFLICT}
)
"""Kinds that may be gone when the request is repeated."""

_BY_STATUS: Mapping[int, FailureKind] = {
    400: _K.INVALID_REQUEST,
    401: _K.AUTHENTICATION,
    402: _K.QUOTA_EXHAUSTED,
    403: _K.PERMISSION,
    404: _K.NOT_FOUND,
    408: _K.TIMEOUT,
    409: _K.CONFLICT,
    413: _K.REQUEST_TOO_LARGE,
    429: _K.RATE_LIMITED,
    499: _K.CANCELLED,  # nginx: the client closed the connection
    501: _K.INVALID_REQUEST,  # unlike other 5xx, asking again does not help
    504: _K.TIMEOUT,
    524: _K.TIMEOUT,  # Cloudflare: the origin did not answer in time
    529: _K.OVERLOADED,  # Anthropic's
}
_MAYBE_BILLED = frozenset({499, 502, 504, 520, 524})
"""Statuses of a gateway that had reached the provider and lost the connection: the call may have been served."""
_ANY = "*"
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def classify_error(exc: BaseException, *, provider: str | None = None, now: float | None = None) -> Failure:
    """Classify an exception of any SDK, host or transport. No SDK is imported, and nothing is raised.

    Args:
        exc: The exception.
        provider: The provider that was called; ``None``: read it from the exception.
        now: Unix time; see ``read_exception``.
    """
    try:
        facts = read_exception(exc, provider=provider, now=now)
    except Exception:  # noqa: BLE001  # an exception whose attributes raise must still be booked
        facts = FailureFacts(provider=provider, exception_names=(f"{type(exc).__module__}.{type(exc).__qualname__}",))
    return classify(facts)


def classify_response(
    provider: str, status: int, headers: Mapping[str, str], body: Any, *, now: float | None = None
) -> Failure:
    """Classify an error response.

    Args:
        provider: ``anthropic`` or ``openai``.
        status: The HTTP status; 200 for an error inside a stream, or an answer whose state is ``failed``.
        headers: Names in any case.
        body: A JSON object, or JSON, SSE or plain text.
        now: Unix time; see ``read_exception``.
    """
    return classify(read_response(provider, status, headers, body, now=now))


def classify(facts: FailureFacts) -> Failure:
    """Classify facts."""
    name, named = _decisive_rule(facts.exception_names)
    answered = _provider_rule(facts) if named is None or facts.status is not None else None
    rule = None if named is not None else answered
    if named is not None:
        kind, why = named.kind, name
    elif rule is not None:
        kind, why = rule.kind, "the provider's code or message"
    elif facts.local:
        kind, why = _K.UNKNOWN, "where it failed, before anything was sent"
    elif facts.status is not None and (by_status := _of_status(facts.status)) is not None:
        kind, why = by_status, "the status"
    else:
        name, named = _fallback_rule(facts.exception_names)
        kind, why = (named.kind, name) if named is not None else (_K.UNKNOWN, "")
    if facts.answered and kind in {_K.CONNECTION, _K.TIMEOUT}:
        kind = _K.INTERRUPTED_STREAM
    retryable = _first(
        facts.should_retry,
        rule.retryable if rule is not None else None,
        named.retryable if named is not None else None,
        kind in RETRYABLE,
    )
    # a host's class says what it is, and nothing of the bill
    stated = next((row.billed for row in (named, answered) if row is not None and row.billed is not None), None)
    billed = _billed(facts, kind) if stated is None else stated
    # Names alone: the provider's message may quote the prompt or a key.
    names = tuple([value for value in dict.fromkeys((facts.type, facts.code)) if _NAME.fullmatch(value)])
    named_by_status = facts.status is not None and kind is not _K.UNKNOWN  # a 200 does not say what went wrong
    error = facts.exception_names[0] if facts.exception_names and not named_by_status else ""
    told: Sentence = (_reason, facts.provider or "", facts.status, names, error, facts.should_retry, kind, why)
    return Failure(kind, retryable, facts.retry_after, billed, told)


# The caches here and in ``facts`` bring a classification from 17 µs to 8: failures repeat, and come in bursts.
@lru_cache(maxsize=1024)
def _decisive_rule(names: tuple[str, ...]) -> tuple[str, ExceptionRule | None]:
    for name in names:
        rule = EXCEPTION_RULES.get(name)
        if rule is not None and rule.decisive:
            return name, rule
    return "", None


def _fallback_rule(names: tuple[str, ...]) -> tuple[str, ExceptionRule | None]:
    for name in names:
        rule = EXCEPTION_RULES.get(name)
        if rule is not None and not is_neutral(name):
            return name, rule
    return "", None


def _provider_rule(facts: FailureFacts) -> ErrorRule | None:
    """Return the first matching rule of the provider; of any provider where it is unknown."""
    for name in (facts.provider,) if facts.provider in NAMES or facts.provider in PLATFORMS else NAMES:
        rows = _rules_by_code(name)
        found: list[tuple[int, ErrorRule]] = [
            row for code in (facts.type, facts.code, _ANY) for row in rows.get(code, ())
        ]
        found.sort()
        for _, rule in found:
            if rule.statuses and facts.status not in rule.statuses:
                continue
            if rule.message and rule.message not in facts.message.lower():
                continue
            return rule
    return None


@lru_cache(maxsize=16)
def _rules_by_code(name: str) -> Mapping[str, list[tuple[int, ErrorRule]]]:
    """Return a provider's rules with their place in the table, by the code they match."""
    rows: dict[str, list[tuple[int, ErrorRule]]] = {}
    for place, rule in enumerate(get_provider(name).error_rules):
        for code in rule.codes or (_ANY,):
            rows.setdefault(code, []).append((place, rule))
    return rows


def _of_status(status: int) -> FailureKind | None:
    kind = _BY_STATUS.get(status)
    if kind is not None:
        return kind
    if 400 <= status < 500:  # noqa: PLR2004  # the classes of RFC 9110
        return _K.INVALID_REQUEST
    return _K.SERVER_ERROR if status >= 500 else None  # noqa: PLR2004  # same


def _billed(facts: FailureFacts, kind: FailureKind) -> Billed:
    """Return whether the attempt was billed: not for an error response, nor unsent; otherwise unknown."""
    if facts.answered or kind is _K.CANCELLED:
        return "unknown"
    if facts.status is None:
        return "no" if facts.sent is False else "unknown"
    gateway = facts.status in _MAYBE_BILLED and not (facts.type or facts.code)
    return "unknown" if gateway else "no"


def _first(*values: bool | None) -> bool:
    return next(value for value in values if value is not None)


def _reason(
    provider: str, status: int | None, names: tuple[str, ...], error: str, should_retry: bool | None,
    kind: FailureKind, why: str,
) -> str:  # fmt: skip
    answered = f"status {status}" if status is not None else ""
    wished = f"x-should-retry {str(should_retry).lower()}" if should_retry is not None else ""
    known = f"{kind} by {why}" if why else kind
    return f"{', '.join(filter(None, (provider, answered, *names, error, wished)))}: {known}"


@for_each_provider
def _forget(provider: str) -> None:
    """Failures that were classified before a provider was known are classified anew."""
    del provider
    _decisive_rule.cache_clear()
