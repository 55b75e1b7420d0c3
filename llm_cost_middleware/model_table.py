"""Facts about models: rows of TOML by the beginnings of names, in which a longer name overrides a shorter one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

Rows = tuple[tuple[str, Mapping[str, Any]], ...]
"""Names with what their rows state, shortest names first."""


def read_rows(package: str, provider: str, keys: Iterable[str]) -> Rows:
    """The rows of ``PROVIDER.toml`` in a package by name; empty for a provider without a file.

    Args:
        package: The package that holds the file.
        provider: The provider.
        keys: What is read of a row; the rest (its source, its date) is for people.
    """
    file = files(package).joinpath(f"{provider}.toml")
    if not file.is_file():
        return ()
    kept = frozenset(keys)
    rows = tomllib.loads(file.read_text(encoding="utf-8"))["model"]
    named = [(name, {key: row[key] for key in row if key in kept}) for row in rows for name in row["names"]]
    # Sorted, so that a longer name overrides a shorter one wherever it stands in the file.
    return tuple(sorted(named, key=lambda entry: len(entry[0])))


def look_up(rows: Rows, provider: str, model: str) -> dict[str, Any]:
    """What the rows state of a model: each key from the longest name that begins the model's name and has it."""
    ref = model.lower().removeprefix(f"{provider}/").removeprefix("ft:")
    found: dict[str, Any] = {}
    for name, row in rows:
        if ref.startswith(name):
            found |= row
    return found
