"""Azure OpenAI: OpenAI's models behind deployments, in places with prices of their own."""

from __future__ import annotations

from dataclasses import replace

from llm_cost_middleware.platform import Platform
from llm_cost_middleware.platforms.azure.clients import (
    deployment_in,
    deployment_of,
    knows_no_stream_usage,
    litellm_deployment,
    litellm_place,
    place_of,
    reached_from,
)
from llm_cost_middleware.platforms.azure.deployed import deployed_at, is_batch_type
from llm_cost_middleware.platforms.azure.errors import ERROR_RULES, read_error
from llm_cost_middleware.platforms.azure.names import parse
from llm_cost_middleware.platforms.azure.places import GEOGRAPHIES, factor, geography, has_place
from llm_cost_middleware.provider import CacheCapabilities
from llm_cost_middleware.providers import openai


def _cache_capabilities(model: str) -> CacheCapabilities:
    served = parse(model)
    return openai.PROVIDER.cache_capabilities(model if served is None else served.model)


PLATFORM = Platform(
    name="azure",
    provider="openai",
    rules=replace(
        openai.PROVIDER,
        name="azure",
        model_prefixes=(),
        domains=("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com", "openai.azure.us"),
        read_error=read_error,
        error_rules=ERROR_RULES,
        cache_capabilities=_cache_capabilities,
    ),
    parse=parse,
    factor=factor,
    geography=geography,
    geographies=GEOGRAPHIES,
    has_place=has_place,
    key_env=("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"),
    takes_plain_clients=True,  # /openai/v1/
    place_of=place_of,
    reached_from=reached_from,
    litellm_deployment=litellm_deployment,
    litellm_place=litellm_place,
    deployed_at=deployed_at,
    is_batch_type=is_batch_type,
    deployment_in=deployment_in,
    deployment_of=deployment_of,
    knows_no_stream_usage=knows_no_stream_usage,
    litellm=("azure", "azure_text"),
)
