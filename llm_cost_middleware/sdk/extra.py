"""``extra={"llm_cost": {...}}``: what one call of a governed client says about itself, beside its own arguments.

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


def hear_extra(client: Any, methods: Mapping[str, Iterable[str]]) -> None:
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
                setattr(resource, name, _hearing(method))


def without_said(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``post`` with nothing in them of what the call says about itself; never changed in place."""
    options = arguments.get("options") or {}
    said = options.get("extra_json")
    if not isinstance(said, Mapping) or METADATA_KEY not in said:
        return arguments
    kept = {name: value for name, value in said.items() if name != METADATA_KEY}
    return {**arguments, "options": {**options, "extra_json": kept or None}}


def _hearing(method: Any) -> Any:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def ahearing(*args: Any, extra: Any = None, **kwargs: Any) -> Any:
            return await method(*args, **(kwargs if extra is None else _moved(extra, kwargs)))

        return ahearing

    @functools.wraps(method)
    def hearing(*args: Any, extra: Any = None, **kwargs: Any) -> Any:
        return method(*args, **(kwargs if extra is None else _moved(extra, kwargs)))

    return hearing


def _moved(extra: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(extra, Mapping):
        raise ConfigurationError(f"must be a mapping, not {extra!r}", key="extra")
    for name in extra:
        if name != METADATA_KEY:
            raise UnknownKeyError(f"extra.{name}", (METADATA_KEY,))
    return {**kwargs, "extra_body": {**(kwargs.get("extra_body") or {}), **extra}}
