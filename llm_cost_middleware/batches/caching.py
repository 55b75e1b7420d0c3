"""Caching inside a batch: many requests of one batch often begin alike, with the same tools and system prompt.

Requests of a batch are processed over up to a day, many at a time, so an entry of five minutes is often gone and often
not there yet: the provider advises an hour, and tells of hits in 30 to 98 % of the requests ("Using prompt caching with
Message Batches"). An hour is asked for where that pays at the middle of the two.
"""

from __future__ import annotations

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.lifecycle.state import RoutedCall
from llm_cost_middleware.prompt_cache.digests import Boundary
from llm_cost_middleware.prompt_cache.plan import CachePlan, CachePrices
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CacheBreakpoint

HITS_PERCENT = 64
"""The middle of 30 and 98."""
_TTL = "1h"


def hour_pays(prices: CachePrices, requests: int) -> bool:
    """Whether a prefix that many requests of a batch share costs less with a mark of an hour than without any."""
    write = prices.write.get(_TTL)
    if write is None or requests < 2:  # noqa: PLR2004 - one shares with nobody
        return False
    reads = HITS_PERCENT * (requests - 1)  # in hundredths: the first of them has nothing to read
    writes = 100 * requests - reads
    return reads * prices.read + writes * write < 100 * requests * prices.uncached


def prefix_of(call: RoutedCall) -> bytes:
    """What the prefix of tools and system prompt is known by; empty where there is none worth a cache."""
    end = _end_of_prefix(call)
    return b"" if end is None else end.fingerprint


def shared_plan(flow: CallFlow, call: RoutedCall, requests: int) -> CachePlan | None:
    """The plan of a request whose prefix so many requests of its batch share; ``None`` where no mark pays."""
    end, target = _end_of_prefix(call), call.target.plain
    if end is None or call.layout is None or call.layout.callers:
        return None
    ability = get_provider(target.provider).cache_capabilities(target.model)
    if ability.style != "explicit" or end.tokens < ability.min_tokens or _TTL not in ability.ttls:
        return None
    try:
        prices = flow.stages.cache.prices(target, call.request.prices)
    except PriceNotFoundError:
        return None
    if flow.settings.observe or not hour_pays(prices, requests):
        return None
    return CachePlan((CacheBreakpoint(end.ref, _TTL),), reason=f"{requests} requests of the batch begin with it")


def _end_of_prefix(call: RoutedCall) -> Boundary | None:
    if call.layout is None:
        return None
    ends = (one for one in reversed(call.layout.boundaries) if one.ref.section != "messages" and one.markable)
    return next(ends, None)
