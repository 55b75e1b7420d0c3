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


def named_deployments(router: Any, model: str) -> Sequence[Any]:
    """The deployments that a name reaches as a group, an alias, a wildcard or an id; none where it is not known."""
    found = router.registry().deployments(model) if FACADE else router.get_model_list(model_name=model)
    # LiteLLM lists neither ids nor, from 1.110 on, what was appended to its list in place, and serves both
    return found or [entry for entry in all_deployments(router) if model in (entry["model_name"], _id_of(entry))]


def _id_of(entry: Mapping[str, Any]) -> Any:
    return (entry.get("model_info") or {}).get("id")


def can_serve(router: Any, model: str) -> bool:
    """Whether LiteLLM would send a call of this name; true where it cannot be known."""
    if named_deployments(router, model):
        return True
    try:
        router.get_available_deployment(model=model)
    except litellm.BadRequestError:  # what LiteLLM raises for a name that it does not know
        return False
    except Exception:  # noqa: BLE001 - a deployment that cools down, a plugin: the name may be served a moment later
        return True
    return True


def default_parameters(router: Any) -> Mapping[str, Any]:
    """What LiteLLM adds to the arguments of every call that lacks them."""
    found = router.settings().default_litellm_params if FACADE else router.default_litellm_params
    return found or {}


def has_own_timeout(router: Any) -> bool:
    """Whether a router was given a timeout of its own, which then holds for each of its attempts."""
    # LiteLLM sets its global default as every router's timeout: that one was not chosen
    return router.timeout not in (None, litellm.request_timeout) or router.stream_timeout is not None


def retire(router: Any) -> None:
    """Take a router out of LiteLLM's global lists. It keeps serving calls."""
    (router.retire if FACADE else router.discard)()
