"""What is read off a router: through the entry points that LiteLLM documents to stay, or by their old names before.

``registry()`` and ``settings()`` are there from 1.110 on, where the old names warn and are announced to go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import litellm

FACADE = hasattr(litellm.Router, "registry")
"""A router is a facade over another core, as from 1.110 on."""


def all_deployments(router: Any) -> Sequence[Any]:
    """The live list: an entry is another object once it has been changed through LiteLLM."""
    found: Sequence[Any] = router.registry().all() if FACADE else router.model_list
    return found


def named_deployments(router: Any, model: str, team: str | None = None) -> Sequence[Any]:
    """The deployments that a name reaches as a group, an alias, a routing group, a wildcard or a team's public name."""
    if FACADE:
        return router.registry().deployments(model, team_id=team) or ()
    return router.get_model_list(model_name=model, team_id=team) or ()


def deployment_id(entry: Mapping[str, Any]) -> Any:
    """The id of a deployment; ``None`` where LiteLLM has given it none."""
    return (entry.get("model_info") or {}).get("id")


def aliases(router: Any) -> Mapping[str, Any]:
    """The live names that stand for groups."""
    found: Mapping[str, Any] = router.registry().aliases() if FACADE else router.model_group_alias
    return found


def default_deployment(router: Any) -> Any:
    """The deployment that serves whatever name is not known; ``None`` where there is none."""
    return router.settings().default_deployment if FACADE else router.default_deployment


def default_parameters(router: Any) -> Mapping[str, Any]:
    """What LiteLLM adds to the arguments of every call that lacks them."""
    found = router.settings().default_litellm_params if FACADE else router.default_litellm_params
    return found or {}


def has_own_timeout(router: Any) -> bool:
    """Whether a router was given a timeout of its own, which then holds for each of its attempts."""
    # LiteLLM sets its global default as every router's timeout: that one was not chosen
    return router.timeout not in (None, litellm.request_timeout) or router.stream_timeout is not None


def own_timeouts(router: Any) -> Mapping[str, Any]:
    """The timeouts of a router, by the names that they have as arguments of its calls."""
    return {"timeout": router.timeout, "stream_timeout": router.stream_timeout}


def retire(router: Any) -> None:
    """Take a router out of LiteLLM's global lists. It keeps serving calls."""
    (router.retire if FACADE else router.discard)()
