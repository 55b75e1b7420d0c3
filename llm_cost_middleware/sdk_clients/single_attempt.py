"""A client of an SDK, or a resource of one, as its owner holds it, that sends each request once.

Retries of the SDK are hidden: each would spend without a reservation. The SDK takes their number from the client, so
what sends is a copy of it, made for each use: a method that somebody replaced on the client or on one of its resources
a moment ago, as unit tests do, is in the copy, and the original is not touched.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.sdk_clients.client import is_governed, ungoverned
from llm_cost_middleware.sdk_clients.middleware import attempting_once
from llm_cost_middleware.unread_counts import drop_unreadable_usage

_METHODS = ("get", "post", "patch", "put", "delete", "get_api_list")
"""What a resource keeps of its client, each under its name with an underscore before it."""


def single_attempt(held: Any, provider: str, pipeline: CostPipeline, transport: Any = None) -> Any:
    """What ``held`` sends, once whatever its middleware does, and answers without a usage where that cannot be read.

    Args:
        held: A client, or a resource such as ``client.chat.completions``. What is neither, a mock say, is returned.
        provider: Whose client it is.
        pipeline: Is told what a middleware changes of a request.
        transport: The HTTP client to send through, instead of the client's own.
    """
    if is_client(held):
        return _client_twin(held, provider, pipeline, transport)
    owner = client_of(held)
    if owner is None:
        return held
    twin = _client_twin(owner, provider, pipeline, transport)
    return type(held)(twin) if is_governed(owner) else _resource_twin(held, owner, twin)


def is_client(thing: Any) -> bool:
    """Whether it is an SDK's client, by what this module needs of one."""
    return isinstance(getattr(thing, "max_retries", None), int | float) and "_client" in getattr(thing, "__dict__", {})


def client_of(held: Any) -> Any:
    """The client itself, or that of a resource; ``None`` of anything else."""
    if is_client(held):
        return held
    owner = getattr(held, "__dict__", {}).get("_client")
    return owner if is_client(owner) else None


def _client_twin(client: Any, provider: str, pipeline: CostPipeline, transport: Any) -> Any:
    plain = ungoverned(client)  # what is governed here must not be governed once more
    made = attempting_once(plain, pipeline)
    twin = copy.copy(plain) if made is plain else made
    twin.max_retries = 0
    drop_unreadable_usage(twin, get_provider(provider))
    if transport is not None:
        twin._client = transport  # noqa: SLF001 - where both SDKs keep it
    _rebind(twin, plain, twin)
    return twin


def _resource_twin(resource: Any, client: Any, twin: Any) -> Any:
    made = copy.copy(resource)
    made._client = twin  # noqa: SLF001 - as above
    for name in _METHODS:
        if getattr(vars(made).get(f"_{name}"), "__self__", None) is client:
            setattr(made, f"_{name}", getattr(twin, name))
    _rebind(made, client, twin)
    return made


def _rebind(made: Any, client: Any, twin: Any) -> None:
    """Let what ``made`` has kept of its resources send through ``twin``."""
    for name, value in list(vars(made).items()):
        if _is_view(value):
            if _is_untouched(value):
                del vars(made)[name]  # made anew when it is asked for, over the copy
        elif value is not twin and getattr(value, "__dict__", {}).get("_client") is client:
            vars(made)[name] = _resource_twin(value, client, twin)


def _is_view(value: Any) -> bool:
    """Whether it is what ``with_raw_response`` and the like return: wrappers of the methods of a resource."""
    return type(value).__name__.endswith(("WithRawResponse", "WithStreamingResponse"))


def _is_untouched(view: Any) -> bool:
    items = [item for name, item in vars(view).items() if not name.startswith("_")]
    return all(
        _is_untouched(item) if _is_view(item) else inspect.ismethod(getattr(item, "__wrapped__", None))
        for item in items
    )
