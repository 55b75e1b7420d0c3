"""Request bodies as an SDK holds them just before it sends them, to plain values.

Pydantic models become mappings, iterables lists, ``NOT_GIVEN`` and ``omit`` disappear. Mappings and lists are copied:
money is held for what a body says now, so that is what is sent, whatever its caller makes of his objects (while
a retry waits, say, or a ledger is asked on an event loop).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_SCALARS = frozenset({str, int, float, bool, type(None)})
_ABSENT = frozenset({"NotGiven", "Omit"})


def plain_body(body: Mapping[str, Any], extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """A new mapping of plain values: ``body`` with ``extra`` (the SDK's ``extra_body``) laid over it."""
    return _mapping({**body, **extra} if extra else body)


def plain(value: Any) -> Any:
    """One value. Files and other objects that only the SDK can encode are left to it."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict or isinstance(value, Mapping):
        return _mapping(value)
    if kind is list:
        return [item if type(item) in _SCALARS else plain(item) for item in value]
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        return dump(exclude_unset=True, mode="json", by_alias=True, exclude=getattr(value, "__api_exclude__", None))
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray) and not hasattr(value, "read"):
        return [plain(item) for item in value]
    return value


def _mapping(value: Mapping[Any, Any]) -> dict[Any, Any]:
    return {
        name: item if kind in _SCALARS else plain(item)
        for name, item in value.items()
        if (kind := type(item)) in _SCALARS or kind.__name__ not in _ABSENT
    }


def fields_of(answer: Any) -> Any:
    """A pydantic object's own fields as a mapping; anything else as it is.

    Reading an answer asks for fields that only other answers have, and pydantic is slow to say that one is absent.
    """
    try:
        more = answer.__pydantic_extra__
    except AttributeError:
        return answer
    return {**answer.__dict__, **more} if more else answer.__dict__
