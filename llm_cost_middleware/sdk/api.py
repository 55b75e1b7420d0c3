"""What differs between the two SDKs, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_cost_middleware.request import Endpoint

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """One provider's SDK."""

    provider: str
    """The provider, and the name of the SDK's package."""
    clients: frozenset[str]
    """Its client classes that talk to the provider itself."""
    endpoints: Mapping[str, Endpoint]
    """Paths that are governed."""
    methods: Mapping[str, tuple[str, ...]]
    """Governed methods, by the dotted path of their resource: they take ``extra``."""
    ungoverned: Mapping[str, str]
    """Beginnings of other paths that are billed, and what to do instead of calling them."""
    surplus: Callable[[Body], Callable[[Any], bool] | None]
    """For a streaming body: which chunks its caller did not ask for; ``None``: he gets them all."""
