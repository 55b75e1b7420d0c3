"""Environment variables over a configuration: ``LLM_COST_SECTION__KEY=value``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PREFIX = "LLM_COST_"
_OWN = frozenset({"LLM_COST_CONFIG", "LLM_COST_DATA", "LLM_COST_DASHBOARD_TOKEN", "LLM_COST_NOTEBOOK_ROWS"})


def has_overrides(env: Mapping[str, str], kind: type[DataclassInstance]) -> bool:
    """Whether the environment says anything of a configuration: by a key of it, or by one that is misspelt.

    Others have variables of their own that begin with the prefix.
    """
    known = {field.name for field in fields(kind)}
    keys = {_path(name)[0] for name in env if name.startswith(PREFIX) and name not in _OWN}
    return any(key in known or UnknownKeyError(key, known).nearest for key in keys)


def _path(variable: str) -> list[str]:
    return variable.removeprefix(PREFIX).lower().split("__")


def overrides(mapping: Mapping[str, object], env: Mapping[str, str], kind: type[DataclassInstance]) -> dict[str, Any]:
    """Return a copy of ``mapping`` with the environment's values over it.

    A value is read as TOML if it is valid TOML (``0.5``, ``true``, ``["a"]``, ``[{scope = "global", limit = "5"}]``),
    else as text. Names are case-insensitive; ``__`` steps into a table.

    Raises:
        UnknownKeyError: A variable with the prefix whose first part is not a key of the configuration.
    """
    result = deepcopy(dict(mapping))
    known = {field.name for field in fields(kind)}
    for variable in sorted(env):  # sorted: the result must not depend on the order of the environment
        if not variable.startswith(PREFIX) or variable in _OWN:
            continue
        path = _path(variable)
        if path[0] not in known:
            raise named(UnknownKeyError(path[0], known), {variable})
        table: object = result
        for step in path[:-1]:
            table = table.setdefault(step, {}) if isinstance(table, dict) else table
        if not isinstance(table, dict):
            raise ConfigurationError(f"{variable} steps into what is no table", key=path[0])
        table[path[-1]] = _read(env[variable])
    return result


def named(error: ConfigurationError, env: Iterable[str]) -> ConfigurationError:
    """The error, with the variable that set what it is about, if one did: its reader may know of no file."""
    at = (error.key or "").replace("[", ".").replace("]", "").split(".")
    for variable in sorted(env, key=len, reverse=True):
        path = _path(variable)
        near = min(len(path), len(at))
        if variable.startswith(PREFIX) and variable not in _OWN and path[:near] == at[:near]:
            told = f" (set by the environment variable {variable})"
            error.args = (str(error).removesuffix(told) + told,)  # a command reads it, and so does its caller
            break
    return error


def _read(text: str) -> object:
    # A URL or a plain word is not TOML; the sections check the type afterwards in any case.
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
