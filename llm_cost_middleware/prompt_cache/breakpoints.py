"""Cache plans rendered on copies of provider-shaped bodies, by endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.providers import strip_foreign_cache_fields as strip_foreign_marks
from llm_cost_middleware.providers.anthropic.write import write_marks as _write_anthropic
from llm_cost_middleware.providers.openai.write import write_marks as _write_openai
from llm_cost_middleware.request import CacheDirectives

__all__ = ["render_anthropic", "render_openai_chat", "render_openai_responses", "strip_foreign_marks"]


def render_anthropic(body: Mapping[str, Any], plan: CacheDirectives) -> dict[str, Any]:
    """The body of a request to ``messages`` with the plan's marks. The body is not changed."""
    out = dict(body)
    _write_anthropic(out, plan, "messages")
    return out


def render_openai_chat(body: Mapping[str, Any], plan: CacheDirectives, *, for_provider: str) -> dict[str, Any]:
    """The body of a chat with the plan's marks, for a model of ``for_provider``. The body is not changed."""
    out = dict(body)
    (_write_anthropic if for_provider == "anthropic" else _write_openai)(out, plan, "chat.completions")
    return out


def render_openai_responses(body: Mapping[str, Any], plan: CacheDirectives) -> dict[str, Any]:
    """The body of a request to ``responses`` with the plan's marks. The body is not changed."""
    out = dict(body)
    _write_openai(out, plan, "responses")
    return out
