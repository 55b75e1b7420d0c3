"""Prompt-cache rules at Bedrock: the model's own lengths, marks as cache points, an hour from Claude 4.5 on.

Source: User Guide, "Prompt caching": at most four cache points, the shortest prefixes (as at home), and the models that
keep entries for an hour.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from llm_cost_middleware.platforms.bedrock.names import is_before_4_5, parse
from llm_cost_middleware.provider import CacheCapabilities
from llm_cost_middleware.providers import anthropic


@cache
def cache_capabilities(model: str) -> CacheCapabilities:
    """The cache rules of a model by its name here; style ``none`` for anything else."""
    served = parse(model)
    if served is None:
        return CacheCapabilities(style="none")
    own = anthropic.PROVIDER.cache_capabilities(served.model)
    return replace(own, ttls=("5m",)) if is_before_4_5(served.model) else own
