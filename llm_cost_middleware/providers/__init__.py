"""The providers, one package each. Nothing here knows a host or an SDK.

To add a provider:

1. Write a package beside these whose ``PROVIDER`` is a ``Provider``; it has no default for anything.
2. Add a line to ``_PACKAGES``. A provider in a distribution of its own calls ``register`` instead.
3. Give its models limits (``limits/NAME.toml``) and prices: from genai-prices, which is asked for every provider with
   limits, from ``pricing/overlay.toml``, or as ``[prices]`` of a configuration. A call of a model without a price is
   refused.
4. Add one of its models to ``MODELS`` in the test below, and ``tests/unit/providers/test_NAME_errors.py``.

``tests/unit/providers/test_contract.py`` fails for a package without a line, a line without a package, and a provider
that does not read what it writes; ``tests/unit/test_model_tables.py`` for one without limits.
``tests/toy_provider/toy_provider.py`` is a whole one, a page long; ``tests/integrations/test_toy_provider.py`` uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from llm_cost_middleware.cache_marks import CacheFields, strip_cache_fields
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.platform import PLATFORMS, find_platform, maker_of
from llm_cost_middleware.provider import Provider
from llm_cost_middleware.request import Endpoint

_PACKAGES = {
    "anthropic": f"{__name__}.anthropic",
    "openai": f"{__name__}.openai",
}
NAMES = _PACKAGES.keys()
"""The names of the providers, a live view: those here first, then the registered ones."""


def register(name: str, package: str) -> None:
    """Add a provider from another distribution.

    Args:
        name: Its name.
        package: A module with the provider as ``PROVIDER``; it is imported when the provider is first needed.

    Raises:
        ConfigurationError: There is one of this name.
    """
    if name in PLATFORMS:
        raise ConfigurationError(f"there is a platform {name!r} already")
    # registering twice is harmless: a package may do so each time it is imported
    if _PACKAGES.setdefault(name, package) != package:
        raise ConfigurationError(f"there is a provider {name!r} already: {_PACKAGES[name]}")
    for derived in (foreign_cache_fields, foreign_block_keys):  # those of the new one are foreign to all others
        derived.cache_clear()
    for tell in _listeners:
        tell(name)


_listeners: list[Callable[[str], None]] = []


def for_each_provider(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Call a function with the name of every provider, now and when one is registered; usable as a decorator.

    For tables that are made of the providers when their module is imported.
    """
    _listeners.append(tell)
    for name in NAMES:
        tell(name)
    return tell


@cache
def get_provider(name: str) -> Provider:
    """The rules of a provider, or of a platform, by its name. Raises ``ConfigurationError`` for any other name."""
    if (platform := find_platform(name)) is not None:
        return platform.rules
    if name not in NAMES:
        raise ConfigurationError(f"unknown provider {name!r}; known are {', '.join(NAMES)}")
    provider: Provider = import_module(_PACKAGES[name]).PROVIDER
    return provider


def provider_of(model: str) -> str | None:
    """The provider of a bare model id, by its prefix; ``None`` where the prefix decides nothing."""
    return next((name for name in NAMES if model.startswith(get_provider(name).model_prefixes)), None)


def provider_of_endpoint(endpoint: Endpoint) -> Provider:
    """The rules of the provider in whose form an endpoint is written, whichever provider a host sends it on to."""
    return next(get_provider(name) for name in NAMES if endpoint in get_provider(name).endpoints)


@cache
def foreign_cache_fields(name: str) -> tuple[CacheFields, ...]:
    """The cache fields of every other provider, which this one, or the platform of this name, refuses."""
    return tuple(get_provider(other).cache_fields for other in NAMES if other != maker_of(name))


@cache
def foreign_block_keys(name: str) -> frozenset[str]:
    """The keys by which every other provider marks a block."""
    return frozenset(fields.block for fields in foreign_cache_fields(name))


def strip_foreign_cache_fields(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The body without the cache fields of other providers than ``name``.

    For hosts whose messages may go to any provider. A body that the caller wrote for one SDK is left as it is: behind
    its address may stand a gateway that understands more. ``body`` is not changed.
    """
    return strip_cache_fields(body, foreign_cache_fields(name))
