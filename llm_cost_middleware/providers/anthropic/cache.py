"""Prompt-cache rules of Anthropic's models, as data.

Sources: platform.claude.com, "Prompt caching" and "Pricing" (copies of September 2026); the ``claude-api`` skill of
``anthropics/skills``; for the rows marked so, the model map of LiteLLM 1.106.
"""

from __future__ import annotations

from functools import cache

from llm_cost_middleware.provider import CacheAbility

_TTLS = ("5m", "1h")
_MINIMUMS = (
    # Prefix of the model id and the shortest prompt prefix, in tokens, that it caches. Not monotonic over generations.
    # The first row that matches decides. A mark on a shorter prefix is ignored, free of charge: where sources differ
    # or are silent, the smaller figure can cost nothing and the larger would forgo savings.
    ("claude-opus-5-5", 512),  # LiteLLM's map alone
    ("claude-sonnet-5-5", 512),  # LiteLLM's map alone
    ("claude-haiku-5-5", 512),  # LiteLLM's map alone
    ("claude-fable-5", 512),  # 5.2: stated nowhere, taken from 5 and 5.1
    ("claude-mythos-5", 512),  # 5.2: the same
    ("claude-mythos-preview", 2048),
    ("claude-opus-5", 512),
    ("claude-opus-4-8", 1024),
    ("claude-opus-4-7", 2048),
    ("claude-opus-4-6", 4096),
    ("claude-opus-4-5", 4096),
    ("claude-opus-4", 1024),
    ("claude-sonnet-", 1024),
    ("claude-3-7-sonnet", 1024),
    ("claude-3-5-sonnet", 1024),
    ("claude-3-opus", 1024),
    ("claude-haiku-4-5", 4096),
    ("claude-3-5-haiku", 2048),
    ("claude-3-haiku", 2048),
)
_UNKNOWN_MINIMUM = 1024


@cache
def cache_ability(model: str) -> CacheAbility:
    """The cache rules of ``model``: every Claude model takes marks; style ``none`` for anything else."""
    if not model.startswith("claude-"):
        return CacheAbility(style="none")
    return CacheAbility(
        style="marks",
        min_tokens=next((minimum for prefix, minimum in _MINIMUMS if model.startswith(prefix)), _UNKNOWN_MINIMUM),
        max_marks=4,
        lookback_blocks=20,
        ttls=_TTLS,
        writes_are_paid=True,
    )
