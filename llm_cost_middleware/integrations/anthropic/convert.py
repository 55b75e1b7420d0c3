"""The anthropic SDK, as data: what of it is governed."""

from __future__ import annotations

from llm_cost_middleware.integrations.anthropic.batches import MessageBatches
from llm_cost_middleware.integrations.anthropic.errors import ERRORS
from llm_cost_middleware.integrations.anthropic.paths import FREE, HELPERS, UNGOVERNED
from llm_cost_middleware.platform import own_clients, platform_clients
from llm_cost_middleware.sdk_clients import Api

API = Api(
    provider="anthropic",
    clients=own_clients("anthropic"),
    endpoints={"/v1/messages": "messages"},
    methods={
        "messages": ("create", "stream", "parse"),
        "messages.batches": ("create",),
        "beta.messages": ("create", "stream", "parse", "tool_runner"),
        "beta.messages.batches": ("create",),
    },
    ungoverned=UNGOVERNED,
    free=FREE,
    helpers=HELPERS,
    errors=ERRORS,
    injected_chunks=lambda _: None,
    batches=MessageBatches(),
    sockets={},
    platforms=platform_clients("anthropic"),
)
