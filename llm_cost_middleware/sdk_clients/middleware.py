"""Middleware of the caller inside a client (``anthropic`` 2.14 and later): it may send a request again.

Each time would be billed, and one reservation covers one of them. So the innermost middleware of a governed client is
one of ours, which lets the first pass. Repeating is for ``[retry]`` to do, or for a middleware around the whole call.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import Any

from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.usage import LOST_LOCALLY, attach_usage

_sent: ContextVar[list[None] | None] = ContextVar("llm_cost_sent", default=None)


def one_attempt(post: Any, client: Any) -> Any:
    """``post`` of a client as one attempt, whose request may leave once; itself, where there is no middleware."""
    if not getattr(client, "middleware", ()):
        return post
    if inspect.iscoroutinefunction(post):

        async def apost(*args: Any, **kwargs: Any) -> Any:
            token = _sent.set([])
            try:
                return await post(*args, **kwargs)
            finally:
                _sent.reset(token)

        return apost

    def call(*args: Any, **kwargs: Any) -> Any:
        token = _sent.set([])
        try:
            return post(*args, **kwargs)
        finally:
            _sent.reset(token)

    return call


def sending_once(client: Any) -> Any:
    """The client; or, of one that has middleware, a copy whose middleware cannot send a governed request twice."""
    found = getattr(client, "middleware", ())
    guard = _aguard if inspect.iscoroutinefunction(client.post) else _guard
    if not isinstance(found, tuple) or not found or found[-1] is guard:
        return client
    return type(client).copy(client, middleware=[*(one for one in found if one is not guard), guard])


def _note() -> None:
    sent = _sent.get()
    if sent is None:  # nothing of ours
        return
    if sent:
        error = UnsupportedRequestError(
            "a second request of a middleware in one attempt", "let [retry] repeat it: each is held by itself"
        )
        attach_usage(error, LOST_LOCALLY)  # the first was answered, or may have been
        raise error
    sent.append(None)


def _guard(request: Any, call_next: Any) -> Any:
    _note()
    return call_next(request)


async def _aguard(request: Any, call_next: Any) -> Any:
    _note()
    return await call_next(request)
