"""The ``openai`` SDK: ``wrap_openai``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from llm_cost_middleware.integrations.openai.convert import API
from llm_cost_middleware.pipeline import CostPipeline, PipelineSource
from llm_cost_middleware.sdk_clients import govern

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

    Client = TypeVar("Client", bound=OpenAI | AsyncOpenAI)
else:
    Client = TypeVar("Client")

__all__ = ["wrap_openai"]


def wrap_openai(client: Client, pipeline: PipelineSource | None = None, *, routed: str = "smart") -> Client:
    """A copy of an ``OpenAI``, ``AzureOpenAI`` or async client whose calls are routed, held, retried and booked.

    Governed: ``chat.completions.create``, ``.stream``, ``.parse``, ``responses.create``, ``.stream``, ``.parse``, and
    all of them through ``with_raw_response`` and ``with_streaming_response``, on copies made by ``with_options``, and
    by hand (``post``, ``request``); ``batches.create`` reserves the sum of its requests' bounds at batch price;
    ``embeddings.create`` is held, retried and booked at the model it names. Not governed (see ``on_ungoverned``): what
    else is billed (``images``, ``decisions``, ``live``, ``beta.agents``, ``responses.compact`` and so on, by the table
    in ``paths``, which ``llm-cost help methods`` shows), what goes to a path that no table knows, clients of Bedrock,
    and websockets: what ``realtime.connect`` and ``responses.connect`` say of usage is booked, ``live`` says nothing
    that has a price. What costs nothing passes through untouched. Under ``[routing] regions`` nothing is posted
    elsewhere, whatever it costs.

    The client's own timeout is what is sent, and its ``max_retries`` the number of governed retries (its default
    means ``[retry]``). Refusals are ``openai.OpenAIError`` too, see ``errors``. Usage is asked for in every chat
    stream; the chunk that carries it reaches only callers who asked for it themselves. A call says more about
    itself with ``extra={"llm_cost": {"user": "42"}}``, which every governed method takes, or inside
    ``cost_context(...)``; nothing of it reaches the provider. Type checkers see the SDK's own signatures, which
    have no ``extra``: where that matters, ``extra_body={"llm_cost": ...}`` does the same.

    Args:
        client: The client. It is not changed; the copy shares its connections.
        pipeline: A pipeline, a configuration for a new one, or ``None`` for the default.
        routed: The model name that is routed among the OpenAI models of the configured tiers. Any other name is called
            as it is.

    Raises:
        ConfigurationError: It is no client of this SDK, or there is no configuration.
        UnsupportedRequestError: It talks to another platform, and ``on_ungoverned`` is ``deny``.
    """
    return govern(client, CostPipeline.resolve(pipeline), API, routed=routed)
