"""Request bodies of OpenAI to the neutral view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.request import CallRequest


def read_request(body: Mapping[str, Any], endpoint: str) -> CallRequest:
    """A request body, as sent to ``endpoint``, to the neutral view. The body is not changed."""
    del endpoint
    return CallRequest(provider="openai", model=str(body.get("model", "")), messages=())
