"""Addresses of APIs, as people write them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from llm_cost_middleware.errors import ConfigurationError


def check_base_url(value: str, key: str = "base_url") -> None:
    """Check the address of an API; empty: its own. Raises ``ConfigurationError``."""
    if not value:
        return
    scheme, sep, _ = value.partition("://")
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", value)
    except ValueError:  # a port that is no number
        usable = False
    if scheme.lower() not in ("http", "https") or not usable:
        near = "" if sep or not value.strip() else f"; did you mean 'http://{value.strip()}'?"
        raise ConfigurationError(f"must be an address such as https://host/v1, not {value!r}{near}", key=key)
