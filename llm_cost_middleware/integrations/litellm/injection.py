"""Cache marks that LiteLLM places by itself, where its user asked for that: ``cache_control_injection_points``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_cost_middleware.request import MARKED_BY_HOST, CallRequest

_POINTS = "cache_control_injection_points"


def places_marks(sources: Iterable[Mapping[str, Any]]) -> bool:
    """Whether LiteLLM adds marks of its own by any of these parameters: of deployments, of a router, of a call."""
    return any(source.get(_POINTS) for source in sources)


def note_host_marks(request: CallRequest, arguments: Mapping[str, Any], *, placed: bool) -> CallRequest:
    """The request, with a note for the planner where LiteLLM will add marks of its own to it.

    They are the user's choice: which blocks they reach is decided behind the router, for the deployment it picks, and
    from some release on beside marks that are there already. So a request that they reach gets none of ours.

    Args:
        request: The neutral view of the call.
        arguments: Its keyword arguments.
        placed: What the call may reach places marks, whatever its arguments say.
    """
    if placed or places_marks([arguments]):
        return request._replace(params={**request.params, MARKED_BY_HOST: True})
    return request
