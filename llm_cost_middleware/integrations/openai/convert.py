"""The openai SDK, as data: what of it is governed, and which chunks its callers did not ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_cost_middleware.integrations.openai.batches import FileBatches
from llm_cost_middleware.integrations.openai.errors import ERRORS
from llm_cost_middleware.integrations.openai.paths import FREE, HELPERS, SOCKETS, UNGOVERNED
from llm_cost_middleware.platform import own_clients, platform_clients
from llm_cost_middleware.sdk_clients import Api
from llm_cost_middleware.sdk_clients.api import Body
from llm_cost_middleware.wire import EMPTY_MAPPING, field_reader


def injected_chunks(body: Body) -> Callable[[Any], bool] | None:
    """The last chunk of a chat, which carries usage and no choice, where the caller did not ask for usage."""
    if "messages" not in body or (body.get("stream_options") or {}).get("include_usage"):
        return None
    return _carries_usage_only


def _carries_usage_only(chunk: Any) -> bool:
    if getattr(chunk, "__dict__", EMPTY_MAPPING).get("choices"):  # every other: a look inside costs least
        return False
    get = field_reader(chunk)
    return not get("choices") and get("usage") is not None


API = Api(
    provider="openai",
    clients=own_clients("openai"),
    endpoints={"/chat/completions": "chat.completions", "/responses": "responses", "/embeddings": "embeddings"},
    methods={
        "chat.completions": ("create", "stream", "parse"),
        "beta.chat.completions": ("create", "stream", "parse"),
        "responses": ("create", "stream", "parse"),
        "batches": ("create",),
        "embeddings": ("create",),
    },
    ungoverned=UNGOVERNED,
    free=FREE,
    helpers=HELPERS,
    errors=ERRORS,
    injected_chunks=injected_chunks,
    batches=FileBatches(),
    sockets=SOCKETS,
    platforms=platform_clients("openai"),
    later={"get": "/responses/*", "post": "/responses/*/cancel"},
)
