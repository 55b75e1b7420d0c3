"""Headers of an error response that bear on a retry: how long to wait, whether to retry, and the request's id."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

_NAMES = frozenset({"retry-after", "retry-after-ms", "x-should-retry", "request-id", "x-request-id", "date"})
_RAW_NAMES = {name.encode(): name for name in _NAMES}
_SHOULD_RETRY = {"true": True, "false": False}


def pick_headers(headers: object) -> dict[str, str]:
    """Return the headers that matter by lower-case name, from any client's headers; empty for anything else."""
    raw = getattr(headers, "raw", None)
    if isinstance(raw, list):  # httpx: each look-up by name walks all headers, so one pass over the bytes is cheaper
        return {name: value.decode("latin-1") for key, value in raw if (name := _RAW_NAMES.get(key.lower()))}
    if not isinstance(headers, Mapping):
        return {}
    return {name: str(value) for key, value in headers.items() if (name := str(key).lower()) in _NAMES}


def should_retry(picked: Mapping[str, str]) -> bool | None:
    """Return ``x-should-retry``, by which a provider overrides what its status would mean."""
    return _SHOULD_RETRY.get(picked.get("x-should-retry", "").strip().lower())


def request_id(picked: Mapping[str, str]) -> str | None:
    """Return the request's id under either provider's name for it."""
    return picked.get("request-id") or picked.get("x-request-id")


def retry_after(picked: Mapping[str, str], now: float | None, exc: BaseException | None = None) -> float | None:
    """Return seconds to wait: from ``retry-after-ms``, ``retry-after`` (seconds or a date), or a router's cooldown.

    Args:
        picked: The headers.
        now: Unix time, for a date where there is no ``date`` header.
        exc: The exception; LiteLLM's routers put their cooldown on it.
    """
    if (milliseconds := _number(picked.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = picked.get("retry-after")
    if value is None:
        return _number(getattr(exc, "retry_after", None) or getattr(exc, "cooldown_time", None))
    if (seconds := _number(value)) is not None:
        return seconds
    until = _date(value)
    since = _date(picked.get("date")) or now  # the answer's own date: the two clocks may differ
    return None if until is None or since is None else max(until - since, 0.0)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) and number >= 0 else None


def _date(value: str | None) -> float | None:
    if not value:
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
