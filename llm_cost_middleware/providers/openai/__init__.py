"""OpenAI: its usage, requests, errors and prompt cache, gathered into one ``Provider``."""

from __future__ import annotations

from llm_cost_middleware.provider import Provider
from llm_cost_middleware.providers.openai.cache import cache_ability
from llm_cost_middleware.providers.openai.errors import ERROR_RULES, read_error
from llm_cost_middleware.providers.openai.request import read_request
from llm_cost_middleware.providers.openai.usage import read_usage

PROVIDER = Provider(
    name="openai",
    read_usage=read_usage,
    read_request=read_request,
    read_error=read_error,
    error_rules=ERROR_RULES,
    cache_ability=cache_ability,
    tokens_per_byte=1.0,
    tokens_per_message=8,
    tokens_for_tools=600,
)
