"""Sentences that are formatted when somebody reads them: the reason of a decision, which most calls never show.

Until then a sentence is a tuple: a function that returns the text, and what it takes. ``("{:,} tokens".format, 9_000)``
is one; so may be what it takes. It holds what was true when it was made: numbers, names and frozen values, and no
request, policy or state, which it would keep alive, and tell of as they are when it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

from msgspec import Struct

Sentence: TypeAlias = Any
"""A text, or what makes it. ``Any``, so that it can be given to a field of a text that is told when read."""

_Class = TypeVar("_Class", bound=type)
_VERBS = ("__eq__", "__ne__", "__hash__", "__repr__", "__rich_repr__", "__reduce__")


def text(told: Sentence) -> str:
    """The text of a sentence."""
    if type(told) is not tuple:
        return cast("str", told)
    make, *values = told
    return cast("str", make(*[text(value) if _is_sentence(value) else value for value in values]))


def _is_sentence(value: object) -> bool:
    return type(value) is tuple and bool(value) and callable(value[0])


def unread(carrier: object, name: str) -> Sentence:
    """What a field holds that is told when read: the text where somebody has read it."""
    return getattr(type(carrier), name).held(carrier)


class _Told:
    """A field that is given a sentence and read as its text, which it keeps."""

    def __init__(self, place: Any) -> None:
        self.held = place.__get__
        self._hold = place.__set__

    def __get__(self, carrier: object, kind: object = None) -> Any:
        if carrier is None:
            return self
        told = self.held(carrier)
        if type(told) is tuple:
            told = text(told)
            self._hold(carrier, told)
        return told

    def __set__(self, carrier: object, told: Sentence) -> None:
        self._hold(carrier, told)


def told_when_read(*names: str) -> Callable[[_Class], _Class]:
    """Let fields of a frozen class with slots, a ``Struct`` or a dataclass, be given sentences: they are read as texts.

    ``structs.asdict`` and the encoders of ``msgspec`` look past it at what is held; everything else sees texts.
    """

    def change(cls: _Class) -> _Class:
        for name in names:
            setattr(cls, name, _Told(cls.__dict__[name]))
        if issubclass(cls, Struct):  # its verbs are made in C and read what is held; those of a dataclass do not
            for verb in _VERBS:
                setattr(cls, verb, _reading_first(cls, names, getattr(cls, verb)))
        return cls

    return change


def _reading_first(cls: type, names: tuple[str, ...], verb: Callable[..., Any]) -> Callable[..., Any]:
    def run(*values: Any) -> Any:
        for value in values:
            if type(value) is cls:
                for name in names:
                    getattr(value, name)
        return verb(*values)

    return run
