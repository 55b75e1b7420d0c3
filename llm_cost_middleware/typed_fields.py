"""Fields of frozen dataclasses read by their type hints: the same from a file, a keyword, the environment, an option.

A field named ``…_s`` is a length of time, one named ``url`` a URL of a ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache, wraps
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.natural_values import (
    read_flag,
    read_ledger_url,
    read_number,
    read_seconds,
    read_whole,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_C = TypeVar("_C")
_LONG = 100
"""Characters from which on a text is no misspelt word."""


def names_unknown_keys(section: str = "") -> Callable[[type[_C]], type[_C]]:
    """Make a misspelt keyword raise ``UnknownKeyError``, as in a file; Python's own error names no near one."""

    def decorate(cls: type[_C]) -> type[_C]:
        fill = cls.__init__
        known = {item.name for item in fields(cls) if item.init}  # type: ignore[arg-type]  # a dataclass, which ``type`` hides

        @wraps(fill)  # so that editors and ``inspect`` still show the fields
        def init(self: _C, *args: Any, **values: Any) -> None:
            for name in values:
                if name not in known:
                    raise UnknownKeyError(f"{section}.{name}" if section else name, known)
            fill(self, *args, **values)

        cls.__init__ = init  # type: ignore[method-assign, assignment]  # takes what the dataclass' own takes
        return cls

    return decorate


def canonical_fields(instance: DataclassInstance, section: str, *, leave: Iterable[str] = ()) -> None:
    """Replace the fields of a frozen dataclass by their canonical values; ``leave`` some as they are.

    Raises:
        ConfigurationError: A value that its field cannot hold; the message shows the right form.
    """
    hints = hints_of(type(instance))
    for item in fields(instance):
        if item.init and item.name not in leave:
            value = getattr(instance, item.name)
            read = read_field(hints[item.name], value, f"{section}.{item.name}")
            if read is not value:
                object.__setattr__(instance, item.name, read)


@lru_cache(maxsize=64)
def hints_of(kind: type) -> dict[str, Any]:
    """Return the types of a class' fields, by name."""
    return get_type_hints(kind)


def read_choice(kind: object, value: object, key: str) -> Any:
    """Return a value that is one of a ``Literal``'s words. Raises ``ConfigurationError``, which lists them."""
    choices = get_args(kind)
    if isinstance(value, str) and value in choices:
        return str(value)
    raise _no_choice(value, choices, key)


def _no_choice(value: object, choices: tuple[object, ...], key: str) -> ConfigurationError:
    """The refusal of a word that is none of some, with the nearest of them."""
    words = [choice for choice in choices if isinstance(choice, str)]
    near = get_close_matches(value.strip().lower(), words, n=1) if isinstance(value, str) and len(value) < _LONG else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ConfigurationError(f"{value!r} is not one of {', '.join(map(repr, choices))}{hint}", key=key)


def read_field(hint: object, value: object, key: str) -> object:
    """Return a value as its type hint requires.

    Supports only the hints that sections use: scalars, literals, and tuples and sets of them.

    Args:
        hint: The hint, resolved.
        value: The value as it was given.
        key: Its dotted name, which decides how a number or a text is read, and names it in the error.

    Raises:
        ConfigurationError: It does not fit.
    """
    members = _members(hint)
    choices = tuple(choice for part in members if get_origin(part) is Literal for choice in get_args(part))
    if value is None and type(None) in members:
        return None
    if get_origin(hint) is tuple:
        return tuple(read_field(get_args(hint)[0], item, key) for item in _listed(value, key))
    wanted = next((part for part in members if get_origin(part) is frozenset), None)
    if wanted is not None:
        return _enum_set(get_args(wanted)[0], value, key)
    # ``True == 1`` in Python: a bool must not pass for a choice that is a number.
    if choices and isinstance(value, str | int) and not isinstance(value, bool) and value in choices:
        return value
    kinds = {part for part in members if isinstance(part, type) and part is not type(None)}
    if choices and not kinds:
        raise _no_choice(value, choices, key)
    return _scalar(kinds, choices, value, key) if kinds else value


def _scalar(kinds: set[type], choices: tuple[object, ...], value: object, key: str) -> object:
    name = key.rpartition(".")[2]
    if kinds == {bool}:
        return read_flag(value, key)
    if kinds == {str}:
        if name == "url":
            return read_ledger_url(value, key)
        if not isinstance(value, str):
            raise ConfigurationError(f"must be text, such as 'name', not {value!r}", key=key)
        return str(value)
    if len(kinds) > 1:  # an amount of money: read where it is used
        return value
    try:
        if kinds == {int}:
            return read_whole(value, key)
        if kinds == {float}:
            # Only where the field has a sense of no limit; elsewhere None is no number.
            return read_seconds(value, key) if name.endswith("_s") else read_number(value, key)
    except ConfigurationError:
        if not choices:
            raise
        expected = ", ".join(map(repr, choices))
        raise ConfigurationError(f"must be {expected} or a whole number such as 3, not {value!r}", key=key) from None
    return value


def _listed(value: object, key: str) -> list[object]:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ConfigurationError(f"must be a list such as ['a', 'b'], not {value!r}", key=key)
    return list(value)


def _enum_set(kind: type[Enum], value: object, key: str) -> frozenset[Enum]:
    try:
        return frozenset(kind(item) for item in _listed(value, key))
    except ValueError as error:
        raise ConfigurationError(f"{error}; known are {', '.join(item.value for item in kind)}", key=key) from None


def _members(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
