"""Usage of Anthropic's responses, in whatever form they come: objects, text, streams."""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.providers.anthropic.answers import read_answer, read_batch
from llm_cost_middleware.providers.anthropic.streams import AnthropicStreamReader
from llm_cost_middleware.usage import UsageReport
from llm_cost_middleware.wire import looks_like_sse, parse

_NAME = "anthropic"


def read_usage(response: Any) -> UsageReport:
    """The usage that a response reports.

    Args:
        response: A JSON object of ``messages``, ``messages/batches``, ``count_tokens`` or the OpenAI-compatible
            endpoint, a batch's result line or a list of them, JSON or SSE text, or the SDK's object.

    Raises:
        UnreadableUsageError: A count that is not one, or broken JSON.
    """
    if isinstance(response, str | bytes | bytearray):
        if looks_like_sse(response):
            reader = AnthropicStreamReader()
            reader.feed(response)
            return reader.reading()
        response = parse(response, _NAME)
    if isinstance(response, list | tuple):
        return read_batch(response)
    return read_answer(response)


__all__ = ["AnthropicStreamReader", "read_usage"]
