"""Backends by the scheme of a URL."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from llm_cost_middleware.budget.backend import AsyncBackend, Backend, Direct, InThread
from llm_cost_middleware.budget.ledger.arguments import MACHINE_CLOCK, Durability
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError

_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


class Options(NamedTuple):
    """Options of a ledger; ``rest`` is the URL after its scheme."""

    url: str
    rest: str
    clock: Clock | None
    tenant: str
    durability: Durability


def _memory(options: Options) -> Backend:
    from llm_cost_middleware.budget.backends.memory import MemoryBackend

    clock = options.clock or MACHINE_CLOCK
    if not options.rest:  # without a name: nobody else can open the same
        return MemoryBackend(clock)
    return MemoryBackend.named(f"{options.tenant}/{options.rest}", clock)


def _amemory(options: Options) -> AsyncBackend:
    return Direct(_memory(options))


def _sqlite(options: Options) -> Backend:
    from llm_cost_middleware.budget.backends.sqlite import SQLiteBackend

    return SQLiteBackend.open(
        options.url, options.clock or MACHINE_CLOCK, options.tenant, full=options.durability == "full"
    )


def _asqlite(options: Options) -> AsyncBackend:
    return InThread(_sqlite(options))


def _redis(options: Options) -> Backend:
    from llm_cost_middleware.budget.backends.redis import RedisBackend

    return RedisBackend.open(options.url, options.clock, options.tenant)


def _aredis(options: Options) -> AsyncBackend:
    from llm_cost_middleware.budget.backends.redis import AsyncRedisBackend

    return AsyncRedisBackend.open(options.url, options.clock, options.tenant)


SCHEMES: dict[str, tuple[Callable[[Options], Backend], Callable[[Options], AsyncBackend]]] = {
    "memory": (_memory, _amemory),
    "sqlite": (_sqlite, _asqlite),
    "redis": (_redis, _aredis),
    "rediss": (_redis, _aredis),
    "redis+cluster": (_redis, _aredis),
    "unix": (_redis, _aredis),
}


def read_options(url: str, clock: Clock | None, tenant: str, durability: Durability) -> tuple[str, Options]:
    """Check the options of ``open``. Raises ``ConfigurationError``."""
    scheme, found, rest = url.partition("://")
    if not found or scheme not in SCHEMES:
        raise ConfigurationError(
            f"{url.partition('@')[0]!r} is none of memory://, sqlite:///path, redis://host:port/db", key="ledger.url"
        )
    if "?" in rest and scheme in {"memory", "sqlite"}:
        raise ConfigurationError(f"{url!r} has options; {scheme}:// takes none", key="ledger.url")
    if not _TENANT.match(tenant):
        raise ConfigurationError(f"{tenant!r} is not 1 to 64 letters, digits, '-', '_' or '.'", key="ledger.tenant")
    if durability not in {"full", "normal"}:
        raise ConfigurationError(f"{durability!r} is neither 'full' nor 'normal'", key="ledger.durability")
    return scheme, Options(url, rest, clock, tenant, durability)
