"""What LiteLLM would call for a name, asked of LiteLLM itself before anything is sent.

A router knows a deployment by its group, by an alias or a routing group, by a wildcard, by its id, by the public name
that a team has for it, and by the name that stands as ``model`` in its parameters; a name that it does not know may
still lead to a default deployment or a default fallback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import litellm

from llm_cost_middleware.integrations.litellm.arguments import find_metadata
from llm_cost_middleware.integrations.litellm.entry_points import (
    all_deployments,
    default_deployment,
    deployment_id,
    named_deployments,
)

_TEAM = "user_api_key_team_id"
"""LiteLLM's key, in its metadata, of the team whose public names a request may use."""


class Reach(NamedTuple):
    """What a name leads to."""

    deployments: Sequence[Mapping[str, Any]]
    """Any of them may be called; the model of a wildcard is filled in. None: it cannot be told beforehand."""
    lasting: bool
    """It hangs on the router's lists and on what ``reach_key`` reads alone, so it may be kept until they change."""


def reach_key(model: Any, request: Mapping[str, Any]) -> tuple[Any, Any, bool]:
    """What of a request decides, beside the router's lists, what its name leads to."""
    return model, find_metadata(request, _TEAM), request.get("specific_deployment") is True


def reached(router: Any, model: Any, request: Mapping[str, Any]) -> Reach:
    """Ask what a request's name leads to.

    Args:
        router: A ``litellm.Router``.
        model: The name.
        request: The keyword arguments of the call; not changed.

    Raises:
        litellm.BadRequestError: LiteLLM does not know the name: its own error.
    """
    if not isinstance(model, str) or litellm.model_fallbacks:  # these lead on from whatever answers with an error
        return Reach((), lasting=False)
    _, team, specific = reach_key(model, request)
    everything = all_deployments(router)
    by_model = [entry for entry in everything if entry["litellm_params"].get("model") == model]
    if not specific:
        named = [*named_deployments(router, model, team)]
        # LiteLLM lists neither ids nor, from 1.110 on, what was appended to its list in place, and serves both
        seen = {id(entry) for entry in named}
        more = (entry for entry in everything if model in (entry["model_name"], deployment_id(entry)))
        named += [entry for entry in more if not named or (id(entry) not in seen and _is_id(entry, model))]
        if named:
            return Reach(named, lasting=True)
    if by_model and (specific or default_deployment(router) is None):
        return Reach(by_model, lasting=True)
    return Reach(_picked(router, model, request), lasting=False)


def _is_id(entry: Mapping[str, Any], model: str) -> bool:
    return bool(deployment_id(entry) == model)


def _picked(router: Any, model: str, request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What LiteLLM picks for a name that stands in none of its lists, and what else it may pick next time."""
    asked = {name: dict(value) if isinstance(value, dict) else value for name, value in request.items()}
    try:
        picked = router.get_available_deployment(
            model=model, specific_deployment=asked.pop("specific_deployment", False), request_kwargs=asked
        )
    except litellm.BadRequestError:  # it does not know the name: the caller gets its own words
        raise
    except Exception:  # noqa: BLE001 - a deployment that cools down, a plugin: the name may be served a moment later
        return ()
    if not isinstance(picked, Mapping) or not isinstance(picked.get("litellm_params"), Mapping):
        return ()
    if picked["litellm_params"].get("model") == model:  # a default deployment, which takes any name
        return (picked,)
    return (picked, *named_deployments(router, str(picked.get("model_name"))))
