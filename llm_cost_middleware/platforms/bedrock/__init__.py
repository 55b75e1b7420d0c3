"""Bedrock: Claude behind Amazon's ids, signatures, errors and Converse, gathered into one ``Platform``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llm_cost_middleware.platform import REGIONAL, Platform
from llm_cost_middleware.platforms.bedrock.cache import cache_capabilities
from llm_cost_middleware.platforms.bedrock.errors import ERROR_RULES, read_error
from llm_cost_middleware.platforms.bedrock.names import (
    ALL_GEOGRAPHIES,
    DOMAINS,
    factor,
    geography,
    has_place,
    parse,
    reached_from,
    region_of,
)
from llm_cost_middleware.platforms.bedrock.usage import BedrockStreamReader, read_usage
from llm_cost_middleware.providers import anthropic
from llm_cost_middleware.request import CallRequest


def _read_request(body: Mapping[str, Any], endpoint: str) -> CallRequest:
    return anthropic.PROVIDER.read_request(body, endpoint)._replace(provider="bedrock")


def _place_of(client: Any) -> str:
    """The region of a client: where ids that name no profile are served."""
    return region_of(getattr(client, "base_url", ""), getattr(client, "aws_region", None))


def _litellm_place(params: Mapping[str, Any], named: str) -> str:
    """As its address says, its parameters, its name, or the variables that LiteLLM reads; a profile says it best."""
    if named and named != REGIONAL and region_of("", named) != named:
        return named
    url = params.get("api_base") or params.get("aws_bedrock_runtime_endpoint")
    url = url or os.environ.get("AWS_BEDROCK_RUNTIME_ENDPOINT")
    sent_to = getattr(getattr(params.get("aws_bedrock_client"), "meta", None), "region_name", None)
    stated = params.get("aws_region_name") or params.get("region_name") or sent_to or named.replace(REGIONAL, "")
    variables = () if "BEDROCK_MANTLE_REGION" in os.environ else ("AWS_REGION_NAME", "AWS_REGION")
    stated = stated or next(filter(None, map(os.environ.get, variables)), "")
    return region_of(url, stated) or named


PLATFORM = Platform(
    name="bedrock",
    provider="anthropic",
    rules=replace(
        anthropic.PROVIDER,
        name="bedrock",
        model_prefixes=(),  # a bare id belongs to the provider itself
        domains=DOMAINS,
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
    geographies=ALL_GEOGRAPHIES,
    has_place=has_place,
    place_of=_place_of,
    reached_from=reached_from,
    batches=False,
    key_env=("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    deploys=False,  # every id can be called; ARNs are named in the configuration
    needs=("botocore",),  # it signs, and reads streams
    packages=("botocore", "boto3", "langchain_aws"),
    litellm_place=_litellm_place,
    litellm=("bedrock", "bedrock_converse", "bedrock_mantle"),
)
