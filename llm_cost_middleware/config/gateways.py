"""Gateways: addresses behind which something else than the provider may answer."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from llm_cost_middleware.config import CostConfig
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
    if not host or host.endswith(tuple(f".{domain}" for domain in get_provider(provider).domains)):
        return False
    if own.gateway != "auto":
        return own.gateway == "foreign"
    return not _is_here(host) and host != _host(own.base_url)


def _host(url: object) -> str:
    name = urlsplit(str(url or "")).hostname
    return f".{name}" if name else ""


def _is_here(host: str) -> bool:
    name = host[1:]
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
