"""The providers, one package each. Nothing here knows a host or an SDK.

A new provider is one package that fills in a ``Provider``, and one line in ``NAMES``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from llm_cost_middleware.cache_marks import CacheFields, strip_cache_fields
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.provider import Provider

NAMES = ("anthropic", "openai")


@cache
def get_provider(name: str) -> Provider:
    """The rules of a provider by its name. Raises ``ConfigurationError`` for a name that is not one of ``NAMES``."""
    if name not in NAMES:
        raise ConfigurationError(f"unknown provider {name!r}; known are {', '.join(NAMES)}")
    provider: Provider = import_module(f"{__name__}.{name}").PROVIDER
    return provider


@cache
def foreign_cache_fields(name: str) -> tuple[CacheFields, ...]:
    """The cache fields of every other provider, which this one refuses."""
    return tuple(get_provider(other).cache_fields for other in NAMES if other != name)


def strip_foreign_cache_fields(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The body without the cache fields of other providers than ``name``.

    For hosts whose messages may go to any provider. A body that the caller wrote for one SDK is left as it is: behind
    its address may stand a gateway that understands more. ``body`` is not changed.
    """
    return strip_cache_fields(body, foreign_cache_fields(name))
