"""Which requests go in which batch: routed, quoted and divided as calls are, before anything is held or sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from msgspec.structs import replace

from llm_cost_middleware.batches.apis import APIS
from llm_cost_middleware.batches.caching import prefix_of, shared_plan
from llm_cost_middleware.batches.limits import LIMITS, split
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.lifecycle.provider_fields import filled
from llm_cost_middleware.lifecycle.state import Quote, RoutedCall
from llm_cost_middleware.platform import maker_of
from llm_cost_middleware.request import EMPTY, Attempt, CallRequest
from llm_cost_middleware.routing.batch_lane import why_no_batch

_NAME_BYTES = 160
"""More than the name and the frame of a request take."""
_CALLERS_TIERS = frozenset({"priority", "flex", "fast"})


class NotForBatchesError(LLMCostError):
    """A request that its host cannot write into a batch: it goes as an ordinary call. Says why."""


class BatchItem(NamedTuple):
    """One request of a host, as the lane sees it."""

    request: CallRequest
    client: Any
    """A plain client of the SDK of its provider."""
    render: Callable[[Attempt], Mapping[str, Any]]
    """The body to send, JSON-shaped, on a copy."""
    deliver: Callable[[Any], Any] = lambda response: response
    """Makes the host's own object of the SDK's response."""
    reach: frozenset[str] = frozenset()
    """What the client can call, as ``HostCall.providers``; empty: all that its provider has."""
    alone: str = ""
    """Why it is not for batches; empty: it may be."""


class Planned(NamedTuple):
    """A request that goes in a batch."""

    place: int
    call: RoutedCall
    quote: Quote
    body: Mapping[str, Any]


@dataclass(slots=True)
class Division:
    """Requests by where they go."""

    batches: list[list[Planned]] = field(default_factory=list)
    """Each is one batch of a provider: of one client, endpoint, model and set of scopes, within its limits."""
    apart: dict[int, str] = field(default_factory=dict)
    """Places of the requests that go as ordinary calls, with the reason."""
    errors: dict[int, Exception] = field(default_factory=dict)
    """Places of the requests that cannot be sent at all."""


def divide(
    flow: CallFlow, items: Sequence[BatchItem], places: Sequence[int], patience_s: float | None
) -> Division:  # fmt: skip
    """Route and quote requests, and divide them into batches. May count tokens; asks the ledger nothing.

    Args:
        flow: Of the pipeline.
        items: All requests.
        places: Those that are to be divided.
        patience_s: Seconds until the answers are wanted.
    """
    division = Division()
    groups: dict[Any, list[tuple[int, RoutedCall]]] = {}
    for place in places:
        request = items[place].request
        reason = items[place].alone or _alone(request)
        if reason:
            division.apart[place] = reason
            continue
        try:
            call = flow.route(flow.attributed(_batched(request)), items[place].reach or frozenset((request.provider,)))
        except LLMCostError as error:
            division.errors[place] = error
            continue
        key = id(items[place].client), request.endpoint, call.target, call.scopes_at(call.target)
        groups.setdefault(key, []).append((place, call))
    for group in groups.values():
        _quote(flow, items, group, patience_s, division)
    return division


def _alone(request: CallRequest) -> str:
    if request.stream:
        return "a batch streams nothing"
    if request.params.get("service_tier") in _CALLERS_TIERS or request.params.get("speed") in _CALLERS_TIERS:
        return "its caller chose a service tier"
    if request.params.get("background"):
        return "its caller asked for an answer in the background"
    if request.endpoint not in _ENDPOINTS.get(maker_of(request.provider), ()):
        return f"no batch takes requests of {request.endpoint}"
    return ""


_ENDPOINTS = {"anthropic": frozenset({"messages"}), "openai": frozenset({"chat.completions", "responses"})}


def _batched(request: CallRequest) -> CallRequest:
    context = request.context._replace(patience_s=0.0)  # of the other lanes none is looked at
    return request._replace(params={**request.params, "batch": True}, context=context)


def _quote(
    flow: CallFlow, items: Sequence[BatchItem], group: Sequence[tuple[int, RoutedCall]], patience_s: float | None,
    division: Division,
) -> None:  # fmt: skip
    price, shared = flow.stages.price, Counter(prefix_of(call) for _, call in group)
    planned: list[Planned] = []
    saving = 0
    for place, call in group:
        plan = shared_plan(flow, call, shared[prefix_of(call)])
        counts: dict[str, int | None] = {}
        try:
            if (exact := price.exact_count(call, call.target, counts)) is not None:
                counts[exact.encoding] = exact.make()
            quote = price.quote(call, call.target, counts, plan=plan)
            if quote.over_call_limit is not None:
                raise quote.over_call_limit
            body = items[place].render(_attempt(flow, call, quote))
        except NotForBatchesError as alone:
            division.apart[place] = str(alone)
            continue
        except LLMCostError as error:
            division.errors[place] = error
            continue
        output = flow.stages.route.expected_output(call, flow.stages.decisions.usual_outputs)
        standard = replace(call, request=call.request._replace(params={**call.request.params, "batch": False}))
        dearer = replace(quote, amount_nanousd=type(quote.amount_nanousd)(2 * quote.amount_nanousd))
        saving += price.expected(standard, dearer, output) - price.expected(call, quote, output)
        planned.append(Planned(place, call, quote, body))
    if not planned:
        return
    reason = why_no_batch(len(planned), saving, patience_s)
    if reason:
        division.apart.update((each.place, reason) for each in planned)
        return
    first = planned[0].call.request
    api, limits = APIS[first.provider], LIMITS[maker_of(first.provider)]
    sizes = [len(api.encoded("", each.body, first.endpoint)) + _NAME_BYTES for each in planned]
    division.batches.extend([planned[at] for at in part] for part in split(sizes, limits))


def _attempt(flow: CallFlow, call: RoutedCall, quote: Quote) -> Attempt:
    request, target, settings = call.request, call.target, flow.settings
    added: Mapping[str, Any] = EMPTY
    if not settings.observe and not request.is_bare(target.plain):
        added = filled(settings.attribution.send, call.scopes_at(target), request.settings, target.provider)
    as_written = quote.cap_unsent or (settings.observe and not request.needs_cap)
    cap = request.max_tokens if as_written else quote.max_tokens
    return Attempt(
        call.id, 1, target.plain, cap, quote.plan, None, request.choice_count, changes=quote.changes,
        bare=request.is_bare(target.plain), fields=added,
    )  # fmt: skip
