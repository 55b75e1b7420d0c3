"""The providers, one package each. Nothing here knows a host or an SDK.

A new provider is one package that fills in a ``Provider``, and one line in ``NAMES``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

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
