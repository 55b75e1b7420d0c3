"""Websockets of an SDK: nothing that runs over them can be held, so they are refused or warned of, and metered.

A connection spends without asking for each answer, and its requests are not bounded. What the provider says of an
answer's usage, in the events that end one, is booked.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from llm_cost_middleware.context import current_context
from llm_cost_middleware.event_loops import in_thread
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.sdk_clients.signatures import like

_log = logging.getLogger(__name__)
_ENDS = frozenset({"response.done", "response.completed", "response.incomplete", "response.failed"})
_RENAMED = {"input_token_details": "input_tokens_details", "output_token_details": "output_tokens_details"}
"""Realtime's names, as the responses API has them."""


Door = Callable[[Any], Any]


def watch_sockets(client: Any, advice: Mapping[str, str], pipeline: CostPipeline, provider: str, door: Door) -> None:
    """Watch every ``connect`` of a client whose resources nobody else holds.

    Args:
        client: The client.
        advice: What to do instead of connecting, by the dotted path of the resource.
        pipeline: Told of connections, and books what they use.
        provider: Whose client it is.
        door: Makes a method raise our errors as the SDK's own.
    """

    def govern(resource: Any, path: str, text: str) -> None:
        original = resource.connect
        governed = door(partial(_connect, original, f"{path}.connect", text, pipeline, provider))
        resource.connect = like(original, governed)

    _watch(client, {tuple(path.split(".")): text for path, text in advice.items()}, "", govern)


def _watch(
    owner: Any, advice: Mapping[tuple[str, ...], str], path: str, govern: Callable[[Any, str, str], None]
) -> None:
    if () in advice and hasattr(owner, "connect"):
        govern(owner, path, advice[()])
    for name in {steps[0]: None for steps in advice if steps}:
        inner = {steps[1:]: text for steps, text in advice.items() if steps[:1] == (name,)}
        watch = partial(_watch, advice=inner, path=f"{path}.{name}".lstrip("."), govern=govern)
        if name in vars(owner):
            watch(vars(owner)[name])
        elif hasattr(type(owner), name):  # not every version of the SDK has it
            vars(owner)[name] = _Deferred(owner, name, watch)


class _Deferred:
    """A resource that is made when something of it is asked for: importing it takes the SDK half a second."""

    def __init__(self, owner: Any, name: str, watch: Callable[[Any], None]) -> None:
        object.__setattr__(self, "_facts", (owner, name, watch))

    def __getattribute__(self, name: str) -> Any:
        return getattr(_made(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_made(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_made(self), name)


def _made(deferred: _Deferred) -> Any:
    owner, name, watch = object.__getattribute__(deferred, "_facts")
    if vars(owner).get(name) is deferred:
        del vars(owner)[name]
        watch(getattr(owner, name))  # the SDK's own property keeps what it makes
    return getattr(owner, name)


def _connect(
    original: Any, what: str, advice: str, pipeline: CostPipeline, provider: str, /, *args: Any, **kwargs: Any
) -> Any:
    target = ModelRef(provider, str(kwargs.get("model") or ""))
    pipeline.ungoverned(what, advice, context=current_context(), target=target)
    manager = original(*args, **kwargs)
    kind: Any = type(manager)
    manager.__class__ = _watched_class(kind)
    manager.llm_cost_meter = SocketMeter(pipeline, provider, kwargs.get("model"))
    return manager


@cache
def _watched_class(kind: type) -> Any:
    """The class of a connection manager, whose connections are metered."""

    def enter(manager: Any) -> Any:
        return manager.llm_cost_meter.watch(kind.__enter__(manager))  # type: ignore[attr-defined]  # of a manager

    async def aenter(manager: Any) -> Any:
        return manager.llm_cost_meter.watch(await kind.__aenter__(manager))  # type: ignore[attr-defined]  # as above

    entries = {"__aenter__": aenter} if hasattr(kind, "__aenter__") else {"__enter__": enter}
    namespace: dict[str, Any] = {"__module__": kind.__module__, "__doc__": kind.__doc__, **entries}
    return type(kind.__name__, (kind,), {**namespace, "enter": next(iter(entries.values()))})


class SocketMeter:
    """Books what the events of one connection say of usage. What cannot be booked is logged: the caller gets it all.

    Args:
        pipeline: Books it.
        provider: Whose events they are.
        model: The model that was connected to; events may name another.
    """

    def __init__(self, pipeline: CostPipeline, provider: str, model: str | None) -> None:
        self._pipeline, self._provider, self._model = pipeline, provider, model
        self._context = current_context()

    def watch(self, connection: Any) -> Any:
        """Meter an open connection: every way of reading from it comes through its ``recv_bytes``."""
        original = connection.recv_bytes
        if inspect.iscoroutinefunction(original):

            async def areceive(*args: Any, **kwargs: Any) -> Any:
                data = await original(*args, **kwargs)
                if _may_matter(data):  # the storage of the ledger would block the event loop
                    await in_thread(self.observe, data)
                return data

            connection.recv_bytes = like(original, areceive)
        else:

            def receive(*args: Any, **kwargs: Any) -> Any:
                data = original(*args, **kwargs)
                if _may_matter(data):
                    self.observe(data)
                return data

            connection.recv_bytes = like(original, receive)
        return connection

    def observe(self, data: str | bytes) -> None:
        """Book what one event says of usage."""
        try:
            event = json.loads(data)
            session, answer = event.get("session"), event.get("response")
            if isinstance(session, Mapping):
                self._model = session.get("model") or self._model
            if event.get("type") in _ENDS and isinstance(answer, Mapping) and isinstance(answer.get("usage"), Mapping):
                self._book(answer)
        except Exception:  # noqa: BLE001 - whatever is in an event: it belongs to the caller, and passes
            _log.exception("an event of a websocket was not booked")

    def _book(self, answer: Mapping[str, Any]) -> None:
        usage = {_RENAMED.get(name, name): value for name, value in answer["usage"].items()}
        model = str(answer.get("model") or self._model or "")
        reading = get_provider(self._provider).read_usage({**answer, "model": model, "usage": usage})
        target = ModelRef(self._provider, model)
        self._pipeline.book(reading, target, self._context, id=f"socket.{answer.get('id')}")


def _may_matter(data: str | bytes) -> bool:
    """Whether an event may say something of usage or of the model; most carry a piece of sound."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    return '"usage"' in text or '"session"' in text
