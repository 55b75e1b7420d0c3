"""Copies of a client: what it holds is made anew for them, and where their requests go."""

from __future__ import annotations

import functools
import inspect
from typing import Any
from urllib.parse import urlsplit


def bind_resources(twin: Any, client: Any) -> None:
    """Make anew what a client of a platform holds as attributes, bound to the client that ``twin`` is a copy of."""
    for name, held in list(vars(twin).items()):
        if getattr(held, "__dict__", {}).get("_client") is client:
            setattr(twin, name, type(held)(twin))


def is_cached(client: Any, name: str) -> bool:
    """Whether it was made of the client when it was first asked for; a setting (``region``) only has such a default."""
    known = inspect.getattr_static(type(client), name, None)
    return isinstance(known, functools.cached_property) and not isinstance(vars(client)[name], str | None)


def is_elsewhere(client: Any, path: str) -> bool:
    """Whether a path is an address, and of another host than the client's: whose models are there is not known.

    An address has a scheme and a host: without either the HTTP client (``httpx.URL.is_relative_url``) sends the path
    to its own.
    """
    if "//" not in path or path[:1] == "/":
        return False
    there, own = urlsplit(path.strip()), urlsplit(str(client.base_url))
    if not there.scheme or not there.hostname:
        return False
    return (there.hostname, there.port or _PORTS.get(there.scheme or own.scheme)) != (
        own.hostname, own.port or _PORTS.get(own.scheme),
    )  # fmt: skip


_PORTS = {"http": 80, "https": 443}
