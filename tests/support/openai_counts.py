"""A simulator that counts OpenAI's input as OpenAI does: a bound that is exact is exact only then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llm_cost_middleware.pricing.vocabulary import tiktoken_encoding
from llm_cost_middleware.simulator import Simulator


@contextmanager
def counting_simulator() -> Iterator[Simulator]:
    """One with the vocabulary of OpenAI's embeddings."""
    encoding = tiktoken_encoding("cl100k_base")
    assert encoding is not None, "LiteLLM's wheel brings it"
    with Simulator(openai_vocabulary=encoding.encode_ordinary) as simulator:
        yield simulator
