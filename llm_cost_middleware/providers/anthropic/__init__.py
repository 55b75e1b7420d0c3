"""Anthropic: its usage, requests, errors and prompt cache, gathered into one ``Provider``."""

from __future__ import annotations

from llm_cost_middleware.provider import Provider
from llm_cost_middleware.providers.anthropic.cache import billable_cache_writes, cache_capabilities
from llm_cost_middleware.providers.anthropic.errors import ERROR_RULES, read_error
from llm_cost_middleware.providers.anthropic.request import read_request
from llm_cost_middleware.providers.anthropic.usage import AnthropicStreamReader, read_usage
from llm_cost_middleware.providers.anthropic.write import CACHE_FIELDS, write_prompt, write_request

PROVIDER = Provider(
    name="anthropic",
    model_prefixes=("claude",),
    domains=("anthropic.com", "claude.com"),
    endpoints=("messages",),
    write_prompt=write_prompt,
    read_usage=read_usage,
    read_request=read_request,
    write_request=write_request,
    new_stream_reader=AnthropicStreamReader,
    read_error=read_error,
    error_rules=ERROR_RULES,
    cache_capabilities=cache_capabilities,
    cache_fields=CACHE_FIELDS,
    default_write_ttl="5m",
    billable_cache_writes=billable_cache_writes,
    tokens_per_byte=2.0,
    tokens_per_message=16,
    tokens_for_tools=600,
    charges_tool_calls=False,  # web searches are counted by the usage
    count_fields=("messages", "system", "tools", "tool_choice", "thinking"),  # those that every version of the SDK has
)
