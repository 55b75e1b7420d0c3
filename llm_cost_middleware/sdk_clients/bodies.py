"""Request bodies as an SDK holds them just before it sends them, to plain values.

Pydantic models become mappings, iterables lists, ``NOT_GIVEN`` and ``omit`` disappear. What is plain already is handed
through, not copied; nothing is changed in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_SCALARS = frozenset({str, int, float, bool, type(None)})
_ABSENT = frozenset({"NotGiven", "Omit"})


def plain_body(body: Mapping[str, Any], extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """A new mapping of plain values: ``body`` with ``extra`` (the SDK's ``extra_body``) laid over it."""
    merged = {**body, **extra} if extra else body
    given = {
        name: value for name, value in merged.items() if type(value) in _SCALARS or type(value).__name__ not in _ABSENT
    }
    return given if _is_plain(given) else {name: _made_plain(value) for name, value in given.items()}


def plain(value: Any) -> Any:
    """One value. Files and other objects that only the SDK can encode are left to it."""
    return value if _is_plain(value) else _made_plain(value)


def _is_plain(value: Any) -> bool:
    """Whether a value holds nothing but JSON's own types, as most bodies do: they are not walked again, nor copied."""
    kind = type(value)
    if kind is dict:
        items = value.values()
    elif kind is list:
        items = value
    else:
        return kind in _SCALARS
    return all([type(item) in _SCALARS or _is_plain(item) for item in items])  # noqa: C419 - a generator takes longer


def _made_plain(value: Any) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict or isinstance(value, Mapping):
        items = {name: _made_plain(item) for name, item in value.items() if type(item).__name__ not in _ABSENT}
        same = kind is dict and len(items) == len(value) and all(items[name] is item for name, item in value.items())
        return value if same else items
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        return dump(exclude_unset=True, mode="json", by_alias=True, exclude=getattr(value, "__api_exclude__", None))
    if kind is list:
        listed = [_made_plain(item) for item in value]
        return value if all(new is old for new, old in zip(listed, value, strict=True)) else listed
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray) and not hasattr(value, "read"):
        return [_made_plain(item) for item in value]
    return value


def fields_of(answer: Any) -> Any:
    """A pydantic object's own fields as a mapping; anything else as it is.

    Reading an answer asks for fields that only other answers have, and pydantic is slow to say that one is absent.
    """
    try:
        more = answer.__pydantic_extra__
    except AttributeError:
        return answer
    return {**answer.__dict__, **more} if more else answer.__dict__
