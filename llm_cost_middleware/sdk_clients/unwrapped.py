"""Plain clients of the SDKs: what a tool calls a provider through that nobody wrapped, and which ones live here.

A tool is not run to find out: ``inspect.getclosurevars`` says which objects its function can reach by name. What it
gets otherwise (an argument, an attribute, an import inside it) stays unseen, and so do requests that need no client.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from inspect import getclosurevars, unwrap
from typing import Any, NamedTuple

from llm_cost_middleware.nesting import is_wrapped, unwrapped_ids
from llm_cost_middleware.providers import NAMES

_BASES = frozenset({"SyncAPIClient", "AsyncAPIClient"})


class PlainClient(NamedTuple):
    """A client that nobody wrapped, or a class that a tool makes one of."""

    name: str
    """By which it is reached; empty where it was only found alive."""
    kind: str
    """Its class, such as ``openai.OpenAI``."""
    provider: str

    @property
    def advice(self) -> str:
        """What to do."""
        return f"wrap it: wrap_{self.provider}(client)"


def reached_by(function: Callable[..., Any]) -> tuple[PlainClient, ...]:
    """The plain clients that a function can reach by the names it uses: its globals, and what it encloses."""
    while isinstance(function, partial):
        function = function.func
    try:
        found = getclosurevars(unwrap(getattr(function, "__func__", function)))
    except (TypeError, ValueError):  # it is no Python function: nobody can see into it
        return ()
    names = {**found.globals, **found.nonlocals}
    wraps = any(getattr(value, "__name__", "").startswith("wrap_") for value in names.values() if callable(value))
    plain = []
    for name, value in names.items():
        kind = value if isinstance(value, type) else type(value)
        provider = _provider_of(kind)
        made_and_wrapped = isinstance(value, type) and wraps
        if provider is not None and not made_and_wrapped and not is_wrapped(value):
            plain.append(PlainClient(name, f"{provider}.{_shown(kind, provider)}", provider))
    return tuple(plain)


def alive() -> Iterator[PlainClient]:
    """The plain clients that live in this process, but for those that a governed client or a LangChain model holds."""
    objects = gc.get_objects()
    held = unwrapped_ids(objects)
    for one in objects:
        if _root(type(one)).startswith("langchain"):
            held.update(id(value) for value in (getattr(one, "__dict__", None) or {}).values())
    for one in objects:
        kind = type(one)
        provider = _provider_of(kind)
        if provider is not None and id(one) not in held and not is_wrapped(one):
            yield PlainClient("", f"{provider}.{_shown(kind, provider)}", provider)


def _provider_of(kind: type) -> str | None:
    """Whose client it is; ``None`` for everything else. No SDK is imported for it."""
    for base in kind.__mro__:
        if base.__name__ in _BASES and (root := _root(base)) in NAMES:
            return root
    return None


def _root(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]  # a class may have said something else there


def _shown(kind: type, provider: str) -> str:
    return next(base.__name__ for base in kind.__mro__ if _root(base) == provider)
