"""OpenAI's ``prompt_cache_key``: requests that share a prefix should meet at the same machine.

Requests are routed by the start of the prompt and the key together; past about fifteen a minute for one pair they spill
over to other machines and miss (developers.openai.com, "Prompt caching"). So a key names the shared prefix, and busy
prefixes are split into shards; a conversation stays in its shard.
"""

from __future__ import annotations

from llm_cost_middleware.prompt_cache.layout import Layout
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics

REQUESTS_PER_KEY = 15.0
"""A minute, as the provider advises."""
_MOST_SHARDS = 1_024


def cache_key(layout: Layout, statistics: PrefixStatistics, now: float) -> str | None:
    """A stable key for the traffic of this request; ``None`` where the caller set one or nothing is shared.

    The number of shards is a power of two, so that growing traffic moves as few conversations as possible.
    """
    root = layout.root
    if not root or layout.params.get("prompt_cache_key"):
        return None
    shards = 1
    rate = statistics.rate(root, now)
    while shards * REQUESTS_PER_KEY < rate and shards < _MOST_SHARDS:
        shards *= 2
    shard = int.from_bytes(layout.conversation[:4], "big") % shards
    return f"{root[:12].hex()}-{shard:x}" if shard else root[:12].hex()
