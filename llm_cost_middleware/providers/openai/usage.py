"""Usage of OpenAI's responses to disjoint buckets."""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.provider import UsageReading


def read_usage(response: Any) -> UsageReading:
    """A raw JSON object, raw SSE text or bytes, or an SDK object to a reading."""
    del response
    return UsageReading()
