"""LiteLLM keeps every router alive in four global lists. Here a router that is dropped is also forgotten."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import litellm

_HOOKS = (
    ("_async_success_callback", "deployment_callback_on_success"),
    ("success_callback", "sync_deployment_callback_on_success"),
    ("_async_failure_callback", "async_deployment_callback_on_failure"),
    ("failure_callback", "deployment_callback_on_failure"),
)
"""LiteLLM's global lists, and the method that a router puts into each when it is made."""


def forget_when_dropped(router: Any) -> None:
    """Replace a router's entries in LiteLLM's global lists by ones that do not keep it alive, and end with it."""
    for name, method in _HOOKS:
        hooks: list[Any] = getattr(litellm, name)
        bound = getattr(router, method)
        if bound not in hooks:
            continue
        hook = (_async_hook if name.startswith("_async") else _hook)(weakref.ref(router), method)
        hooks[hooks.index(bound)] = hook
        weakref.finalize(router, _remove, hooks, hook)


def _hook(router: weakref.ref[Any], method: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        alive = router()
        return getattr(alive, method)(*args, **kwargs) if alive is not None else None

    return call


def _async_hook(router: weakref.ref[Any], method: str) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        alive = router()
        return await getattr(alive, method)(*args, **kwargs) if alive is not None else None

    return call


def _remove(hooks: list[Any], hook: Any) -> None:
    if hook in hooks:
        hooks.remove(hook)
