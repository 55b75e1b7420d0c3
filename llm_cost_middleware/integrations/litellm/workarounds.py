"""Patches of LiteLLM, each with the fault it answers, its link, and the version that ends it. Importing applies them.

The first decides about money on the versions that need it; without the others, what is booked still covers the bill (as
``unconfirmed`` or ``estimated``). Each looks for the very thing it patches and does nothing where that is gone.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import litellm
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

from llm_cost_middleware.integrations.litellm.entry_points import FACADE

# --- 1. A lost POST is sent again ------------------------------------------------------------------------------------
# LiteLLM's asynchronous HTTP client repeats a POST when the connection dies, although the provider may have answered
# and billed it by then, and does not report it (``AsyncHTTPHandler.post``): two bills, and one reservation.
# https://github.com/BerriAI/litellm/pull/34830. Ended by 1.108.4 at the latest, which repeats a POST only where no
# connection was made.

_REPEAT = "single_connection_post_request"


class SingleSend:
    """A governed request under way. Tasks that were started meanwhile inherit it, so its end must be marked."""

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = False


_single_send: ContextVar[SingleSend | None] = ContextVar("llm_cost_single_send", default=None)


def begin_single_send() -> SingleSend:
    """From here on, let the error of a lost connection out of this task, until what is returned is ``over``."""
    sent = SingleSend()
    _single_send.set(sent)
    return sent


@contextmanager
def single_send() -> Iterator[None]:
    """Let the error of a lost connection out of a block, for the lifecycle to book and to classify."""
    sent = SingleSend()
    token = _single_send.set(sent)
    try:
        yield
    finally:
        sent.over = True
        _single_send.reset(token)


def _without_repeat(repeat: Any) -> Any:
    @wraps(repeat)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        lost = sys.exception()  # it is called where that is being handled, and nowhere else
        sent = _single_send.get()
        if lost is not None and sent is not None and not sent.over:  # other requests of the process are left alone
            raise lost
        return await repeat(*args, **kwargs)

    return guarded


if (_repeat := getattr(AsyncHTTPHandler, _REPEAT, None)) is not None:
    setattr(AsyncHTTPHandler, _REPEAT, _without_repeat(_repeat))

# --- 2. A synchronous call loses what stood behind its error ---------------------------------------------------------
# ``Router.completion`` and ``embedding`` run their retries on an event loop of their own, from inside an
# ``except RuntimeError``: Python then writes that error over ``__context__``, and the provider's own is gone.
# https://github.com/BerriAI/litellm/pull/50178. Ended by 1.110, which runs no loop there.

_SYNC_ATTEMPTS = ("_completion", "_embedding")


def _keep_cause(attempt: Any) -> Any:
    @wraps(attempt)
    def kept(*args: Any, **kwargs: Any) -> Any:
        try:
            return attempt(*args, **kwargs)
        except Exception as error:
            # without it every failure of a synchronous call is booked as unconfirmed, the provider's own 500 too
            if error.__cause__ is None:
                error.__cause__ = error.__context__
            raise

    return kept


for _name in () if FACADE else _SYNC_ATTEMPTS:
    if (_attempt := getattr(litellm.Router, _name, None)) is not None:
        setattr(litellm.Router, _name, _keep_cause(_attempt))

# --- 3. Routers are never freed --------------------------------------------------------------------------------------
# A router puts its bound methods into four global lists when it is made, and only ``discard()`` takes them out.
# https://github.com/BerriAI/litellm/pull/50178. Ended by 1.110, whose routers leave nothing there.

_HOOKS = (
    ("_async_success_callback", "deployment_callback_on_success"),
    ("success_callback", "sync_deployment_callback_on_success"),
    ("_async_failure_callback", "async_deployment_callback_on_failure"),
    ("failure_callback", "deployment_callback_on_failure"),
)
"""LiteLLM's global lists, and the method that a router puts into each when it is made."""


def forget_when_dropped(router: Any) -> Callable[[], None]:
    """Replace a router's entries in LiteLLM's global lists by ones that do not keep it alive, and end with it.

    Returns:
        What takes the entries out at once: ``discard()`` no longer finds them.
    """
    ends = []
    for name, method in () if FACADE else _HOOKS:
        hooks: list[Any] = getattr(litellm, name)
        bound = getattr(router, method)
        if bound in hooks:
            hook = (_async_hook if name.startswith("_async") else _hook)(weakref.ref(router), method)
            hooks[hooks.index(bound)] = hook
            ends.append(weakref.finalize(router, _remove, hooks, hook))

    def forget() -> None:
        for end in ends:
            end()

    return forget


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


def inner_chunks(stream: Any) -> list[Any] | None:
    """The chunks that the stream inside a synchronous router's stream keeps; ``None`` where there is none.

    litellm 1.108.7, ``Router._completion_streaming_iterator``: the asynchronous wrapper shares the list, the
    synchronous one keeps an empty list of its own, and of Bedrock's streams nothing is shown to ``logger_fn`` either.
    """
    frame = getattr(getattr(stream, "_sync_generator", None), "gi_frame", None)
    inner = frame.f_locals.get("model_response") if frame is not None else None
    chunks = getattr(inner, "chunks", None)
    return chunks if isinstance(chunks, list) else None
