"""Cache marks that LiteLLM places by itself, where its user asked for that: ``cache_control_injection_points``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.integrations.litellm.entry_points import (
    all_deployments,
    default_parameters,
    named_deployments,
)
from llm_cost_middleware.request import MARKED_BY_HOST, CallRequest

_POINTS = "cache_control_injection_points"


def note_host_marks(request: CallRequest, arguments: Mapping[str, Any], router: Any, group: str | None) -> CallRequest:
    """The request, with a note for the planner where LiteLLM will add marks of its own to it.

    They are the user's choice: which blocks they reach is decided behind the router, for the deployment it picks, and
    from some release on beside marks that are there already. So a request that they reach gets none of ours.

    Args:
        request: The neutral view of the call.
        arguments: Its keyword arguments.
        router: A ``litellm.Router``.
        group: The group that is called by its name; ``None``: the call is routed, to any of them.
    """
    entries = all_deployments(router) if group is None else named_deployments(router, group)
    sources = (arguments, default_parameters(router), *(entry["litellm_params"] for entry in entries))
    if any(source.get(_POINTS) for source in sources):
        return request._replace(params={**request.params, MARKED_BY_HOST: True})
    return request
