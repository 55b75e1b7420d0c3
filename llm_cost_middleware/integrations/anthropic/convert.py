"""The anthropic SDK, as data: what of it is governed, and how an attempt is written into a body."""

from __future__ import annotations

from llm_cost_middleware.prompt_cache.breakpoints import render_anthropic
from llm_cost_middleware.providers.anthropic.usage import StreamReader
from llm_cost_middleware.request import Attempt, Endpoint
from llm_cost_middleware.sdk import Api
from llm_cost_middleware.sdk.api import Body


def render(body: Body, attempt: Attempt, endpoint: Endpoint) -> Body:
    """A body with the attempt's model, output cap and cache marks. ``body`` is not changed."""
    del endpoint  # there is one
    sent = dict(body) if attempt.cache_plan is None else render_anthropic(body, attempt.cache_plan)
    sent["model"] = attempt.target.model
    if attempt.max_tokens is not None:
        sent["max_tokens"] = attempt.max_tokens
    return sent


API = Api(
    provider="anthropic",
    clients=frozenset({"Anthropic", "AsyncAnthropic"}),
    endpoints={"/v1/messages": "messages"},
    methods={
        "messages": ("create", "stream", "parse"),
        "messages.batches": ("create",),
        "beta.messages": ("create", "stream", "parse", "tool_runner"),
        "beta.messages.batches": ("create",),
    },
    ungoverned={
        "/v1/complete": "use messages.create",
        "/v1/sessions": "sessions run model calls of their own; give the workspace a spend limit",
    },
    render=render,
    new_reader=StreamReader,
    surplus=lambda _: None,
)
