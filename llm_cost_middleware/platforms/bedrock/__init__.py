"""Bedrock: Claude behind Amazon's ids, signatures, errors and Converse, gathered into one ``Platform``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llm_cost_middleware.platform import Platform
from llm_cost_middleware.platforms.bedrock.cache import cache_capabilities
from llm_cost_middleware.platforms.bedrock.errors import ERROR_RULES, read_error
from llm_cost_middleware.platforms.bedrock.names import factor, geography, parse
from llm_cost_middleware.platforms.bedrock.usage import BedrockStreamReader, read_usage
from llm_cost_middleware.providers import anthropic
from llm_cost_middleware.request import CallRequest


def _read_request(body: Mapping[str, Any], endpoint: str) -> CallRequest:
    return anthropic.PROVIDER.read_request(body, endpoint)._replace(provider="bedrock")


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
        error_rules=ERROR_RULES,
        cache_capabilities=cache_capabilities,
        count_fields=(),  # its SDK's client counts nothing here
    ),
    parse=parse,
    factor=factor,
    geography=geography,
    batches=False,
    key_env=("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    deploys=False,  # every id can be called; ARNs are named in the configuration
    packages=("botocore", "boto3", "langchain_aws"),
    litellm=("bedrock", "bedrock_converse", "bedrock_mantle"),
)
