"""Requests that a client is given by hand: ``request`` with its options, and bodies that are no mapping.

``post``, ``put``, ``patch``, ``delete`` and lists all end in the client's public ``request``. What a governed method
made passes there; all else is looked at by its verb and its path, as one that a resource makes.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from llm_cost_middleware.sdk_clients.bodies import plain
from llm_cost_middleware.wire import EMPTY_MAPPING

_APART = frozenset({"method", "url", "json_data", "content", "files"})
"""Fields of ``FinalRequestOptions`` that are arguments of ``post`` beside its ``options``."""
_ABSENT = frozenset({"NotGiven", "Omit"})
_sending: ContextVar[int] = ContextVar("llm_cost_sending", default=0)


def passing(method: Any, client: Any) -> Any:
    """A method of a client whose own ``request`` passes: the method has been looked at."""
    if inspect.iscoroutinefunction(method):

        async def acall(*args: Any, **kwargs: Any) -> Any:
            token = _sending.set(id(client))
            try:
                return await method(*args, **kwargs)
            finally:
                with suppress(ValueError):  # closed from another context, which never knew of it
                    _sending.reset(token)

        return acall

    def call(*args: Any, **kwargs: Any) -> Any:
        token = _sending.set(id(client))
        try:
            return method(*args, **kwargs)
        finally:
            _sending.reset(token)

    return call


def was_looked_at(client: Any) -> bool:
    """Whether a ``request`` of a client is one that passes; true once for each, as more may be sent on the way."""
    found = _sending.get() == id(client)
    if found:
        _sending.set(0)  # until whoever said so takes it back
    return found


def as_post(cast_to: Any, options: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``post`` for those of ``request``."""
    given = {name: value for name, value in _fields(options).items() if type(value).__name__ not in _ABSENT}
    arguments: dict[str, Any] = {"cast_to": cast_to, "body": given.get("json_data"), **more}
    for name in ("content", "files"):
        if given.get(name) is not None:
            arguments[name] = given[name]
    arguments["options"] = {name: value for name, value in given.items() if name not in _APART}
    return arguments


def with_readable_body(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``post`` whose body is a mapping, where what they carry is one on its way: an object, or JSON."""
    body = arguments.get("body")
    if isinstance(body, Mapping):
        return arguments
    content = arguments.get("content")
    if body is None and content is None:
        # all of it may stand in what is laid over the body
        laid_over = (arguments.get("options") or EMPTY_MAPPING).get("extra_json")
        return {**arguments, "body": {}} if laid_over else arguments
    raw = content if body is None else body
    if isinstance(raw, bytes | bytearray) or (body is None and isinstance(raw, str)):
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            return arguments
    else:
        found = plain(raw) if hasattr(raw, "model_dump") else raw
    if not isinstance(found, Mapping):
        return arguments
    return {**{name: value for name, value in arguments.items() if name != "content"}, "body": found}


def _fields(options: Any) -> Mapping[str, Any]:
    """The fields that were set of ``FinalRequestOptions``."""
    names = getattr(options, "model_fields_set", None) or ()
    return {name: getattr(options, name) for name in names}
