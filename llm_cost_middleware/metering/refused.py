"""Refusals for want of money, as lines of the journal: nothing was booked, so no row of the ledger tells of them."""

from __future__ import annotations

import json
from typing import NamedTuple

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import ModelRef

REFUSAL = "refusal"
"""The kind of these lines in the journal."""
_VERSION = 1


class RefusedCall(NamedTuple):
    """Call that was refused before it was sent."""

    call_id: str
    target: ModelRef
    """The cheapest model that was tried."""
    scopes: tuple[str, ...]
    scope: str
    """The scope whose budget had too little left."""
    wanted_nanousd: NanoUSD
    """The least that would have been reserved."""
    tier: str
    pending_nanousd: NanoUSD | None = None
    """What calls in flight held of the scope then; ``None``: not noted, by an earlier version."""
    fits: int | None = None
    """The largest output cap with which it would have fitted; 0: none. ``None``: not noted, by an earlier version."""


def refusal_line(
    *,
    call_id: str,
    target: ModelRef,
    scopes: tuple[str, ...],
    scope: str,
    wanted: NanoUSD,
    tier: str,
    pending: NanoUSD | None = None,
    fits: int | None = None,
) -> bytes:
    """Return the line of a refusal."""
    data = {
        "v": _VERSION, "call": call_id, "at": [target.provider, target.model], "scopes": scopes, "scope": scope,
        "wanted": int(wanted), "tier": tier,
        "pending": None if pending is None else int(pending), "fits": fits,
    }  # fmt: skip
    return json.dumps(data, separators=(",", ":")).encode()


def read_refusal(line: bytes) -> RefusedCall | None:
    """Read a line; ``None`` where it is none that this version reads."""
    try:
        data = json.loads(line)
        if data["v"] > _VERSION:
            return None
        pending = data.get("pending")
        return RefusedCall(
            data["call"], ModelRef(*data["at"]), tuple(data["scopes"]), data["scope"], NanoUSD(data["wanted"]),
            data["tier"], None if pending is None else NanoUSD(pending), data.get("fits"),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        return None
