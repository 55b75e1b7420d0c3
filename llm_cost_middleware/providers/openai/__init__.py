"""OpenAI: its usage, requests, errors and prompt cache, gathered into one ``Provider``."""

from __future__ import annotations

from llm_cost_middleware.provider import Provider
from llm_cost_middleware.providers.openai.cache import billable_cache_writes, cache_capabilities
from llm_cost_middleware.providers.openai.errors import ERROR_RULES, read_error
from llm_cost_middleware.providers.openai.request import read_request
from llm_cost_middleware.providers.openai.usage import OpenAIStreamReader, read_usage
from llm_cost_middleware.providers.openai.write import CACHE_FIELDS, write_prompt, write_request

PROVIDER = Provider(
    name="openai",
    model_prefixes=("gpt", "chatgpt", "o1", "o3", "o4"),
    domains=("openai.com", "openai.azure.com"),
    endpoints=("chat.completions", "responses", "embeddings"),
    write_prompt=write_prompt,
    read_usage=read_usage,
    read_request=read_request,
    write_request=write_request,
    new_stream_reader=OpenAIStreamReader,
    read_error=read_error,
    error_rules=ERROR_RULES,
    cache_capabilities=cache_capabilities,
    cache_fields=CACHE_FIELDS,
    default_write_ttl="30m",
    billable_cache_writes=billable_cache_writes,
    tokens_per_byte=1.0,
    tokens_per_message=8,
    tokens_for_tools=600,
    count_fields=(),
    charges_tool_calls=True,
)
