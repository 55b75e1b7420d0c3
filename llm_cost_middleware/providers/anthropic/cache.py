"""Prompt-cache rules of Anthropic's models.

Source: platform.claude.com, "Prompt caching" and "Pricing" (copies of September 2026). The shortest prefix that a model
caches is in ``limits/anthropic.toml``.
"""

from __future__ import annotations

from functools import cache

from llm_cost_middleware.limits import find_limits
from llm_cost_middleware.provider import CacheCapabilities
from llm_cost_middleware.request import CallRequest

_TTLS = ("5m", "1h")
_UNKNOWN_MINIMUM = 1024


@cache
def cache_capabilities(model: str) -> CacheCapabilities:
    """The cache rules of ``model``: every Claude model takes marks; style ``none`` for anything else."""
    if not model.startswith("claude-"):
        return CacheCapabilities(style="none")
    return CacheCapabilities(
        style="explicit",
        min_tokens=find_limits("anthropic", model).min_cache_tokens or _UNKNOWN_MINIMUM,
        max_marks=4,
        lookback_blocks=20,
        ttls=_TTLS,
        writes_are_paid=True,
    )


def billable_cache_writes(request: CallRequest, marks: frozenset[str], planned: bool) -> tuple[str, ...]:
    """The lifetimes of writes to be billed: only marks cause them, and a plan or a server tool may add any."""
    if planned or request.server_tools:
        return _TTLS
    return tuple(ttl for ttl in _TTLS if ttl in marks)
