"""What a bill would have been otherwise: at list price, without the cache, at the model that the caller named.

All in integer pico-dollars (1e-12 USD), from sums of tokens: prices are looked up once for a model, its terms and a
day, and long contexts are priced as short ones, because a sum does not say how long each call was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.rates import Rates
from llm_cost_middleware.providers import provider_of
from llm_cost_middleware.usage import TokenUsage


class Savings(NamedTuple):
    """Pico-dollars; ``None`` where a price is not known. Negative: it cost more."""

    list_price: int | None
    """The same tokens at the standard tier, nothing cached."""
    caching: int | None
    """What reading from caches saved, less what writing to them cost, at the tier that was served."""
    routing: int | None
    """What the model that the caller named would have cost more; 0 where it is the one that answered."""


def savings_of(
    catalogue: Catalogue,
    provider: str,
    model: str,
    usage: TokenUsage,
    *,
    at: float,
    terms: Mapping[str, Any],
    asked: str,
) -> Savings:
    """Return what the tokens of some calls on one model would have cost otherwise.

    Args:
        catalogue: The prices.
        provider: Of the model that answered.
        model: The model that answered.
        usage: The sum of its tokens.
        at: A moment of the day, in seconds since the Unix epoch.
        terms: What else decided the bill: ``service_tier``, ``speed``, ``geo``, ``batch``.
        asked: The model that the callers named, where it is another; it may name its provider.
    """
    given = {name: terms[name] for name in ("service_tier", "speed", "geo", "batch") if terms.get(name)}
    try:
        plain = _uncached(usage)
        standard = catalogue.rates(provider, model, at).picousd(plain, short=True)
        served = catalogue.rates(provider, model, at, **given)
        caching = served.picousd(plain, short=True) - served.picousd(usage, short=True)
    except PriceNotFoundError:
        return Savings(None, None, 0 if not asked else None)
    return Savings(standard, caching, _by_routing(catalogue, provider, served, usage, at, given, asked))


def _by_routing(
    catalogue: Catalogue, provider: str, served: Rates, usage: TokenUsage, at: float, given: dict[str, Any], asked: str
) -> int | None:
    if not asked:
        return 0
    first, slash, rest = asked.partition("/")
    try:
        named = (first, rest) if slash else (provider_of(asked) or provider, asked)
        other = catalogue.rates(*named, at, **given)
        return other.picousd(usage, short=True) - served.picousd(usage, short=True)
    except PriceNotFoundError:
        return None  # a routed name such as ``smart`` has no price to compare with


def _uncached(usage: TokenUsage) -> TokenUsage:
    """The same tokens, none of them read from or written to a cache."""
    cached = usage.cache_read + usage.cache_write
    return TokenUsage(
        uncached_input=usage.uncached_input + cached,
        output=usage.output,
        audio_input=usage.audio_input + usage.audio_cache_read,
        audio_output=usage.audio_output,
        web_searches=usage.web_searches,
    )
