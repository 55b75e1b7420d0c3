"""The ``anthropic`` SDK: ``wrap_anthropic``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from llm_cost_middleware.integrations.anthropic.convert import API
from llm_cost_middleware.pipeline import CostPipeline, PipelineSource
from llm_cost_middleware.sdk_clients import govern

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic

    Client = TypeVar("Client", bound=Anthropic | AsyncAnthropic)
else:
    Client = TypeVar("Client")

__all__ = ["wrap_anthropic"]


def wrap_anthropic(client: Client, pipeline: PipelineSource | None = None, *, routed: str = "smart") -> Client:
    """A copy of a client of Anthropic's, Bedrock's or Vertex's whose calls are routed, held, retried and booked.

    Governed: ``messages.create``, ``.stream``, ``.parse``, the same under ``beta.messages`` (tool runners included),
    and all of them through ``with_raw_response`` and ``with_streaming_response``, on copies made by ``with_options``,
    and by hand (``post``, ``request``); ``messages.batches.create`` reserves the sum of its requests' bounds at batch
    price. Not governed (see ``on_ungoverned``): what else is billed (``completions``, ``beta.sessions``,
    ``beta.deployments`` and so on, by the table in ``paths``, which ``llm-cost help methods`` shows), what goes to a
    path that no table knows, and clients of Foundry, AWS and Google Cloud. What costs nothing passes through untouched.
    Under ``[routing] regions`` nothing is posted elsewhere, whatever it costs. A middleware inside the client may send
    a governed request once.

    The client's own timeout is what is sent, and its ``max_retries`` the number of governed retries (its default means
    ``[retry]``). Refusals are ``anthropic.AnthropicError`` too, see ``errors``. A call says more about itself with
    ``extra={"llm_cost": {"user": "42"}}``, which every governed method takes, or inside ``cost_context(...)``; nothing
    of it reaches the provider. Type checkers see the SDK's own signatures, which have no ``extra``: where that matters,
    ``extra_body={"llm_cost": ...}`` does the same.

    Args:
        client: The client. It is not changed; the copy shares its connections.
        pipeline: A pipeline, a configuration for a new one, or ``None`` for the default.
        routed: The model name that is routed among the Claude models of the configured tiers. Any other name is
            called as it is.

    Raises:
        ConfigurationError: It is no client of this SDK, or there is no configuration.
        UnsupportedRequestError: It talks to another platform, and ``on_ungoverned`` is ``deny``.
    """
    return govern(client, CostPipeline.resolve(pipeline), API, routed=routed)
