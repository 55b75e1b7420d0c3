"""Backends by the scheme of a URL, and the registration of others."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import NamedTuple

from llm_cost_middleware.budget.backend import AsyncAdapter, AsyncBackend, Backend, redacted
from llm_cost_middleware.budget.ledger.arguments import MACHINE_CLOCK, Durability, Lease
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.natural_values import read_ledger_url
from llm_cost_middleware.typed_fields import read_choice

_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*\Z")


class LedgerOptions(NamedTuple):
    """Options of a ledger, checked; ``rest`` is the URL after its scheme."""

    url: str
    rest: str
    clock: Clock | None
    tenant: str
    durability: Durability

    def __repr__(self) -> str:
        """Without the password that a URL may have."""
        return f"LedgerOptions({redacted(self.url)!r}, tenant={self.tenant!r}, durability={self.durability!r})"


BackendFactory = Callable[[LedgerOptions], Backend]
AsyncBackendFactory = Callable[[LedgerOptions], AsyncBackend]


_REDIS = [f"{plain}{kind}" for plain in ("redis", "rediss") for kind in ("", "+cluster", "+sentinel")]
Scheme = tuple[BackendFactory, AsyncBackendFactory]


def _scheme(factory: BackendFactory, async_factory: AsyncBackendFactory | None = None) -> Scheme:
    return factory, async_factory or (lambda options: AsyncAdapter(factory(options)))


# Each factory imports its own module: no driver is loaded for a ledger that is not used.
def _memory(options: LedgerOptions) -> Backend:
    from llm_cost_middleware.budget.backends.memory import MemoryBackend

    clock = options.clock or MACHINE_CLOCK
    if not options.rest:  # without a name: nobody else can open the same
        return MemoryBackend(clock)
    return MemoryBackend.named(f"{options.tenant}/{options.rest}", clock)


def _sqlite(options: LedgerOptions) -> Backend:
    from llm_cost_middleware.budget.backends.sqlite import SQLiteBackend

    full = options.durability == "full"
    return SQLiteBackend.open(options.url, options.clock or MACHINE_CLOCK, options.tenant, full=full)


def _redis(options: LedgerOptions) -> Backend:
    from llm_cost_middleware.budget.backends.redis import RedisBackend

    return RedisBackend(options.url, options.clock, options.tenant)


def _aredis(options: LedgerOptions) -> AsyncBackend:
    from llm_cost_middleware.budget.backends.redis import AsyncRedisBackend

    return AsyncRedisBackend(options.url, options.clock, options.tenant)


def _postgres(options: LedgerOptions) -> Backend:
    from llm_cost_middleware.budget.backends.postgres import PostgresBackend

    return PostgresBackend(options.url, options.clock, options.tenant)


def _apostgres(options: LedgerOptions) -> AsyncBackend:
    from llm_cost_middleware.budget.backends.postgres import AsyncPostgresBackend

    return AsyncPostgresBackend(options.url, options.clock, options.tenant)


_SERVERS = {
    **dict.fromkeys((*_REDIS, "unix"), _scheme(_redis, _aredis)),
    **dict.fromkeys(("postgresql", "postgres"), _scheme(_postgres, _apostgres)),
}
"""Storages that have a clock of their own, which all machines share."""
_BUILT_IN = {"memory": _scheme(_memory), "sqlite": _scheme(_sqlite), **_SERVERS}
_schemes = dict(_BUILT_IN)


def register(scheme: str, factory: BackendFactory, async_factory: AsyncBackendFactory | None = None) -> None:
    """Let ``open`` take the URLs of a scheme, for ``Ledger`` and ``AsyncLedger``. A second registration replaces it.

    Args:
        scheme: What stands before ``://``, in lower case.
        factory: Makes a backend from the checked options.
        async_factory: Makes one for an event loop; without it the verbs of ``factory``'s run in worker threads.

    Raises:
        ConfigurationError: The scheme is malformed or one of the package's own.
    """
    if not _SCHEME.match(scheme) or scheme in _BUILT_IN:
        raise ConfigurationError(f"{scheme!r} is no scheme of a URL, or one of this package", key="scheme")
    _schemes[scheme] = _scheme(factory, async_factory)


def _leased(scheme: Scheme) -> Scheme:
    """Return a scheme whose backends have leases, where they are of use."""
    from llm_cost_middleware.budget.leases import LeasedBackend, OwnedAsyncLeasedBackend, lease_from

    factory, async_factory = scheme

    def opened(options: LedgerOptions) -> Backend:
        return lease_from(factory(options), options.clock, (options.clock or MACHINE_CLOCK).monotonic)

    def aopened(options: LedgerOptions) -> AsyncBackend:
        client = async_factory(options)
        storage = client.backend if isinstance(client, AsyncAdapter) else factory(options)
        leased = lease_from(storage, options.clock, (options.clock or MACHINE_CLOCK).monotonic)
        if isinstance(leased, LeasedBackend):
            return OwnedAsyncLeasedBackend(leased, client)
        if storage is not getattr(client, "backend", None):
            storage.close()
        return client

    return opened, aopened


def is_memory(url: str) -> bool:
    """Return whether a URL names a ledger in memory, without opening it."""
    return url.startswith("memory://")


def read_options(
    url: str | os.PathLike[str], clock: Clock | None, tenant: str, durability: Durability, lease: Lease = "off"
) -> tuple[Scheme, LedgerOptions]:
    """Check the options of ``open``. Raises ``ConfigurationError``."""
    url = read_ledger_url(url)
    name, found, rest = url.partition("://")
    if not found or name not in _schemes:
        others = "".join(f", {other}://" for other in _schemes.keys() - _BUILT_IN.keys())
        raise ConfigurationError(
            f"{redacted(url)!r} is none of memory://, sqlite:///path (sqlite:////absolute/path), "
            f"redis://host:port/db, postgresql://host:port/database{others}",
            key="ledger.url",
        )
    if "?" in rest and name in {"memory", "sqlite"}:
        raise ConfigurationError(f"{url!r} has options; {name}:// takes none", key="ledger.url")
    if name in _SERVERS and max(rest.partition(end)[0].count("@") for end in "/?") > 1:  # a driver would show its rest
        raise ConfigurationError(
            "an @ in a user's name, a password or a database's name is written %40, a / %2F", key="ledger.url"
        )
    if not isinstance(tenant, str) or not _TENANT.match(tenant):
        raise ConfigurationError(f"{tenant!r} is not 1 to 64 letters, digits, '-', '_' or '.'", key="ledger.tenant")
    read_choice(Durability, durability, "ledger.durability")
    read_choice(Lease, lease, "ledger.lease")
    if clock is None and name not in _SERVERS:
        clock = MACHINE_CLOCK
    scheme = _schemes[name] if lease == "off" else _leased(_schemes[name])
    return scheme, LedgerOptions(url, rest, clock, tenant, durability)
