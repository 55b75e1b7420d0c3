"""Prompt-cache rules of OpenAI's models, as data."""

from __future__ import annotations

from llm_cost_middleware.provider import CacheAbility


def cache_ability(model: str) -> CacheAbility:
    """The cache rules of ``model``; style ``none`` where it has no cache."""
    del model
    return CacheAbility(style="none")
