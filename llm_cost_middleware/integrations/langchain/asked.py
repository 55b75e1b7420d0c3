"""What a request asked for, where LangChain's figures of its answer do not show it: it is taken at its dearest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from msgspec import structs

from llm_cost_middleware.pricing.bound import measure
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.providers.openai.answers import SEARCH, search_fee
from llm_cost_middleware.request import CallRequest
from llm_cost_middleware.usage import TokenUsage, UsageReport
from llm_cost_middleware.wire import as_mapping

_TERMS = (("service_tier", "service_tier"), ("speed", "speed"), ("geo", "inference_geo"))
"""Fields of a reading that decide a price, each with the parameter that asks for it."""
_NESTED = ("model_kwargs", "extra_body")
_USUAL = frozenset({"auto", "default", "standard", "standard_only", "global"})
_LIFETIMES = ("5m", "30m", "1h", "12h")
"""Of cache writes, the cheapest first."""
_PLANNED = False
"""Marks that a plan may add: none, the request was sent as it was."""
_SEARCHED = "a search that an answer shows as a block is counted, whether it was billed or not"


def with_own_terms(arguments: Mapping[str, Any], serialized: Any) -> Mapping[str, Any]:
    """The arguments of a call with the terms among its model's own settings, which LangChain shows elsewhere or nested.

    Args:
        arguments: As a callback is shown them.
        serialized: The model as a callback is shown it, without its secrets.
    """
    settings = as_mapping(as_mapping(serialized).get("kwargs"))
    sources = (
        arguments,
        settings,
        *(as_mapping(given.get(name)) for given in (arguments, settings) for name in _NESTED),
    )
    found = {
        name: value
        for _, name in _TERMS
        if (value := next((of[name] for of in sources if of.get(name)), None)) is not None
    }
    return arguments if all(arguments.get(name) == value for name, value in found.items()) else {**arguments, **found}


def with_asked(reading: UsageReport, request: CallRequest, *, unsplit: int, searched: int) -> UsageReport:
    """A reading of LangChain's figures, with every surcharge that the request asked for and they do not show.

    Args:
        reading: As LangChain reports it.
        request: The call.
        unsplit: Tokens that were written to a cache without a word about their lifetime, counted at the default.
        searched: Searches of the provider among the blocks of the answer, where its usage names none.
    """
    if not reading.items:
        return reading
    rules, doubts, terms = get_provider(request.provider), list[str](), dict[str, Any]()
    for field, name in _TERMS:
        asked = request.params.get(name)
        if getattr(reading, field) is None and isinstance(asked, str) and asked not in _USUAL:
            terms[field] = asked
            doubts.append(f"LangChain does not say whether {name}={asked} was granted: priced as asked for")
    item = reading.items[0]
    usage = item.usage
    if unsplit:
        usual = rules.default_write_ttl
        possible = (usual, *rules.billable_cache_writes(request, measure(request).marks, _PLANNED))
        dearest = max(possible, key=_LIFETIMES.index)
        if dearest != usual:
            usage = _moved(usage, f"cache_write_{usual}", f"cache_write_{dearest}", unsplit)
            doubts.append(f"LangChain does not say how long cache writes live: priced at {dearest}")
    if searched and not usage.web_searches:
        usage = replace(usage, web_searches=searched)
        doubts.append(_SEARCHED)
    calls = dict(reading.tool_calls or {})
    if SEARCH in calls:
        count = calls.pop(SEARCH)
        calls[search_fee(tool.kind for tool in request.server_tools)] = count
    return structs.replace(reading,
        items=(item._replace(usage=usage), *reading.items[1:]), tool_calls=calls or None,
        doubts=(*reading.doubts, *doubts), **terms,
    )  # fmt: skip


def _moved(usage: TokenUsage, source: str, target: str, tokens: int) -> TokenUsage:
    """A usage with tokens of one bucket in another."""
    moved = {source: getattr(usage, source) - tokens, target: getattr(usage, target) + tokens}
    return replace(usage, **moved)
