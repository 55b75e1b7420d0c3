"""Middleware of the caller inside a client (``anthropic`` 2.14 and later): it may send a request again.

Each time would be billed, and one reservation covers one of them. So a governed client has one middleware, ours, which
runs the caller's. What it gives the last of them to send with lets one governed request leave for each time that it is
run itself: that belongs to the request, whichever threads or tasks send it, and whatever else is sent on the way.
Repeating is for ``[retry]`` to do, or for a middleware around the whole call. What it changes so that more may be
billed than is held is let through, or refused, as ``on_ungoverned`` says.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any, Self

from llm_cost_middleware.errors import LLMCostError, UnsupportedRequestError
from llm_cost_middleware.event_loops import in_thread, result_of
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.sdk_clients.api import FREE_VERBS, Api
from llm_cost_middleware.usage import FAILED_LOCALLY, LOST_LOCALLY, attach_usage

_COSTS_NOTHING = frozenset({"metadata", "stop_sequences", "temperature", "top_k", "top_p"})
"""Fields of a body that may change: none makes an answer dearer than what is held for it."""
_TEXT = frozenset({"messages", "system"})
"""Fields that may get shorter, as where a middleware takes secrets out."""


COUNTING = ("/messages/count_tokens", "/responses/input_tokens")
"""Ends of the paths that count tokens, which is free."""
_KindOf = Callable[[str, str], str]
"""By verb, in small letters, and path: ``governed``, ``reported`` or ``free``, as in ``Treatment``."""


def sending_once(client: Any, api: Api, pipeline: CostPipeline) -> Any:
    """The client; or, of one that has middleware, a copy whose middleware cannot send a governed request twice."""
    return _held_to_one(client, lambda verb, path: api.treatment(verb, path).kind, pipeline)


def attempting_once(client: Any, pipeline: CostPipeline) -> Any:
    """As ``sending_once``, of a client used for attempts alone: what it posts is held for, unless it counts."""
    return _held_to_one(client, _kind_of_attempt, pipeline)


def _kind_of_attempt(verb: str, path: str) -> str:
    return "free" if verb in FREE_VERBS or path.partition("?")[0].endswith(COUNTING) else "governed"


def _held_to_one(client: Any, kind_of: _KindOf, pipeline: CostPipeline) -> Any:
    found = getattr(client, "middleware", ())
    if not isinstance(found, tuple) or not found or (len(found) == 1 and isinstance(found[0], _Once)):
        return client
    theirs: list[Any] = []
    for one in found:  # ours is among them where some were added to those of a governed client
        theirs.extend(one.theirs if isinstance(one, _Once) else (one,))
    kind = _AsyncOnce if inspect.iscoroutinefunction(client.post) else _SyncOnce
    return type(client).copy(client, middleware=[kind(tuple(theirs), kind_of, pipeline)])


class _Once:
    """Runs the caller's middleware, the outermost first."""

    def __init__(self, theirs: tuple[Any, ...], kind_of: _KindOf, pipeline: CostPipeline) -> None:
        self.theirs, self._kind_of, self._pipeline = theirs, kind_of, pipeline
        self._handlers = [_handler(one, self.handle) for one in reversed(theirs)]

    handle = "handle"

    def _chain(self, send: Callable[[Any], Any]) -> Callable[[Any], Any]:
        for handler in self._handlers:
            send = _link(handler, send)
        return send

    def _kind(self, request: Any) -> str:
        return self._kind_of(str(request.method).strip().lower(), str(request.url))

    def _passes(self, one: Any, kind: str) -> bool:
        """Whether a request needs no permission: free, or reported as the one of this ``kind`` that came in was."""
        found = self._kind(one)
        return found == "free" or found == kind == "reported"

    def _judge(self, held: Any, one: Any, permission: _Permission) -> None:
        """Report or refuse what is not what money is held for."""
        if not permission.given or (what := _change(held, one)) is None:
            return
        advice = "no money is held for that: do it before the client is called"
        try:
            self._pipeline.ungoverned(f"{what} that a middleware changes", advice)
        except LLMCostError as error:
            permission.refuse(error)
            raise


class _SyncOnce(_Once):
    def __call__(self, request: Any, call_next: Callable[[Any], Any]) -> Any:
        kind = self._kind(request)
        permission = _Permission(given=kind == "governed")

        def send(one: Any) -> Any:
            if self._passes(one, kind):
                return call_next(one)
            if one is not request:
                self._judge(request, one, permission)
            with permission:
                return permission.answered(call_next(one))

        try:
            return self._chain(send)(request)
        except LLMCostError as error:
            if error not in permission.refused:
                raise
            return permission.delivered(permission.first.result(), error)
        finally:
            permission.end()


class _AsyncOnce(_Once):
    handle = "handle_async"

    async def __call__(self, request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        kind = self._kind(request)
        permission = _Permission(given=kind == "governed")

        async def send(one: Any) -> Any:
            if self._passes(one, kind):
                return await call_next(one)
            if one is not request:
                await in_thread(self._judge, request, one, permission)
            with permission:
                return permission.answered(await call_next(one))

        try:
            return await self._chain(send)(request)
        except LLMCostError as error:
            if error not in permission.refused:
                raise
            return permission.delivered(await result_of(permission.first), error)
        finally:
            permission.end()


class _Permission:
    """To send one governed request, and what became of it."""

    def __init__(self, *, given: bool) -> None:
        self.given = given
        self._left = [None] if given else []
        self.refused: list[LLMCostError] = []
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

    def refuse(self, error: LLMCostError) -> None:
        """Note an error instead of a request: nothing left, or what left before stands."""
        if self._left:
            attach_usage(error, FAILED_LOCALLY)
        else:
            self.refused.append(error)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            self.first.set_exception(error)
        elif error is not None:
            self.first.set_result(None)

    def answered(self, answer: Any) -> Any:
        self.first.set_result(answer)
        return answer

    def delivered(self, answer: Any, error: LLMCostError) -> Any:
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


def _change(held: Any, one: Any) -> str | None:
    """What of a request is not what money is held for; ``None`` where it costs no more."""
    if str(one.method) != str(held.method) or str(one.url).partition("?")[0] != str(held.url).partition("?")[0]:
        return "an address"
    before, now = held.json, one.json
    if one.options.extra_json or one.options.content is not None:
        return "a body"
    if now is before:
        return None
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return "a body"
    for name in (before.keys() | now.keys()) - _COSTS_NOTHING:
        old, new = before.get(name), now.get(name)
        if new == old or (name == "max_tokens" and isinstance(new, int) and isinstance(old, int) and new <= old):
            continue
        if name not in _TEXT or old is None or len(json.dumps(new, default=str)) > len(json.dumps(old, default=str)):
            return f"{name!r} of a body"
    return None


def _is_used_up(answer: Any) -> bool:
    """Whether a middleware read a stream to its end, or closed it."""
    response = answer.http_response
    if not response.is_closed:
        return False
    try:
        return response.content is None
    except RuntimeError:  # it was never read as a whole
        return True
