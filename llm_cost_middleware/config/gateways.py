"""Gateways: addresses behind which something else than the provider may answer."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.platform import CLIENTS, PLATFORMS, find_platform
from llm_cost_middleware.providers import get_provider


def is_gateway(config: CostConfig, provider: str, url: object) -> bool:
    """Whether requests to an address get nothing that their caller did not write.

    A provider's own domain, the address under ``[providers.NAME] base_url`` and this machine are taken for the provider
    (what listens here is a forwarder, a recorder or a simulator of it); every other address for a gateway, which may
    refuse a field that it does not know. ``[providers.NAME] gateway`` decides otherwise.

    Args:
        config: The configuration.
        provider: The provider whose API is spoken.
        url: The address; empty for the provider's own.
    """
    own, host = config.access(provider), _host(url)
    if not host or _is_at(host, get_provider(provider).domains):
        return False
    if own.gateway != "auto":
        return own.gateway == "foreign"
    return not _is_here(host) and host != _host(own.base_url)


def platform_at(provider: str, url: object) -> str | None:
    """The platform that the provider's own client speaks to at an address; ``None`` for every other address.

    Args:
        provider: The provider whose API is spoken.
        url: The address.
    """
    host = _host(url)
    for name in PLATFORMS if host else ():
        platform = find_platform(name)
        if platform is None or platform.provider != provider or not platform.takes_plain_clients:
            continue
        if _is_at(host, platform.rules.domains):
            return name
    return None


def service_of(client: Any) -> str | None:
    """The provider or the platform that a client of an SDK talks to, by its class and its address.

    Empty: a platform that is not known here; ``None``: it is no client of an SDK.
    """
    for kind in type(client).__mro__:
        maker = kind.__module__.partition(".")[0]  # SDKs are called as their providers
        if maker in CLIENTS:
            service = CLIENTS[maker].get(kind.__name__, "")
            at = platform_at(maker, getattr(client, "base_url", "")) if service == maker else None
            return at or service
    return None


def _is_at(host: str, domains: tuple[str, ...]) -> bool:
    return host.endswith(tuple(f".{domain}" for domain in domains))


def _host(url: object) -> str:
    name = urlsplit(str(url or "")).hostname
    return f".{name}" if name else ""


def _is_here(host: str) -> bool:
    name = host[1:]
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
