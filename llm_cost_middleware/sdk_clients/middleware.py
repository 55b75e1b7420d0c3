"""Middleware of the caller inside a client (``anthropic`` 2.14 and later): it may send a request again.

Each time would be billed, and one reservation covers one of them. So a governed client has one middleware, ours, which
runs the caller's. What it gives the last of them to send with lets one governed request leave for each time that it is
run itself: that belongs to the request, whichever threads or tasks send it, and whatever else is sent on the way.
Repeating is for ``[retry]`` to do, or for a middleware around the whole call.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Self

from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.sdk_clients.api import Api
from llm_cost_middleware.usage import LOST_LOCALLY, attach_usage


def sending_once(client: Any, api: Api) -> Any:
    """The client; or, of one that has middleware, a copy whose middleware cannot send a governed request twice."""
    found = getattr(client, "middleware", ())
    if not isinstance(found, tuple) or not found or (len(found) == 1 and isinstance(found[0], _Once)):
        return client
    theirs: list[Any] = []
    for one in found:  # ours is among them where some were added to those of a governed client
        theirs.extend(one.theirs if isinstance(one, _Once) else (one,))
    kind = _AsyncOnce if inspect.iscoroutinefunction(client.post) else _SyncOnce
    return type(client).copy(client, middleware=[kind(tuple(theirs), api)])


class _Once:
    """Runs the caller's middleware, the outermost first."""

    def __init__(self, theirs: tuple[Any, ...], api: Api) -> None:
        self.theirs, self._api = theirs, api
        self._handlers = [_handler(one, self.handle) for one in reversed(theirs)]

    handle = "handle"

    def _chain(self, send: Callable[[Any], Any]) -> Callable[[Any], Any]:
        for handler in self._handlers:
            send = _link(handler, send)
        return send

    def _is_governed(self, request: Any) -> bool:
        return self._api.treatment(str(request.method).strip().lower(), str(request.url)).kind == "governed"


class _SyncOnce(_Once):
    def __call__(self, request: Any, call_next: Callable[[Any], Any]) -> Any:
        permission = _Permission(self._is_governed(request))

        def send(one: Any) -> Any:
            if not self._is_governed(one):
                return call_next(one)
            with permission:
                return permission.answered(call_next(one))

        try:
            return self._chain(send)(request)
        except UnsupportedRequestError as error:
            if error not in permission.refused:
                raise
            return permission.delivered(permission.first.result(), error)
        finally:
            permission.end()


class _AsyncOnce(_Once):
    handle = "handle_async"

    async def __call__(self, request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        permission = _Permission(self._is_governed(request))

        async def send(one: Any) -> Any:
            if not self._is_governed(one):
                return await call_next(one)
            with permission:
                return permission.answered(await call_next(one))

        try:
            return await self._chain(send)(request)
        except UnsupportedRequestError as error:
            if error not in permission.refused:
                raise
            return permission.delivered(await asyncio.wrap_future(permission.first), error)
        finally:
            permission.end()


class _Permission:
    """To send one governed request, and what became of it."""

    def __init__(self, given: bool) -> None:
        self._left = [None] if given else []
        self.refused: list[UnsupportedRequestError] = []
        self.first: Future[Any] = Future()
        """The outcome of the one that left; ``None`` where it was broken off."""
        self.first.set_running_or_notify_cancel()  # nobody who waits for it can cancel it
        if not given:
            self.first.set_result(None)

    def __enter__(self) -> Self:
        try:
            self._left.pop()  # atomic
        except IndexError:
            error = UnsupportedRequestError(
                "a request of a middleware beside the one that money is held for",
                "let [retry] repeat it: each is held by itself",
            )
            self.refused.append(error)
            raise error from None
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            self.first.set_exception(error)
        elif error is not None:
            self.first.set_result(None)

    def answered(self, answer: Any) -> Any:
        self.first.set_result(answer)
        return answer

    def delivered(self, answer: Any, error: UnsupportedRequestError) -> Any:
        """The answer to the one that left, which is paid for: its caller gets it, although another was refused."""
        if answer is not None and not _is_used_up(answer):
            return answer
        attach_usage(error, LOST_LOCALLY)
        raise error

    def end(self) -> None:
        """What is sent from now on is sent after the attempt."""
        self._left.clear()


def _handler(middleware: Any, name: str) -> Callable[..., Any]:
    """What the SDK calls of a middleware, which is a function or an object of its class ``Middleware``."""
    bases = ((kind.__name__, kind.__module__.partition(".")[0]) for kind in type(middleware).__mro__)
    is_object = any(kind == "Middleware" and root in NAMES for kind, root in bases)
    handler: Callable[..., Any] = getattr(middleware, name) if is_object else middleware
    return handler


def _link(handler: Callable[..., Any], send: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda request: handler(request, send)


def _is_used_up(answer: Any) -> bool:
    """Whether a middleware read a stream to its end, or closed it."""
    response = answer.http_response
    if not response.is_closed:
        return False
    try:
        return response.content is None
    except RuntimeError:  # it was never read as a whole
        return True
