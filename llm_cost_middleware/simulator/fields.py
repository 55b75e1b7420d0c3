"""Checks on request bodies that both providers make, in the words of each dialect."""

from collections.abc import Callable, Mapping
from typing import Any

from .refusals import Refusal

Complain = Callable[[str, str], Refusal]  # (where, what is wrong)


def is_count(value: object, least: int = 0) -> bool:
    """Return a whole number, not a bool, at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def unknown(body: Mapping[str, Any], known: frozenset[str]) -> str | None:
    """Return the first key that the endpoint does not know."""
    return next((key for key in body if key not in known), None)


def find_key(value: Any, names: frozenset[str], where: str) -> tuple[str, str] | None:
    """Return the path and name of the first of `names` anywhere inside a JSON value."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in names:
                return f"{where}.{key}", key
            found = find_key(item, names, f"{where}.{key}")
            if found:
                return found
    elif isinstance(value, list):
        for at, item in enumerate(value):
            found = find_key(item, names, f"{where}[{at}]")
            if found:
                return found
    return None
