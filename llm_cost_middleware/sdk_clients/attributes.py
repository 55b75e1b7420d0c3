"""The ``extra={"llm_cost": {...}}`` keyword of governed SDK methods: attributes of one call beside its arguments.

The SDKs' methods do not know the keyword. On a governed client they are shadowed, on the resource objects of that
client alone, by ones that take it out and hand it on inside ``extra_body``, out of which it is taken before a body is
sent.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from llm_cost_middleware.context import METADATA_KEY
from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError


def accept_extra_argument(client: Any, methods: Mapping[str, Iterable[str]]) -> None:
    """Let methods of a client take ``extra``.

    Args:
        client: A client whose resources nobody else holds; they are made here where they were not used yet.
        methods: Names of methods by the dotted path of their resource. What this version of the SDK lacks is skipped.
    """
    for path, names in methods.items():
        try:
            resource = attrgetter(path)(client)
        except AttributeError:
            continue
        for name in names:
            if (method := getattr(resource, name, None)) is not None:
                setattr(resource, name, _with_extra(method))


def strip_attributes(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``post`` without the attributes of the call. They are not changed."""
    options = arguments.get("options") or {}
    extra = options.get("extra_json")
    if not isinstance(extra, Mapping) or METADATA_KEY not in extra:
        return arguments
    kept = {name: value for name, value in extra.items() if name != METADATA_KEY}
    return {**arguments, "options": {**options, "extra_json": kept or None}}


def attributes_of(arguments: Mapping[str, Any]) -> Any:
    """The attributes of the call in the arguments of ``post``; ``None`` where it has none."""
    extra = (arguments.get("options") or {}).get("extra_json")
    return extra.get(METADATA_KEY) if isinstance(extra, Mapping) else None


def _with_extra(method: Any) -> Any:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def awith_extra(*args: Any, extra: Any = None, **kwargs: Any) -> Any:
            return await method(*args, **(kwargs if extra is None else _moved(extra, kwargs)))

        return awith_extra

    @functools.wraps(method)
    def with_extra(*args: Any, extra: Any = None, **kwargs: Any) -> Any:
        return method(*args, **(kwargs if extra is None else _moved(extra, kwargs)))

    return with_extra


def _moved(extra: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(extra, Mapping):
        raise ConfigurationError(f"must be a mapping, not {extra!r}", key="extra")
    for name in extra:
        if name != METADATA_KEY:
            raise UnknownKeyError(f"extra.{name}", (METADATA_KEY,))
    return {**kwargs, "extra_body": {**(kwargs.get("extra_body") or {}), **extra}}
