"""Scopes, amounts and moments as the page tells them."""

from __future__ import annotations

from datetime import datetime, tzinfo
from urllib.parse import unquote

from llm_cost_middleware.money import NanoUSD


def readable(scope: str) -> str:
    """A scope as it was given, where it can be printed."""
    text = unquote(scope)
    return text if text.isprintable() else scope


def usd(amount: int | None) -> str | None:
    """Nano-dollars as exact US dollars."""
    return None if amount is None else f"{NanoUSD(amount).usd:f}"


def when(moment: float, zone: tzinfo | None) -> str:
    """A moment, seconds since the Unix epoch, in a time zone (``None``: the machine's)."""
    return f"{datetime.fromtimestamp(moment, zone):%Y-%m-%d %H:%M}"
