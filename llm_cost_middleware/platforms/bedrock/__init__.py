"""Bedrock: Claude behind Amazon's ids, signatures, errors and Converse, gathered into one ``Platform``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llm_cost_middleware.platform import PROVISIONED, Platform
from llm_cost_middleware.platforms.bedrock.cache import cache_capabilities
from llm_cost_middleware.platforms.bedrock.errors import ERROR_RULES, read_error
from llm_cost_middleware.platforms.bedrock.names import factor, geography, parse
from llm_cost_middleware.platforms.bedrock.usage import BedrockStreamReader, read_usage
from llm_cost_middleware.providers import anthropic
from llm_cost_middleware.request import CallRequest


def _read_request(body: Mapping[str, Any], endpoint: str) -> CallRequest:
    return anthropic.PROVIDER.read_request(body, endpoint)._replace(provider="bedrock")


def _place_of(client: Any) -> str:
    """The region of a client of GovCloud, which is dearer. Elsewhere ids say all that a price depends on."""
    region = getattr(client, "aws_region", None)
    return region.lower() if isinstance(region, str) and geography(region.lower()) == "us-gov" else ""


def _reached_from(place: str) -> tuple[str, ...]:
    """What a client of GovCloud can call: what is served in its region, or by profiles of the geography."""
    return (place, geography(place), PROVISIONED)


PLATFORM = Platform(
    name="bedrock",
    provider="anthropic",
    rules=replace(
        anthropic.PROVIDER,
        name="bedrock",
        model_prefixes=(),  # a bare id belongs to the provider itself
        domains=("amazonaws.com", "api.aws", "amazonaws.com.cn"),
        read_usage=read_usage,
        read_request=_read_request,
        new_stream_reader=BedrockStreamReader,
        read_error=read_error,
        error_rules=(*ERROR_RULES, *anthropic.PROVIDER.error_rules),  # Mantle's are Anthropic's own
        cache_capabilities=cache_capabilities,
        count_fields=(),  # its SDK's client counts nothing here
    ),
    parse=parse,
    factor=factor,
    geography=geography,
    place_of=_place_of,
    reached_from=_reached_from,
    batches=False,
    key_env=("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    deploys=False,  # every id can be called; ARNs are named in the configuration
    packages=("botocore", "boto3", "langchain_aws"),
    litellm=("bedrock", "bedrock_converse", "bedrock_mantle"),
)
