"""Answers of embeddings as the providers document them, priced by the model that was called.

Sources, by their title: OpenAI's API reference, "Create embeddings" (usage 8 and 8; the usage API names the model
``text-embedding-ada-002-v2``); learn.microsoft.com, "Generate embeddings for search" (``"model": "ada"``, 7 and 7) and
the REST reference of Azure OpenAI, "Embeddings". List prices: OpenAI's pricing page, USD a million tokens.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from llm_cost_middleware.metering.price import price_answer
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import ModelRef

LIST = {"text-embedding-3-small": "0.02", "text-embedding-3-large": "0.13", "text-embedding-ada-002": "0.10"}
SAMPLES = [
    # provider, what was called, what the answer names, tokens, times the list price
    ("openai", "text-embedding-ada-002", "text-embedding-ada-002", 8, 1),
    ("openai", "text-embedding-ada-002", "text-embedding-ada-002-v2", 9, 1),
    ("openai", "text-embedding-3-small", "text-embedding-3-small", 8, 1),
    ("openai", "text-embedding-3-large", "text-embedding-3-large", 1_000_003, 1),
    ("azure", "global/text-embedding-ada-002", "ada", 7, "1.1"),  # as LiteLLM has it: the dearer list
    ("azure", "eu/text-embedding-ada-002", "ada", 7, "1.1"),
    ("azure", "global/text-embedding-3-small", "text-embedding-3-small", 4, "1.1"),
    ("azure", "swedencentral/text-embedding-3-large", "text-embedding-3-large", 12_345, "1.1"),
]


@pytest.mark.parametrize(("provider", "called", "answered", "tokens", "times"), SAMPLES)
def test_a_sample_is_priced_right(provider, called, answered, tokens, times):
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [-0.009171937, 0.018715322]}],
        "model": answered,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    reading = get_provider(provider).read_usage(body)
    assert (reading.usage.uncached_input, reading.usage.output_tokens, reading.complete) == (tokens, 0, True)
    priced = price_answer(reading, ModelRef(provider, called), Catalogue(), at=1_790_000_000.0)
    listed = Decimal(LIST[called.rpartition("/")[2]]) * Decimal(times) * tokens / 10**6
    assert priced.status == "exact"
    assert priced.cost_usd == listed.quantize(Decimal("1e-9"), rounding="ROUND_CEILING")
