"""What else the ``anthropic`` SDK posts, by path: billed without being governed, or free and why.

A test walks every resource of the installed SDK and fails on a path that stands in neither table.
"""

from __future__ import annotations

from llm_cost_middleware.sdk_clients.api import ENDS

_HOSTED = "sessions run model calls of their own; give the workspace a spend limit"

UNGOVERNED = {
    "/v1/complete": "use messages.create",
    "/v1/sessions": _HOSTED,
    "/v1/sessions/*/events": _HOSTED,
    "/v1/deployments": _HOSTED,
    "/v1/deployments/*/run": _HOSTED,
    "/v1/deployments/*/unpause": _HOSTED,
    "/v1/dreams": "dreams run model calls of their own; give the workspace a spend limit",
}

FREE = {
    ENDS: ("**/archive", "**/cancel", "**/pause"),
    "counting tokens is free": ("/v1/messages/count_tokens",),
    "it stores something": ("/v1/files", "/v1/memory_stores", "/v1/memory_stores/**"),
    "it defines something that is billed when it is used": (
        "/v1/agents", "/v1/agents/*", "/v1/deployments/*", "/v1/environments", "/v1/environments/**", "/v1/sessions/*",
        "/v1/sessions/*/resources", "/v1/sessions/*/resources/*", "/v1/skills", "/v1/skills/*/versions",
    ),
    "administration": (
        "/v1/compliance/**", "/v1/organizations/**", "/v1/tunnels", "/v1/tunnels/**", "/v1/user_profiles",
        "/v1/user_profiles/**", "/v1/vaults", "/v1/vaults/**",
    ),
}  # fmt: skip

HELPERS = (
    "beta.environments.work.poller", "beta.environments.work.worker", "beta.messages.stream", "beta.messages.thread",
    "beta.messages.tool_runner", "beta.sessions.events.tool_runner", "beta.webhooks.parse_unverified",
    "beta.webhooks.unwrap", "messages.stream",
)  # fmt: skip
"""Methods without a path of their own: they call the others, or send nothing."""
