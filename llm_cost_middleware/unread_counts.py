"""Counts as the provider sent them, judged before an SDK or LangChain makes numbers of them.

Both SDKs read loosely: in an optional group of fields a text ``"12"`` or a ``true`` becomes a number, in others it
stays what it is. So whether a count can be read would depend on the host. Here it is judged where both SDKs turn a
body, or an event of a stream, into an object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.provider import Provider
from llm_cost_middleware.wire import EMPTY_MAPPING, NO_COUNT, odd_count

BUILDS_OBJECTS = "_process_response_data"
"""The method of both SDKs' clients that does; private, and as old as they are."""
_HOLDERS = ("response", "message")
"""Where an event of a stream keeps the answer as far as it is."""
_MAY_COUNT = frozenset({"usage", *_HOLDERS})
_WHOLE = frozenset({"message", "chat.completion", "chat.completion.chunk", "response"})
"""Kinds of bodies that count everything they bill."""
Build = Callable[..., Any]


def note_odd_counts(client: Any) -> None:
    """Let a client note on each usage that it builds which count is none. The client is changed."""
    _shadow(client, _noted)


def drop_unreadable_usage(client: Any, rules: Provider) -> None:
    """Let a client build answers without a usage where that cannot be read. The client is changed.

    For LangChain, which calculates with the counts and loses the answer to an error of its own. A missing usage is
    unknown to it, as it is to us.
    """
    _shadow(client, partial(_dropped, rules))


def carry_note(source: Any, made: Any) -> Any:
    """``made``, an object that was built again out of ``source``, with the note on its usage."""
    note = vars_of(getattr(source, "usage", None)).get(NO_COUNT)
    if note is not None and (usage := getattr(made, "usage", None)) is not None:
        vars(usage)[NO_COUNT] = note
    return made


def vars_of(thing: Any) -> Mapping[str, Any]:
    """The attributes of an object; empty for what has none."""
    return getattr(thing, "__dict__", None) or EMPTY_MAPPING


def _shadow(client: Any, wrap: Callable[..., Any]) -> None:
    build = getattr(client, BUILDS_OBJECTS, None)
    if build is not None:  # of a mock, or of another version
        setattr(client, BUILDS_OBJECTS, partial(wrap, build))


def _noted(build: Build, **arguments: Any) -> Any:
    made, data = build(**arguments), arguments.get("data")
    if type(data) is dict and not _MAY_COUNT.isdisjoint(data):
        holder, place = _holder(data)
        if (usage := holder.get("usage")) is not None and (odd := odd_count(usage)):
            inner = made if place is None else getattr(made, place, None)
            found = getattr(inner, "usage", None)
            if found is not usage and hasattr(found, "__dict__"):  # a mapping was left as it came
                vars(found)[NO_COUNT] = odd
    return made


def _dropped(rules: Provider, build: Build, *, data: Any, **more: Any) -> Any:
    if type(data) is dict:
        holder, place = _holder(data)
        if holder.get("usage") is not None and _is_unreadable(rules, holder, place):
            without = {**holder, "usage": None}
            data = without if place is None else {**data, place: without}
    return build(data=data, **more)


def _holder(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
    """What holds the usage: a body, or the answer inside an event, and its name there."""
    for place in _HOLDERS:
        if type(inner := data.get(place)) is dict:
            return inner, place
    return data, None


def _is_unreadable(rules: Provider, holder: Mapping[str, Any], place: str | None) -> bool:
    if odd_count(holder["usage"]):
        return True
    # a message inside an event counts what is known so far
    if place == "message" or holder.get("object", holder.get("type")) not in _WHOLE:
        return False
    try:
        rules.read_usage(holder)
    except UnreadableUsageError:
        return True
    return False
